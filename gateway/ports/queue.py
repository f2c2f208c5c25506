"""Calls that wait for a busy agent, each to be taken out by one process."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from gateway.core.answers import Answer
from gateway.core.calls import Call, Kind, State
from gateway.core.claims import Claim
from gateway.core.endings import Ending
from gateway.core.queue import Place
from gateway.ports.calls import History, Same


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A call has its place in the queue: how many wait there with it, and until when it does."""

    depth: int
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """How a call goes out that has waited. Headers: those of the call itself, without the agent's credential.

    limit_s: its total time in seconds, None for no end; `by_deadline`: it is over when it may not wait any more.
    """

    headers: Mapping[str, str] = field(repr=False)
    limit_s: float | None
    by_deadline: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class NewQueued:
    """A call as it is written because its agent is busy. Seconds: until it may be sent, and how long it may wait.

    `claim`: what makes another call the same; None: nothing does.
    """

    id: str
    workspace_id: str
    caller_id: str | None
    lane: str
    priority: int
    method: str
    body: bytes = field(repr=False)
    outgoing: Outgoing
    delay_s: float
    lives_s: float
    claim: Claim | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """A queued call that one process has alone, by its `claim`; `left_s` is for how long it might still have waited."""

    call: Call
    claim: str
    body: bytes = field(repr=False)
    outgoing: Outgoing
    left_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedEnd:
    """How a claimed call ends, and what its caller gets; `counts`: as an attempt."""

    to: State
    ending: Ending
    error: str | None
    answer: Answer
    counts: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class InLine:
    """A call of a queue as it is listed. `position`: 1 for the next, None where its agent is about to get or has it.

    `age_s`: since it came.
    """

    id: str
    kind: Kind
    state: State
    caller_id: str | None
    method: str
    place: Place
    position: int | None
    attempts: int
    busy: int
    last_error: str | None
    created_at: datetime
    dispatched_at: datetime | None
    expires_at: datetime
    age_s: float


class Claims(Protocol):
    """Calls that are sent by whichever process takes them. Every method may raise StoreError."""

    async def claim(
        self, workspace_id: str, *, eager: bool, limit: int, lease_s: float, answered: Collection[str] = ()
    ) -> Sequence[Claimed]:
        """Take the next calls, as many as the workspace may work on; eager: though it has just been busy.

        Those that are `answered` take no place any more, though their ends are not written yet.
        """

    async def mark_sent(self, call_id: str, claim: str) -> bool:
        """Write that a call is about to go out; False if it is not this one's any more."""

    async def renew(self, claims: Mapping[str, str], *, lease_s: float) -> None:
        """Let the leases on these begin anew: the claims by the calls' ids."""

    async def put_back(
        self, call_id: str, claim: str, *, delay_s: float, error: str | None, busy: bool, counts: bool
    ) -> bool:
        """Let a call take its old place again; False if it is not this one's any more."""

    async def end(self, call_id: str, claim: str, end: QueuedEnd, history: History) -> Call | None:
        """End a call, and write what `history` makes of it; None if it is not this one's any more."""

    async def free_lost(self, *, limit: int) -> Sequence[str]:
        """Put back those that a process had whose lease has run out, and did not send; return their workspaces."""

    async def list_waiting(self) -> Mapping[str, bool]:
        """Return the workspaces for which calls wait, and whether the first of each may be sent now."""


class Queue(Claims, Protocol):
    """`store/queue.py`. Every method may raise StoreError."""

    async def hold(
        self, call: NewQueued, row: Mapping[str, Any], *, error: str, room: int, kept_s: float = 0.0
    ) -> Placed | Same | None:
        """Write a call into the queue, with its row of history; return its place, None if `room` wait already.

        Where an earlier call has its claim nothing is written, and that one is returned, as `Calls.park` does.
        """

    async def end_overdue(self, *, limit: int, history: History) -> Sequence[Call]:
        """End those that have waited for as long as they may, `limit` at most, each by one replica only."""

    async def end_stale(
        self, older_s: float, *, workspace_id: str | None = None, limit: int, history: History
    ) -> Sequence[Call]:
        """End those that came longer ago than this, likewise; workspace_id: only those that wait for this one."""

    async def end_called_off(self, *, limit: int, history: History) -> Sequence[Call]:
        """End those that were called off and that nobody has, or that a process had and did not send, likewise."""

    async def end_lost(self, *, limit: int, history: History) -> Sequence[Call]:
        """End those that were sent by a process whose lease has run out, likewise."""

    async def position(self, workspace_id: str, call_id: str) -> int | None:
        """Return at which place a call waits, 1 for the next; None if it does not wait."""

    async def list_line(self, workspace_id: str, after: Place, *, limit: int) -> Sequence[InLine]:
        """Return the calls that wait for a workspace or are out of its queue, in its order, after this place."""
