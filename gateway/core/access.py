"""Who may talk to whom: a rule over two lineages."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

MAX_DEPTH: Final = 32
"""Levels of a hierarchy; a deeper one, or a cycle, counts as unknown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """A place in the hierarchy below some parent: is the parent there, is it below who moves, how deep would it get?"""

    parent_there: bool
    circular: bool
    depth: int


Lineage = Sequence[str]
"""A workspace's id, its parent's, and so on up to a root; empty when unknown, removed, too deep or cyclic."""


def check_place(place: Place) -> str | None:
    """Return why a workspace with all below it must not move to this place, or None."""
    if not place.parent_there:
        return "no such workspace"
    if place.circular:
        return "is the workspace itself or below it"
    return f"would make the hierarchy deeper than {MAX_DEPTH} levels" if place.depth > MAX_DEPTH else None


def lineage_beside(known: Lineage, workspace_id: str, parent_id: str | None) -> Lineage:
    """Return the lineage of a workspace that is a root, or whose own or parent's id stands in a known one."""
    if workspace_id in known:
        return known[known.index(workspace_id) :]
    if parent_id is None:
        return [workspace_id]
    if parent_id not in known:
        return ()
    line = [workspace_id, *known[known.index(parent_id) :]]
    return line if len(line) <= MAX_DEPTH else ()


def may_talk(caller: Lineage, target: Lineage) -> bool:
    """Return whether these two may talk: the same, siblings, two roots, or one above the other."""
    if not caller or not target:
        return False
    if caller[0] in target or target[0] in caller:
        return True
    return list(caller[1:2]) == list(target[1:2])
