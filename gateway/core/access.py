"""Who may talk to whom: a rule over two lineages."""

from collections.abc import Sequence
from typing import Final

MAX_DEPTH: Final = 32
"""Levels of a hierarchy; a deeper one, or a cycle, counts as unknown."""

Lineage = Sequence[str]
"""A workspace's id, its parent's, and so on up to a root; empty when unknown, removed, too deep or cyclic."""


def may_talk(caller: Lineage, target: Lineage) -> bool:
    """Return whether these two may talk: the same, siblings, two roots, or one above the other."""
    if not caller or not target:
        return False
    if caller[0] in target or target[0] in caller:
        return True
    return caller[1:2] == target[1:2]
