"""Delegated tasks as they are kept."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from gateway.core.calls import Call, State
from gateway.core.endings import Ending
from gateway.ports.calls import History
from gateway.ports.queue import Outgoing


@dataclass(frozen=True, kw_only=True, slots=True)
class NewDelegation:
    """A delegation as it is first written. `lives_s`: how long it may wait to be sent, fetched or reported.

    key: None without one. outgoing: how it is sent; None for what goes into an inbox, or was sent by its source.
    """

    id: str
    source_id: str
    target_id: str
    method: str
    body: bytes = field(repr=False)
    summary: str
    result_id: str
    lives_s: float
    key: str | None = None
    outgoing: Outgoing | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PastDelegation:
    """A delegation as it is listed. `preview`: how the row of its result begins, None before there is one."""

    id: str
    source_id: str
    target_id: str
    state: State
    told: str | None
    summary: str
    ending: Ending | None
    error: str | None
    preview: str | None
    created_at: datetime


class Delegations(Protocol):
    """`store/delegation.py`. Every method may raise StoreError."""

    async def create(
        self,
        new: NewDelegation,
        rows: Sequence[Mapping[str, Any]],
        *,
        state: State,
        lane: str,
        priority: int,
        room: int,
    ) -> Call | bool:
        """Write a delegation with its rows of history, to be sent (pending) or fetched (parked).

        Returns the one that has its key already, or whether it was written: not if `room` wait for its target.
        """

    async def record(self, new: NewDelegation, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Write one that its source has sent itself; False if there is a call with its id."""

    async def find(self, source_id: str, delegation_id: str) -> Call | None:
        """Return a delegation of this workspace."""

    async def list_newest(self, source_id: str, *, limit: int) -> Sequence[PastDelegation]:
        """Return the delegations of this workspace, the newest first."""

    async def tell(self, delegation_id: str, told: str) -> Call | None:
        """Note what is said of one that its source has sent itself; None if it has ended."""

    async def end(
        self,
        delegation_id: str,
        sources: Collection[State],
        *,
        to: State,
        ending: Ending,
        answer: bytes | None,
        error: str | None,
        history: History,
    ) -> Call | None:
        """End one that no process sends, and write what `history` makes of it; None if it is none in these states."""

    async def end_overdue(self, *, limit: int, history: History) -> Sequence[Call]:
        """End those whose time is over, `limit` at most, each by one replica only."""
