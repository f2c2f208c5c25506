"""What the gateway itself sends again, and when: the table of causes (core/causes.py), applied to a call."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final, assert_never

from gateway.core import answers, outcomes
from gateway.core.answers import Ended
from gateway.core.backoff import Backoff
from gateway.core.calls import Call, Kind
from gateway.core.causes import ATTEMPTS, RULES, Again, Rule, cause_of
from gateway.core.outcomes import Outcome
from gateway.core.refusals import Code

STEEPEST: Final = 5
"""How often the time between two tries doubles."""
RETRY_AFTER_MOST_S: Final = 60.0
"""What an agent may ask for by Retry-After: who asks for more is tried sooner."""
REFUSED: Final[Mapping[Code, Again]] = {
    Code.NO_URL: Again.COUNTED,
    Code.UNSAFE_URL: Again.COUNTED,
    Code.PLATFORM_UNAVAILABLE: Again.WAITS,
}
"""What follows when a call that waits is refused at its turn; it is rejected for anything else."""


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
    return Backoff(first_s=first_s, growth=2.0, most_s=math.ldexp(first_s, STEEPEST)).after_s(times, jitter)


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
    return RULES[cause_of(outcome)].sent is Again.AT_ONCE


def decide(ended: Ended, call: Call, *, sessions: bool, pace: Pace) -> Back | Ended:
    """Return what follows from an attempt at a call that waits: only what its agent has not got is ever sent again.

    sessions: the agent keeps sessions of its own, so that no delegation waits for it here.
    """
    error = ended.ending.value
    again = _again(RULES[ended.cause], call)
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
