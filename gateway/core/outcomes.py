"""What may become of a call on its way: the closed set of outcomes, each with what is known of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from gateway.core.endings import Ending


class Clock(StrEnum):
    """The clocks that may end a call; each value is the ending it causes."""

    IDLE = Ending.IDLE_TIMEOUT
    FIRST_BYTE = Ending.FIRST_BYTE_TIMEOUT
    DEADLINE = Ending.DEADLINE
    CEILING = Ending.CEILING
    BUS_LOST = Ending.BUS_LOST
    STALLED = Ending.STALLED


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """The agent answered in full. Headers: those passed on, by their canonical names.

    retry_after_s: what it asks for by Retry-After (`retry.read_retry_after`), None where it does not.
    """

    status: int
    headers: Mapping[str, str]
    body: bytes
    retry_after_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Streamed:
    """The agent answered with a stream, to its end. Headers: as of an answer.

    retry_after_s: how long it wants to be left alone, None where it has not said so (`retry:`, of a feed).
    """

    status: int
    headers: Mapping[str, str]
    retry_after_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class NotConnected:
    """No connection was acquired, so the agent saw nothing. `unsafe`: every address it has is refused by policy."""

    unsafe: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Dead:
    """Who runs the agent says that it is dead, and starts it anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Reset:
    """The connection was lost after bytes may have been sent and before any header came back."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Cut:
    """The body was lost after headers with this status. `closed`: it was a stream, and ended in good order, but not
    with a last event."""

    status: int
    closed: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class TooLarge:
    """The body passed the limit and was abandoned."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Unheld:
    """The agent answered with this status, and this process had no room for the body."""

    status: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Expired:
    """A clock ran out."""

    clock: Clock


@dataclass(frozen=True, kw_only=True, slots=True)
class Stopped:
    """The gateway went away first."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Spent:
    """Its agent has used more, in the middle of its stream, than its budget has left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Orphaned:
    """The replica that had it in its hands has died."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parked:
    """It is in the inbox of an agent that polls, and nobody waits for an answer."""

    call_id: str
    method: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Lapsed:
    """Its agent never took it, and its time is over."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rejected:
    """It has waited, and may not be sent any more; `reason` is the code of the refusal."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Cancelled:
    """It was called off. `under_way`: after it had begun, so that nobody knows what its agent has done."""

    under_way: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Broke:
    """The gateway itself failed: a bug, logged with its trace."""


Outcome = (
    Answered
    | Streamed
    | NotConnected
    | Dead
    | Reset
    | Cut
    | TooLarge
    | Unheld
    | Expired
    | Stopped
    | Spent
    | Orphaned
    | Parked
    | Lapsed
    | Cancelled
    | Rejected
    | Broke
)
