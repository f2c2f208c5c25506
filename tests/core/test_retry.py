"""core.retry: nothing is sent twice that may have arrived, and what is sent again waits for its time."""

from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.answers import Ended, classify
from gateway.core.calls import Call, Kind, State, may_move
from gateway.core.causes import ATTEMPTS
from gateway.core.endings import Ending
from gateway.core.outcomes import (
    Answered,
    Broke,
    Cancelled,
    Dead,
    Lapsed,
    NotConnected,
    Orphaned,
    Outcome,
    Stopped,
)
from gateway.core.refusals import Code
from gateway.core.retry import (
    RETRY_AFTER_MOST_S,
    Back,
    Pace,
    backoff_s,
    decide,
    decide_refused,
    is_sent_again,
    read_retry_after,
    wait,
)
from tests.harness.outcomes import OUTCOMES

NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
ME, YOU = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
PACE = Pace(first_s=1.0, restart_s=8.0, jitter=1.0)
BUSY = Answered(status=429, headers={}, body=b"")
KINDS = st.sampled_from([Kind.QUEUED, Kind.DELEGATION])


def call(**fields: Any) -> Call:
    return Call(
        **{
            "id": ME, "kind": Kind.QUEUED, "state": State.DISPATCHED, "workspace_id": YOU, "caller_id": ME,
            "method": "message/send", "attempts": 0, "created_at": NOW, "expires_at": NOW, **fields,
        }
    )  # fmt: skip


def follows(outcome: Outcome, *, sessions: bool = False, **fields: Any) -> Back | Ended:
    return decide(classify(outcome, native_session=sessions), call(**fields), sessions=sessions, pace=PACE)


# -- what the gateway does


@given(OUTCOMES, KINDS, st.integers(0, 9), st.integers(0, 9), st.booleans(), st.floats(0, 1))
def test_nothing_that_its_agent_may_have_got_is_ever_sent_again(
    outcome: Outcome, kind: Kind, attempts: int, busy: int, sessions: bool, jitter: float
) -> None:
    ended = classify(outcome, native_session=sessions)
    one = call(kind=kind, attempts=attempts, busy=busy)
    then = decide(ended, one, sessions=sessions, pace=Pace(first_s=1.0, restart_s=8.0, jitter=jitter))
    if isinstance(then, Ended):
        assert then is ended
        return
    assert isinstance(outcome, NotConnected | Dead) or then.busy, "no connection, or the agent's own word"
    assert ended.delivered is False
    assert 0 < then.delay_s <= max(RETRY_AFTER_MOST_S, 32)
    assert then.delay_s >= (ended.retry_after_s or 0)
    assert then.busy != then.counts


@given(st.sampled_from([Stopped(), Cancelled(), Cancelled(under_way=True), Lapsed(), Orphaned(), Broke()]), KINDS)
def test_what_was_called_off_or_stopped_is_never_sent_again(outcome: Outcome, kind: Kind) -> None:
    assert not is_sent_again(outcome)
    for attempts in range(ATTEMPTS):
        assert isinstance(follows(outcome, kind=kind, attempts=attempts, busy=attempts), Ended)


@given(st.lists(OUTCOMES, min_size=1), KINDS, st.booleans())
def test_a_call_ends_after_so_many_tries_unless_its_agent_is_busy(
    outcomes: list[Outcome], kind: Kind, sessions: bool
) -> None:
    one, counted = call(kind=kind), 0
    for outcome in outcomes:
        then = follows(outcome, kind=kind, sessions=sessions, attempts=one.attempts, busy=one.busy)
        if isinstance(then, Ended):
            return
        assert may_move(State.DISPATCHED, State.QUEUED)
        counted += then.counts
        one = call(kind=kind, attempts=one.attempts + then.counts, busy=one.busy + then.busy)
    assert counted < ATTEMPTS


def test_what_is_busy_goes_back_however_often_and_comes_ever_later() -> None:
    delays = [follows(BUSY, busy=times, attempts=4) for times in (1, 2, 3, 100)]
    assert delays == [Back(delay_s=delay_s, error="agent_busy", busy=True) for delay_s in (1, 2, 4, 32)]


@pytest.mark.parametrize(("asked_s", "delay_s"), [(None, 1.0), (0.0, 1.0), (7.0, 7.0), (60.0, 60.0)])
def test_a_busy_agent_is_left_alone_for_as_long_as_it_asks(asked_s: float | None, delay_s: float) -> None:
    busy = Answered(status=503, headers={"Retry-After": "x"}, body=b"", retry_after_s=asked_s)
    assert follows(busy, busy=1) == Back(delay_s=delay_s, error="agent_busy", busy=True)


def test_what_was_not_sent_is_tried_again_and_then_has_failed() -> None:
    for attempts in range(ATTEMPTS - 1):
        then = follows(NotConnected(), attempts=attempts)
        assert then == Back(delay_s=2**attempts, error="agent_unreachable", counts=True)
    assert follows(NotConnected(), attempts=ATTEMPTS - 1) == classify(NotConnected())


def test_a_delegation_goes_again_if_its_agent_was_dead_and_once() -> None:
    again = follows(Dead(), kind=Kind.DELEGATION)
    assert again == Back(delay_s=8.0, error="agent_restarting", counts=True)
    assert follows(Dead(), kind=Kind.DELEGATION, busy=1) == again
    assert follows(Dead(), kind=Kind.DELEGATION, attempts=1) == classify(Dead())
    assert follows(Dead()) == classify(Dead())
    assert follows(NotConnected(), kind=Kind.DELEGATION) == classify(NotConnected())


def test_a_delegation_waits_for_a_busy_agent_unless_that_keeps_sessions() -> None:
    assert follows(BUSY, kind=Kind.DELEGATION) == Back(delay_s=1.0, error="agent_busy", busy=True)
    ended = follows(BUSY, kind=Kind.DELEGATION, sessions=True)
    assert isinstance(ended, Ended)
    assert ended.ending is Ending.AGENT_BUSY


def test_a_delegation_that_has_waited_for_a_busy_agent_is_a_call_of_the_queue() -> None:
    assert isinstance(follows(NotConnected(), kind=Kind.DELEGATION, busy=1), Back)
    assert follows(NotConnected(), kind=Kind.DELEGATION, busy=1, attempts=4) == classify(NotConnected())


# -- refused at its turn


@pytest.mark.parametrize("kind", [Kind.QUEUED, Kind.DELEGATION])
@pytest.mark.parametrize("code", [Code.REMOVED, Code.NOT_FOUND, Code.CANNOT_COMMUNICATE, Code.BUDGET_EXCEEDED])
def test_what_may_not_be_sent_any_more_ends(code: Code, kind: Kind) -> None:
    then = decide_refused(code, call(kind=kind), pace=PACE)
    assert isinstance(then, Ended)
    assert (then.ending, orjson.loads(then.answer.body)["reason"]) == (Ending.REJECTED, code.value)


@pytest.mark.parametrize("code", [Code.NO_URL, Code.UNSAFE_URL])
def test_what_cannot_be_sent_just_now_is_tried_again_if_it_waits(code: Code) -> None:
    assert decide_refused(code, call(attempts=1), pace=PACE) == Back(delay_s=2, error=code.value, counts=True)
    assert isinstance(decide_refused(code, call(attempts=ATTEMPTS - 1), pace=PACE), Ended)
    assert isinstance(decide_refused(code, call(kind=Kind.DELEGATION), pace=PACE), Ended)
    assert isinstance(decide_refused(code, call(kind=Kind.DELEGATION, busy=1), pace=PACE), Back)


@pytest.mark.parametrize("kind", [Kind.QUEUED, Kind.DELEGATION])
def test_what_has_to_do_with_others_is_waited_out_and_does_not_count(kind: Kind) -> None:
    then = decide_refused(Code.PLATFORM_UNAVAILABLE, call(kind=kind, attempts=9), pace=PACE)
    assert then == wait(Code.PLATFORM_UNAVAILABLE, pace=PACE) == Back(delay_s=16, error="platform_unavailable")


# -- when


def test_the_time_between_two_tries_is_somewhere_in_its_upper_half() -> None:
    assert [backoff_s(2.0, 3, jitter) for jitter in (0.0, 0.5, 1.0)] == [4.0, 6.0, 8.0]


@pytest.mark.parametrize(
    ("value", "asked_s"),
    [
        (None, None), ("", None), ("soon", None), ("-1", None), ("1.5", None), ("1e3", None), ("\u0663", None),
        ("0", 0.0), ("7", 7.0), (" 7 ", 7.0), ("60", 60.0), ("61", 60.0), ("9" * 400, 60.0),
        ("Sat, 21 Nov 2026 12:00:09 GMT", 9.0), ("Sat, 21 Nov 2026 12:00:09 -0000", 9.0),
        ("Saturday, 21-Nov-26 12:00:09 GMT", 9.0), ("Sat Nov 21 12:00:09 2026", 9.0),
        ("Sat, 21 Nov 2026 14:00:09 +0200", 9.0), ("Sat, 21 Nov 2026 11:00:00 GMT", 0.0),
        ("Sun, 21 Nov 2027 12:00:00 GMT", 60.0), ("Sat, 99 Nov 2026 12:00:09 GMT", None),
        ("Sat, 21 Nov 99999 12:00:09 GMT", None), ("Sat, 31 Dec 9999 23:59:59 -2359", 60.0),
    ],
)  # fmt: skip
def test_retry_after_is_seconds_or_a_date_and_a_minute_at_most(value: str | None, asked_s: float | None) -> None:
    assert read_retry_after(value, NOW) == asked_s


@given(st.text(max_size=60))
def test_whatever_an_agent_says_it_is_at_most_a_minute(value: str) -> None:
    asked_s = read_retry_after(value, NOW)
    assert asked_s is None or 0 <= asked_s <= RETRY_AFTER_MOST_S


@given(st.integers(-(10**6), 10**6))
def test_a_date_is_the_seconds_until_then(ahead_s: int) -> None:
    at = format_datetime(NOW + timedelta(seconds=ahead_s), usegmt=True)
    assert read_retry_after(at, NOW) == min(max(0, ahead_s), RETRY_AFTER_MOST_S)
