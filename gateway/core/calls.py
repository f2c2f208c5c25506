"""What is true of a call that the ledger keeps: its states, the moves between them, and the one in which it ends."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final

from gateway.core.endings import Ending
from gateway.core.journey import Arrival, Journey


class Kind(StrEnum):
    """How a call travels to its agent; the database's CHECK holds the same words (a test compares them)."""

    PUSH = "push"
    PARKED = "parked"
    QUEUED = "queued"
    DELEGATION = "delegation"


class State(StrEnum):
    """The ten states; the database's CHECK holds the same words."""

    PENDING = "pending"
    DISPATCHED = "dispatched"
    STREAMING = "streaming"
    PARKED = "parked"
    QUEUED = "queued"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    EXPIRED = "expired"
    INTERRUPTED = "interrupted"


S = State
FINAL: Final = frozenset({S.COMPLETED, S.FAILED, S.CANCELLED, S.EXPIRED, S.INTERRUPTED})
"""A call in one of these has ended, and stays as it is."""
LIVING: Final = frozenset(State) - FINAL

MOVES: Final[Mapping[State, frozenset[State]]] = {
    S.PENDING: frozenset(),
    S.DISPATCHED: frozenset({S.PENDING, S.PARKED, S.QUEUED}),
    S.STREAMING: frozenset({S.DISPATCHED}),
    S.PARKED: frozenset({S.PENDING}),
    S.QUEUED: frozenset({S.PENDING, S.DISPATCHED}),
    S.COMPLETED: frozenset({S.PARKED, S.DISPATCHED, S.STREAMING}),
    S.FAILED: frozenset({S.PENDING, S.DISPATCHED, S.STREAMING, S.PARKED, S.QUEUED}),
    S.CANCELLED: LIVING,
    S.EXPIRED: frozenset({S.PENDING, S.DISPATCHED, S.PARKED, S.QUEUED}),
    S.INTERRUPTED: frozenset({S.PENDING, S.DISPATCHED, S.STREAMING}),
}
"""To each state, the states it may be entered from: forward only, but between queued and dispatched. Each move is one
UPDATE that checks this."""

END_STATES: Final[Mapping[Ending, State]] = {
    Ending.COMPLETED: S.COMPLETED,
    Ending.DELIVERED_TO_INBOX: S.COMPLETED,
    Ending.AGENT_ERROR: S.FAILED,
    Ending.AGENT_BUSY: S.FAILED,
    Ending.AGENT_UNREACHABLE: S.FAILED,
    Ending.AGENT_RESTARTING: S.FAILED,
    Ending.IDLE_TIMEOUT: S.FAILED,
    Ending.FIRST_BYTE_TIMEOUT: S.FAILED,
    Ending.AGENT_RESET: S.FAILED,
    Ending.TRUNCATED: S.FAILED,
    Ending.RESPONSE_TOO_LARGE: S.FAILED,
    Ending.OVERLOADED: S.FAILED,
    Ending.DEADLINE: S.FAILED,
    Ending.CEILING: S.FAILED,
    Ending.BUS_LOST: S.FAILED,
    Ending.STALLED: S.FAILED,
    Ending.BUDGET: S.FAILED,
    Ending.INTERNAL: S.FAILED,
    Ending.GATEWAY_SHUTDOWN: S.INTERRUPTED,
    Ending.INTERRUPTED: S.INTERRUPTED,
    Ending.EXPIRED: S.EXPIRED,
    Ending.CANCELLED: S.CANCELLED,
    Ending.REJECTED: S.FAILED,
}
"""The final state of each ending."""

INBOX_KINDS: Final = frozenset({Kind.PARKED, Kind.DELEGATION})
"""What an agent may end from its inbox once it has it; a call that a process has sent to it ends by its own
connection."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """A call as the ledger has it. `workspace_id` is the target; times are PostgreSQL's.

    `caller_id`: the calling workspace, None for a person. `attempts`: how often it was handed out, or sent or tried.
    `answer`: what its caller gets, None before there is something: the agent's own bytes where it has answered.
    `expires_at`: until when it may last, None for as long as it likes. `journey`: of one that is sent to its agent at
    once, None of others. Of calls that wait for a busy agent: `busy` is how often it was, `last_error` the code of what
    went wrong last; `answer_status` and `answer_headers` go with the answer. Of delegations: `carried` is whether the
    gateway sends it, `summary` how its task begins, `told` what its source says of one that it has sent itself,
    `result_id` the row of its result in the history of its source.
    """

    id: str
    kind: Kind
    state: State
    workspace_id: str
    caller_id: str | None
    method: str
    attempts: int
    created_at: datetime
    expires_at: datetime | None
    ending: Ending | None = None
    lease_until: datetime | None = None
    dispatched_at: datetime | None = None
    ended_at: datetime | None = None
    answer: bytes | None = field(default=None, repr=False)
    answer_status: int | None = None
    answer_headers: Mapping[str, str] = field(default_factory=dict)
    priority: int = 50
    busy: int = 0
    last_error: str | None = None
    journey: Journey | None = None
    carried: bool = False
    summary: str | None = None
    told: str | None = None
    result_id: str | None = None

    @property
    def ended(self) -> bool:
        """Whether it has come to its one end."""
        return self.state in FINAL

    @property
    def duration_ms(self) -> int:
        """How long it took to its end, 0 before it."""
        return 0 if self.ended_at is None else round((self.ended_at - self.created_at).total_seconds() * 1000)


def pushed(
    *,
    call_id: str,
    workspace_id: str,
    caller_id: str | None,
    method: str,
    created_at: datetime,
    journey: Journey,
    arrival: Arrival | None,
) -> Call:
    """Return a call on its way, or that has arrived, as the ledger will have it."""
    if arrival is not None:
        journey = arrival.journey
    return Call(
        id=call_id,
        kind=Kind.PUSH,
        state=S.DISPATCHED if arrival is None else END_STATES[arrival.ending],
        workspace_id=workspace_id,
        caller_id=caller_id,
        method=method,
        attempts=journey.attempts,
        created_at=created_at,
        expires_at=None if journey.limit_s is None else created_at + timedelta(seconds=journey.limit_s),
        ending=None if arrival is None else arrival.ending,
        dispatched_at=created_at,
        ended_at=None if arrival is None else created_at + timedelta(milliseconds=arrival.duration_ms),
        journey=journey,
    )


def may_move(source: State, to: State) -> bool:
    """Return whether the table allows this move."""
    return source in MOVES[to]


def allowed(to: State, sources: Collection[State]) -> list[str]:
    """Return the words of these states, as a query takes them; raises ValueError for a move that the table forbids."""
    if wrong := set(sources) - MOVES[to]:
        raise ValueError(f"no call moves from {', '.join(sorted(wrong))} to {to}")
    return sorted(source.value for source in sources)
