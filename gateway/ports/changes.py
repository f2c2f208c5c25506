"""What others have changed, so that what was known of it can be forgotten."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A row of the list of changes: a cache must forget this key. `kind` is `workspace`, `token` or `session`; or it is
    `call`, and whoever makes the call with this id is to end it."""

    id: int
    kind: str
    key: str


class Changes(Protocol):
    """`store/changes.py`. Every method may raise StoreError."""

    async def horizon(self) -> str:
        """Return the transaction below which every change is visible."""

    async def list_since(self, horizon: str) -> tuple[Sequence[Change], str]:
        """Return the changes since a horizon (some may come twice) and the new horizon."""

    async def call_off(self, call_id: str) -> None:
        """List a call that its process is to end."""

    async def forget_old(self) -> None:
        """Drop rows that no cache needs any more."""
