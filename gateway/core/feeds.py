"""Where the subscription to an agent's events stands, and what follows from how a connection ended."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from hashlib import blake2b
from http import HTTPStatus
from typing import Final, assert_never

from gateway.core.backoff import Backoff
from gateway.core.causes import RULES, Anew, cause_of
from gateway.core.outcomes import Answered, Clock, Cut, Expired, NotConnected, Reset, Streamed
from gateway.core.retry import RETRY_AFTER_MOST_S

BACKOFF: Final = Backoff(first_s=1.0, growth=1.5, most_s=30.0)
"""The waits after failures."""
AT_ONCE: Final = 3
"""Connections that ended in good order are made anew at once so often in a row; then the pace holds."""


class State(StrEnum):
    """The database's CHECK holds the same words (a test compares them)."""

    CONNECTING = "connecting"
    LIVE = "live"
    BACKOFF = "backoff"
    GAVE_UP = "gave_up"
    STOPPED = "stopped"


S = State
MOVES: Final[Mapping[State, frozenset[State]]] = {
    S.CONNECTING: frozenset({S.BACKOFF, S.STOPPED, S.GAVE_UP}),
    S.LIVE: frozenset({S.CONNECTING}),
    S.BACKOFF: frozenset({S.CONNECTING, S.LIVE}),
    S.GAVE_UP: frozenset({S.CONNECTING}),
    S.STOPPED: frozenset({S.CONNECTING, S.LIVE, S.BACKOFF}),
}
"""To each state, the states it may be entered from; the one it is in may always be entered again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Feed:
    """What people see of a workspace's feed. `reason`: why it is not live; `events`: how many were told on."""

    state: State = State.STOPPED
    reason: str | None = None
    since: datetime | None = None
    events: int = 0


# -- how a connection ended


How = Answered | Streamed | NotConnected | Reset | Cut | Expired
"""`Answered`: with something else than an event stream; `Streamed`: ended by the agent in good order."""


def reason_of(how: How) -> str:
    """Return what people are told of an end."""
    match how:
        case Streamed():
            return "closed"
        case NotConnected(unsafe=unsafe):
            return "unsafe_url" if unsafe else "unreachable"
        case Answered(status=HTTPStatus.OK):
            return "no_event_stream"
        case Answered(status=status):
            return f"http_{status}"
        case Expired(clock=clock):
            return "no_answer" if clock is Clock.FIRST_BYTE else "silent"
        case Reset() | Cut():
            return "reset"
        case never:
            assert_never(never)


# -- what comes next


@dataclass(frozen=True, kw_only=True, slots=True)
class Rules:
    """healthy_s: a connection that has lasted so long, or has brought an event, wipes out the failures before it.

    pace_s: connections that end in good order are made anew once in so many seconds, but for AT_ONCE of them.
    """

    healthy_s: float
    pace_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where a subscription stands. `wait_s`: for how long nothing is tried.

    `failures`: those in a row. `paid_until`: up to when connections are used up, on the clock of who asks.
    """

    state: State = State.CONNECTING
    reason: str | None = None
    failures: int = 0
    paid_until: float = 0.0
    wait_s: float = 0.0


def connecting(standing: Standing) -> Standing:
    """Return it as a connection is tried; why the last one failed stays known until one is there."""
    return _move(standing, State.CONNECTING, standing.reason)


def live(standing: Standing) -> Standing:
    """Return it with a connection."""
    return _move(standing, State.LIVE, None)


def stopped(standing: Standing, reason: str | None) -> Standing:
    """Return it without anybody who listens; one that was given up stays so."""
    return standing if standing.state is State.GAVE_UP else _move(standing, State.STOPPED, reason)


def gave_up(standing: Standing, reason: str) -> Standing:
    """Return it given up."""
    return _move(standing, State.GAVE_UP, reason)


def ended(standing: Standing, how: How, *, now: float, healthy: bool, spread: float, rules: Rules) -> Standing:
    """Return it after a connection, or the attempt at one. spread: 0 to 1, so that not all come back at once.

    Seconds; `now` is on any clock that does not go back.
    """
    reason = reason_of(how)
    if healthy:
        standing = replace(standing, failures=0)
    asked_s = (how.retry_after_s or 0.0) if isinstance(how, Answered | Streamed) else 0.0
    match RULES[cause_of(how)].feed:
        case Anew.PACED:
            paid_until = max(standing.paid_until, now) + rules.pace_s
            wait_s = max(paid_until - now - AT_ONCE * rules.pace_s, min(asked_s, BACKOFF.most_s), 0.0)
            return _move(replace(standing, failures=0, paid_until=paid_until), State.BACKOFF, reason, wait_s)
        case Anew.LATER:
            failures = standing.failures + 1
            wait_s = max(BACKOFF.after_s(failures, spread), min(asked_s, RETRY_AFTER_MOST_S))
            return _move(replace(standing, failures=failures), State.BACKOFF, reason, wait_s)
        case Anew.GIVEN_UP:
            return gave_up(standing, reason)
        case Anew.NEVER:
            raise ValueError(f"no connection to a feed ends so: {how}")
        case never:
            assert_never(never)


def _move(standing: Standing, to: State, reason: str | None, wait_s: float = 0.0) -> Standing:
    if to is not standing.state and standing.state not in MOVES[to]:
        raise ValueError(f"a feed that is {standing.state.value} cannot become {to.value}")
    return replace(standing, state=to, reason=reason, wait_s=wait_s)


SHORT_CHARS: Final = 64
HASH_BYTES: Final = 16


class Recent:
    """The ids that came last, so that what a server sends again is known: `capacity` at most, long ones by a hash."""

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._ids: dict[str | bytes, None] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def is_new(self, id_: str) -> bool:
        """Return whether this id has not come lately, and remember it."""
        key = id_ if len(id_) <= SHORT_CHARS else blake2b(id_.encode(errors="replace"), digest_size=HASH_BYTES).digest()
        if key in self._ids:
            return False
        self._ids[key] = None
        if len(self._ids) > self._capacity:
            del self._ids[next(iter(self._ids))]
        return True
