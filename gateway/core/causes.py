"""What can have happened to a call or a feed, told by type and status, and what follows from it: one table."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from http import HTTPStatus
from typing import Final, assert_never

from gateway.core.endings import Ending
from gateway.core.outcomes import (
    Answered,
    Broke,
    Cancelled,
    Clock,
    Cut,
    Dead,
    Expired,
    Lapsed,
    NotConnected,
    Orphaned,
    Outcome,
    Parked,
    Rejected,
    Reset,
    Spent,
    Stopped,
    Streamed,
    TooLarge,
    Unheld,
)

ATTEMPTS: Final = 5
"""How often a call that waits is tried when its agent cannot be reached; that it is busy does not count."""


class Cause(StrEnum):
    """What has happened; the words stand in the document. Several may be one ending, where calls do not tell them
    apart."""

    ANSWERED = "any other answer below 300"
    EMPTY = "204"
    STREAMED = "a stream, to its end"
    FINAL = "401, 403, 404 or 410"
    FAILED = "any other answer"
    BUSY = "429, or 503 with `Retry-After`"
    UNREACHABLE = "no connection was made: refused, no such name, TLS, too slow"
    UNSAFE = "no connection was made: the policy of addresses forbids it"
    DEAD = "who runs the agent says that it is dead"
    IDLE = "no sign of life"
    FIRST_BYTE = "no byte of an answer in time"
    RESET = "the connection was lost before an answer"
    CUT = "the connection was lost within the answer"
    TOO_LARGE = "an answer past the limit"
    UNHELD = "an answer for which there was no room"
    DEADLINE = "the caller's time was over"
    CEILING = "the time that calls may take was over"
    BUS_LOST = "the gateway could not hear the agent"
    STALLED = "signs of life, and a stream that stands"
    SPENT = "a stream has spent the budget"
    STOPPED = "the gateway was stopped"
    ORPHANED = "the replica that had it died"
    PARKED = "it is in the inbox of an agent that polls"
    LAPSED = "its time was over while it waited"
    CANCELLED = "it was called off"
    REJECTED = "it waited, and may not be sent any more"
    BROKE = "a bug of the gateway"


class Taken(StrEnum):
    """What an ending says of the message; the words stand in the document."""

    NO = "the agent has not got it"
    UNSENT = "the agent has not got it, if it was called off before it was sent"
    DIED = "the agent is dead"
    YES = "the agent has got it"
    UNREAD = "the agent has got it, and what it answered is lost"
    UNKNOWN = "nobody knows"


class Retriable(StrEnum):
    """Whether its caller may send it again; the words stand in the document."""

    YES = "yes"
    NO = "no"
    CALLER = "the caller decides"


class Again(StrEnum):
    """How the gateway itself sends again; the words stand in the document."""

    NEVER = "-"
    AT_ONCE = "once more, at once"
    WAITS = "when the agent has time"
    COUNTED = f"{ATTEMPTS} times in all, ever later"
    ONCE = "once more, later"


class Anew(StrEnum):
    """How a feed is connected to again, which only reads; the words stand in the document."""

    NEVER = "-"
    """It does not happen to feeds."""
    PACED = "at once, in measure"
    LATER = "ever later"
    GIVEN_UP = "given up"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One row: the ending of a call to which this has happened, and what follows.

    `taken` and `retriable` are the same for all causes of an ending. `sent`, `queued`, `delegated`: what the gateway
    does with a call whose caller waits for the answer, with one that waits for a busy agent, and with a delegation that
    has not waited yet. `feed`: what it does where this was the end of a connection to a feed.
    """

    ending: Ending
    taken: Taken
    retriable: Retriable
    sent: Again = Again.NEVER
    queued: Again = Again.NEVER
    delegated: Again = Again.NEVER
    feed: Anew = Anew.NEVER


_E, _T, _R = Ending, Taken, Retriable
RULES: Final[Mapping[Cause, Rule]] = {
    Cause.STREAMED: Rule(ending=_E.COMPLETED, taken=_T.YES, retriable=_R.NO, feed=Anew.PACED),
    Cause.EMPTY: Rule(ending=_E.COMPLETED, taken=_T.YES, retriable=_R.NO, feed=Anew.GIVEN_UP),
    Cause.ANSWERED: Rule(ending=_E.COMPLETED, taken=_T.YES, retriable=_R.NO, feed=Anew.LATER),
    Cause.BUSY: Rule(
        ending=_E.AGENT_BUSY, taken=_T.NO, retriable=_R.YES,
        sent=Again.WAITS, queued=Again.WAITS, delegated=Again.WAITS, feed=Anew.LATER,
    ),
    Cause.FINAL: Rule(ending=_E.AGENT_ERROR, taken=_T.YES, retriable=_R.NO, feed=Anew.GIVEN_UP),
    Cause.FAILED: Rule(ending=_E.AGENT_ERROR, taken=_T.YES, retriable=_R.NO, feed=Anew.LATER),
    Cause.UNREACHABLE: Rule(
        ending=_E.AGENT_UNREACHABLE, taken=_T.NO, retriable=_R.YES,
        sent=Again.AT_ONCE, queued=Again.COUNTED, delegated=Again.AT_ONCE, feed=Anew.LATER,
    ),
    Cause.UNSAFE: Rule(
        ending=_E.AGENT_UNREACHABLE, taken=_T.NO, retriable=_R.YES, queued=Again.COUNTED, feed=Anew.GIVEN_UP
    ),
    Cause.DEAD: Rule(ending=_E.AGENT_RESTARTING, taken=_T.DIED, retriable=_R.YES, delegated=Again.ONCE),
    Cause.IDLE: Rule(ending=_E.IDLE_TIMEOUT, taken=_T.UNKNOWN, retriable=_R.CALLER, feed=Anew.LATER),
    Cause.FIRST_BYTE: Rule(ending=_E.FIRST_BYTE_TIMEOUT, taken=_T.UNKNOWN, retriable=_R.CALLER, feed=Anew.LATER),
    Cause.RESET: Rule(ending=_E.AGENT_RESET, taken=_T.UNKNOWN, retriable=_R.CALLER, feed=Anew.LATER),
    Cause.CUT: Rule(ending=_E.TRUNCATED, taken=_T.UNREAD, retriable=_R.NO, feed=Anew.LATER),
    Cause.TOO_LARGE: Rule(ending=_E.RESPONSE_TOO_LARGE, taken=_T.UNREAD, retriable=_R.NO),
    Cause.UNHELD: Rule(ending=_E.OVERLOADED, taken=_T.UNREAD, retriable=_R.NO),
    Cause.DEADLINE: Rule(ending=_E.DEADLINE, taken=_T.UNKNOWN, retriable=_R.CALLER),
    Cause.CEILING: Rule(ending=_E.CEILING, taken=_T.UNKNOWN, retriable=_R.CALLER),
    Cause.BUS_LOST: Rule(ending=_E.BUS_LOST, taken=_T.UNKNOWN, retriable=_R.CALLER),
    Cause.STALLED: Rule(ending=_E.STALLED, taken=_T.UNKNOWN, retriable=_R.CALLER),
    Cause.SPENT: Rule(ending=_E.BUDGET, taken=_T.YES, retriable=_R.NO),
    Cause.STOPPED: Rule(ending=_E.GATEWAY_SHUTDOWN, taken=_T.UNKNOWN, retriable=_R.CALLER),
    Cause.ORPHANED: Rule(ending=_E.INTERRUPTED, taken=_T.UNKNOWN, retriable=_R.CALLER),
    Cause.PARKED: Rule(ending=_E.DELIVERED_TO_INBOX, taken=_T.YES, retriable=_R.NO),
    Cause.LAPSED: Rule(ending=_E.EXPIRED, taken=_T.UNSENT, retriable=_R.NO),
    Cause.CANCELLED: Rule(ending=_E.CANCELLED, taken=_T.UNSENT, retriable=_R.NO),
    Cause.REJECTED: Rule(ending=_E.REJECTED, taken=_T.NO, retriable=_R.NO),
    Cause.BROKE: Rule(ending=_E.INTERNAL, taken=_T.UNKNOWN, retriable=_R.CALLER),
}  # fmt: skip
"""Each cause, with all that follows from it."""

_CLOCKS: Final[Mapping[Clock, Cause]] = {
    Clock.IDLE: Cause.IDLE,
    Clock.FIRST_BYTE: Cause.FIRST_BYTE,
    Clock.DEADLINE: Cause.DEADLINE,
    Clock.CEILING: Cause.CEILING,
    Clock.BUS_LOST: Cause.BUS_LOST,
    Clock.STALLED: Cause.STALLED,
}
_STATUSES: Final[Mapping[int, Cause]] = {
    HTTPStatus.NO_CONTENT: Cause.EMPTY,  # the standard's word to the reader of a feed that it is not to come back
    HTTPStatus.UNAUTHORIZED: Cause.FINAL,
    HTTPStatus.FORBIDDEN: Cause.FINAL,
    HTTPStatus.NOT_FOUND: Cause.FINAL,
    HTTPStatus.GONE: Cause.FINAL,
    HTTPStatus.TOO_MANY_REQUESTS: Cause.BUSY,
}


def cause_of(outcome: Outcome) -> Cause:
    """Return which row of the table this is; never by the text of an error."""
    match outcome:
        case Answered():
            return _cause_of_answer(outcome)
        case Streamed():
            return Cause.STREAMED
        case NotConnected(unsafe=unsafe):
            return Cause.UNSAFE if unsafe else Cause.UNREACHABLE
        case Dead():
            return Cause.DEAD
        case Reset():
            return Cause.RESET
        case Cut():
            return Cause.CUT
        case TooLarge():
            return Cause.TOO_LARGE
        case Unheld():
            return Cause.UNHELD
        case Expired(clock=clock):
            return _CLOCKS[clock]
        case Stopped():
            return Cause.STOPPED
        case Spent():
            return Cause.SPENT
        case Orphaned():
            return Cause.ORPHANED
        case Parked():
            return Cause.PARKED
        case Lapsed():
            return Cause.LAPSED
        case Rejected():
            return Cause.REJECTED
        case Cancelled():
            return Cause.CANCELLED
        case Broke():
            return Cause.BROKE
        case never:
            assert_never(never)


def _cause_of_answer(answer: Answered) -> Cause:
    status = answer.status
    if status == HTTPStatus.SERVICE_UNAVAILABLE and "Retry-After" in answer.headers:
        return Cause.BUSY
    fine = HTTPStatus.OK <= status < HTTPStatus.MULTIPLE_CHOICES
    return _STATUSES.get(status, Cause.ANSWERED if fine else Cause.FAILED)


def endings_of(taken: Taken) -> frozenset[Ending]:
    """Return the endings that say this of the message."""
    return frozenset(rule.ending for rule in RULES.values() if rule.taken is taken)


UNDELIVERED: Final = endings_of(Taken.NO)
"""Those that say that no agent has taken the message: to send it once more is to send it for the first time ..."""
CALLED_OFF: Final = endings_of(Taken.UNSENT)
"""... and those that say so of a call that had not been handed to its agent."""
UNREAD: Final = endings_of(Taken.UNREAD)
"""Those in which the agent has answered and its answer was lost, with what it says of its usage."""
RETRIABLE: Final = frozenset(rule.ending for rule in RULES.values() if rule.retriable is Retriable.YES)
"""Those after which its caller may send it again, whoever it is."""
