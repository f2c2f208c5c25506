"""What all replicas decide and remember together of the calls that they let in."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Protocol

from gateway.core.answers import Answer
from gateway.core.claims import Claim
from gateway.core.journey import Arrival, Journey
from gateway.core.rates import Rate, Standing
from gateway.ports.calls import Waiting


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What a call's target may spend in its month, in millionths of a cent.

    A call holds `reserve`, at least; None: nothing at all.
    """

    month: str
    limit: int
    priced: int
    reported: int
    reserve: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A call that wants to begin.

    payer, rate: whose bucket it comes out of, None: nobody's. trace_id: the call's own trace. held: whether it ends
    with the replica that lets it in. serves: the call that the caller says it serves. limit_s: how long it may take,
    None for ever. budget: None without one. claim: what makes another call the same, None: nothing does. journey: how
    it is about to travel, None where it is not sent.
    """

    payer: str
    rate: Rate | None
    call_id: str
    caller_id: str | None
    target_id: str
    trace_id: str
    method: str
    held: bool
    serves: str | None
    limit_s: float | None
    budget: Budget | None
    claim: Claim | None = None
    journey: Journey | None = None


class Stage(Enum):
    """How far an earlier call has come: it is under way, it waits (the ledger knows how far it has come since), it has
    ended, or the replica that made it is gone."""

    RUNNING = "running"
    WAITS = "waits"
    ENDED = "ended"
    LOST = "lost"


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """The call that has a claim. `words`: whether it says the same. `answer`: of one that has ended, if it was kept.

    `again`: it has ended so that the next call with this claim is made.
    """

    call_id: str
    words: bool
    stage: Stage
    answer: Answer | None = field(default=None, repr=False)
    again: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Travelling:
    """A pushed call as all replicas know it, `age_s` seconds after it began; `arrival` once it has ended."""

    call_id: str
    target_id: str
    caller_id: str | None
    method: str
    age_s: float
    journey: Journey
    arrival: Arrival | None


class Barred(Enum):
    """Why a call may not begin."""

    RATE = "rate"
    DEEP = "deep"
    SPENT = "spent"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entered:
    """What was decided. `depth`: how many calls there are in the chain; `left_s`: until the one it serves must end.

    `held`: of the target's budget, in millionths of a cent. `earlier`: the call that this one is the same as; then this
    one has not begun. `sure`: there is no other that Redis has forgotten, and that waits.
    """

    barred: Barred | None
    standing: Standing | None
    depth: int
    left_s: float | None
    held: int = 0
    earlier: Earlier | None = None
    sure: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What is kept of a call for those with its claim. `answer`: None where it is not kept.

    `again`: the next call with this claim is made, and only those that wait already get this answer. `waits`: it has
    not ended; the ledger has it, and its claim.
    """

    claim: Claim
    answer: Answer | None = field(default=None, repr=False)
    again: bool = False
    waits: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """A call that has ended, or waits. `cost` is in millionths of a cent; `month` that of its budget, "" without one.

    keep_s: how long it is known how deep in its chain it was, None for as long as of any call that has ended.
    kept: what others with its claim get, None where it has none. arrival: how it ended, for who asks before its row
    is written; None where it has its row.
    """

    call_id: str
    target_id: str
    trace_id: str
    month: str
    cost: int
    keep_s: float | None = None
    kept: Kept | None = None
    arrival: Arrival | None = None


class Gate(Protocol):
    """`live/gate.py`: what all replicas decide together. Nobody waits for a Redis that is known to be away.

    `ups`: how often Redis has come up; `told`: the last of these after which it was told of all messages that wait.
    """

    ups: int
    told: int

    async def take(self, payer: str, rate: Rate) -> Standing:
        """Take one request out of a bucket. Raises LiveUnavailable."""

    async def enter(self, entry: Entry) -> Entered:
        """Let a call begin, or not. Raises LiveUnavailable."""

    async def look(self, claim: Claim) -> Earlier | None:
        """Return the call that has a claim. Raises LiveUnavailable."""

    async def find(self, call_id: str) -> Travelling | None:
        """Return a pushed call that has not ended, or has a moment ago. Raises LiveUnavailable."""

    async def remember(self, waiting: Waiting) -> None:
        """Say that a message's call waits, unless that is known. Raises LiveUnavailable."""

    async def has_lost(self, call_id: str, age_s: float) -> bool:
        """Return whether another replica has taken over a call of this one that began so long ago. Raises
        LiveUnavailable."""

    def leave(self, left: Left) -> None:
        """Say that a call has ended, now or once Redis is back."""

    def let_go(self, call_ids: Collection[str]) -> None:
        """Say that the rows of these calls are written, now or once Redis is back: nobody has to inherit them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Orphan:
    """A call whose replica has died, `age_s` seconds after it began.

    `journey`: None of an older release. `arrival`: None if it was in flight, else how it ended: its row may be lacking.
    """

    call_id: str
    target_id: str
    caller_id: str | None
    method: str
    trace_id: str
    age_s: float
    journey: Journey | None = None
    arrival: Arrival | None = None


class Leases(Protocol):
    """`live/leases.py`: which replicas live, and what those that do not have left."""

    async def lapsed(self) -> Sequence[str]:
        """Return the replicas that have calls in flight and no lease. Raises LiveUnavailable."""

    async def inherit(self, replica: str) -> tuple[Sequence[Orphan], bool]:
        """Take over some calls of a replica without a lease; return them, and whether there may be more.

        Raises LiveUnavailable.
        """
