"""The replicas, as each of them says that it is there."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Dead:
    """A process whose lease has run out. `unpublished`: events of it waited for Redis when it was last heard of.

    Then `publisher` had published them all once Redis had had `count` of it; "" if that is not known.
    """

    id: str
    unpublished: bool
    publisher: str = ""
    count: int = 0


class Instances(Protocol):
    """`store/instances.py`. Every method may raise StoreError."""

    async def renew(self, instance_id: str, *, lease_s: float, unpublished: bool, publisher: str, count: int) -> None:
        """Say that a process is alive, and whether events of it wait for Redis, up to which one."""

    async def leave(self, instance_id: str) -> None:
        """Say that a process has ended in good order."""

    async def find_alive(self, publishers: Sequence[str]) -> Collection[str]:
        """Return which of these publish for a process whose lease has not run out."""

    async def bury(self) -> Sequence[Dead]:
        """Take away the processes whose lease has run out, and return them; each is returned to one caller only."""
