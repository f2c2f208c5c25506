"""What follows from each ending: what its caller may do, and what the gateway itself sends again; one table of both."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum
from typing import Final, assert_never

from gateway.core import answers, outcomes
from gateway.core.answers import Ended
from gateway.core.calls import Call, Kind
from gateway.core.endings import Ending
from gateway.core.outcomes import NotConnected, Outcome
from gateway.core.refusals import Code

ATTEMPTS: Final = 5
"""How often a call that waits is tried when its agent cannot be reached; that it is busy does not count."""
STEEPEST: Final = 5
"""How often the time between two tries doubles."""
RETRY_AFTER_MOST_S: Final = 60.0
"""What an agent may ask for by Retry-After: who asks for more is tried sooner."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Rule:
    """One row: what causes the ending, and what follows from it.

    `sent`, `queued`, `delegated`: what the gateway does with a call whose caller waits for the answer, with one that
    waits for a busy agent, and with a delegation that has not waited yet.
    """

    cause: str
    taken: Taken
    retriable: Retriable
    sent: Again = Again.NEVER
    queued: Again = Again.NEVER
    delegated: Again = Again.NEVER


_T, _R = Taken, Retriable
RULES: Final[Mapping[Ending, Rule]] = {
    Ending.COMPLETED: Rule(cause="an answer below 300", taken=_T.YES, retriable=_R.NO),
    Ending.AGENT_ERROR: Rule(cause="any other answer", taken=_T.YES, retriable=_R.NO),
    Ending.AGENT_BUSY: Rule(
        cause="429, or 503 with `Retry-After`", taken=_T.NO, retriable=_R.YES,
        sent=Again.WAITS, queued=Again.WAITS, delegated=Again.WAITS,
    ),
    Ending.AGENT_UNREACHABLE: Rule(
        cause="no connection was made: refused, no such name, TLS, too slow", taken=_T.NO, retriable=_R.YES,
        sent=Again.AT_ONCE, queued=Again.COUNTED, delegated=Again.AT_ONCE,
    ),
    Ending.AGENT_RESTARTING: Rule(
        cause="who runs the agent says that it is dead", taken=_T.DIED, retriable=_R.YES, delegated=Again.ONCE
    ),
    Ending.IDLE_TIMEOUT: Rule(cause="no sign of life", taken=_T.UNKNOWN, retriable=_R.CALLER),
    Ending.FIRST_BYTE_TIMEOUT: Rule(cause="no byte of an answer in time", taken=_T.UNKNOWN, retriable=_R.CALLER),
    Ending.AGENT_RESET: Rule(cause="the connection was lost before an answer", taken=_T.UNKNOWN, retriable=_R.CALLER),
    Ending.TRUNCATED: Rule(cause="the connection was lost within the answer", taken=_T.UNREAD, retriable=_R.NO),
    Ending.RESPONSE_TOO_LARGE: Rule(cause="an answer past the limit", taken=_T.UNREAD, retriable=_R.NO),
    Ending.OVERLOADED: Rule(cause="an answer for which there was no room", taken=_T.UNREAD, retriable=_R.NO),
    Ending.DEADLINE: Rule(cause="the caller's time was over", taken=_T.UNKNOWN, retriable=_R.CALLER),
    Ending.CEILING: Rule(cause="the time that calls may take was over", taken=_T.UNKNOWN, retriable=_R.CALLER),
    Ending.BUS_LOST: Rule(cause="the gateway could not hear the agent", taken=_T.UNKNOWN, retriable=_R.CALLER),
    Ending.STALLED: Rule(cause="signs of life, and a stream that stands", taken=_T.UNKNOWN, retriable=_R.CALLER),
    Ending.BUDGET: Rule(cause="a stream has spent the budget", taken=_T.YES, retriable=_R.NO),
    Ending.GATEWAY_SHUTDOWN: Rule(cause="the gateway was stopped", taken=_T.UNKNOWN, retriable=_R.CALLER),
    Ending.INTERRUPTED: Rule(cause="the replica that had it died", taken=_T.UNKNOWN, retriable=_R.CALLER),
    Ending.DELIVERED_TO_INBOX: Rule(cause="it is in the inbox of an agent that polls", taken=_T.YES, retriable=_R.NO),
    Ending.EXPIRED: Rule(cause="its time was over while it waited", taken=_T.UNSENT, retriable=_R.NO),
    Ending.CANCELLED: Rule(cause="it was called off", taken=_T.UNSENT, retriable=_R.NO),
    Ending.REJECTED: Rule(cause="it waited, and may not be sent any more", taken=_T.NO, retriable=_R.NO),
    Ending.INTERNAL: Rule(cause="a bug of the gateway", taken=_T.UNKNOWN, retriable=_R.CALLER),
}  # fmt: skip
"""Each ending. Told by what has happened, as a type; never by the text of an error."""

REFUSED: Final[Mapping[Code, Again]] = {
    Code.NO_URL: Again.COUNTED,
    Code.UNSAFE_URL: Again.COUNTED,
    Code.PLATFORM_UNAVAILABLE: Again.WAITS,
}
"""What follows when a call that waits is refused at its turn; it is rejected for anything else."""


def endings_of(taken: Taken) -> frozenset[Ending]:
    """Return the endings that say this of the message."""
    return frozenset(ending for ending, rule in RULES.items() if rule.taken is taken)


UNDELIVERED: Final = endings_of(Taken.NO)
"""Those that say that no agent has taken the message: to send it once more is to send it for the first time ..."""
CALLED_OFF: Final = endings_of(Taken.UNSENT)
"""... and those that say so of a call that had not been handed to its agent."""
UNREAD: Final = endings_of(Taken.UNREAD)
"""Those in which the agent has answered and its answer was lost, with what it says of its usage."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Back:
    """It goes back to its place, and is tried again in so many seconds. `counts`: as an attempt that has failed."""

    delay_s: float
    error: str
    busy: bool = False
    counts: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """Seconds: about the first time between two tries, and until a delegation is sent again whose agent was dead.

    jitter: 0..1, by chance, so that not all come back at the same moment.
    """

    first_s: float
    restart_s: float
    jitter: float

    def backoff_s(self, times: int) -> float:
        """Return the seconds until the next try after so many, 1 or more."""
        return backoff_s(self.first_s, times, self.jitter)


def backoff_s(first_s: float, times: int, jitter: float) -> float:
    """Return the seconds until the next try after so many (1 or more), the first of them about `first_s`."""
    return math.ldexp(first_s, min(times - 1, STEEPEST)) * (0.5 + jitter / 2)


def read_retry_after(value: str | None, now: datetime) -> float | None:
    """Return the seconds that a Retry-After header asks for, at most RETRY_AFTER_MOST_S; None where it cannot be read.

    It is whole seconds or an HTTP date (RFC 9110, 10.2.3); a date that has passed is 0. `now` has a time zone.
    """
    if value is None:
        return None
    value = value.strip()
    if value.isascii() and value.isdigit():
        asked_s = float(value)
    else:
        try:
            at = parsedate_to_datetime(value)
        except (ValueError, IndexError, TypeError, OverflowError):
            return None
        asked_s = (at.replace(tzinfo=at.tzinfo or UTC) - now).total_seconds()
    return min(max(0.0, asked_s), RETRY_AFTER_MOST_S)


def is_sent_again(outcome: Outcome) -> bool:
    """Return whether a call goes out once more at once: if no connection was made, though the address is allowed."""
    return outcome == NotConnected()


def decide(ended: Ended, call: Call, *, sessions: bool, pace: Pace) -> Back | Ended:
    """Return what follows from an attempt at a call that waits: only what its agent has not got is ever sent again.

    sessions: the agent keeps sessions of its own, so that no delegation waits for it here.
    """
    error = ended.ending.value
    again = _again(RULES[ended.ending], call)
    if again is Again.WAITS and call.kind is Kind.DELEGATION and sessions:
        return ended
    match again:
        case Again.NEVER | Again.AT_ONCE:
            return ended
        case Again.WAITS:
            delay_s = max(pace.backoff_s(max(1, call.busy)), ended.retry_after_s or 0.0)
            return Back(delay_s=delay_s, error=error, busy=True)
        case Again.COUNTED:
            return _counted(ended, error, call, pace)
        case Again.ONCE:
            return Back(delay_s=pace.restart_s, error=error, counts=True) if call.attempts == 0 else ended
        case never:
            assert_never(never)


def decide_refused(code: Code, call: Call, *, pace: Pace) -> Back | Ended:
    """Return what follows when a call may not be sent now: a delegation that never waited is not tried again for it."""
    rejected = answers.classify(outcomes.Rejected(reason=code.value))
    match REFUSED.get(code):
        case Again.WAITS:
            return wait(code, pace=pace)
        case Again.COUNTED if call.kind is not Kind.DELEGATION or call.busy:
            return _counted(rejected, code.value, call, pace)
        case _:
            return rejected


def wait(code: Code, *, pace: Pace) -> Back:
    """Return that a call waits on, because of something that has to do with others than itself."""
    return Back(delay_s=pace.backoff_s(STEEPEST), error=code.value)


def _again(rule: Rule, call: Call) -> Again:
    """What the gateway does: a delegation that has waited for a busy agent is a call of the queue in all other ways."""
    if call.kind is not Kind.DELEGATION:
        return rule.queued
    return rule.queued if call.busy and rule.delegated in (Again.NEVER, Again.AT_ONCE) else rule.delegated


def _counted(ended: Ended, error: str, call: Call, pace: Pace) -> Back | Ended:
    attempts = call.attempts + 1
    if attempts >= ATTEMPTS:
        return ended
    return Back(delay_s=pace.backoff_s(attempts), error=error, counts=True)
