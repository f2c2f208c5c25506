"""Where a feed stands: only moves of the table, waits within their bounds, and nothing that is given up is tried."""

from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import feeds
from gateway.core.causes import RULES as CAUSES
from gateway.core.causes import Anew, cause_of
from gateway.core.feeds import BACKOFF, MOVES, How, Recent, Rules, Standing, State
from gateway.core.outcomes import Answered, Clock, Cut, Expired, NotConnected, Reset, Streamed
from gateway.core.retry import RETRY_AFTER_MOST_S

RULES: Final = Rules(healthy_s=10.0, pace_s=1.0)
ASKED: Final = st.one_of(st.none(), st.floats(0, 1e6))
HOWS: Final[st.SearchStrategy[How]] = st.one_of(
    st.builds(Streamed, status=st.just(200), headers=st.just({}), retry_after_s=ASKED),
    st.builds(NotConnected, unsafe=st.booleans()),
    st.builds(Answered, status=st.integers(200, 599), headers=st.just({}), body=st.just(b""), retry_after_s=ASKED),
    st.builds(Expired, clock=st.sampled_from([Clock.FIRST_BYTE, Clock.IDLE])),
    st.builds(Reset),
    st.builds(Cut, status=st.just(200)),
)
CUT: Final = Cut(status=200)
LIVES: Final = st.tuples(HOWS, st.floats(0, 100), st.booleans(), st.floats(0, 1))
NOW: Final = datetime(2026, 5, 1, tzinfo=UTC)


def closed(retry_s: float | None = None) -> Streamed:
    return Streamed(status=200, headers={}, retry_after_s=retry_s)


def refused(status: int, retry_s: float | None = None) -> Answered:
    return Answered(status=status, headers={}, body=b"", retry_after_s=retry_s)


def after(standing: Standing, how: How, *, now: float = 0.0, healthy: bool = False, spread: float = 1.0) -> Standing:
    return feeds.ended(standing, how, now=now, healthy=healthy, spread=spread, rules=RULES)


@given(st.lists(LIVES, max_size=40))
def test_whatever_happens_it_moves_by_the_table_and_waits_within_bounds(lives):
    standing, now = Standing(), 0.0
    for how, took_s, lasted, spread in lives:
        healthy = lasted and (isinstance(how, Streamed | Cut) or how == Expired(clock=Clock.IDLE))
        before = standing.state
        standing = feeds.connecting(standing)
        assert standing.state is before or before in MOVES[standing.state]
        if healthy:
            standing = feeds.live(standing)
        now += took_s
        standing = after(standing, how, now=now, healthy=healthy, spread=spread)
        assert standing.reason == feeds.reason_of(how)
        final = CAUSES[cause_of(how)].feed is Anew.GIVEN_UP
        assert (standing.state is State.GAVE_UP) == final
        assert feeds.stopped(standing, "over").state is (State.GAVE_UP if final else State.STOPPED)
        if final:
            return
        assert standing.state is State.BACKOFF
        assert 0 <= standing.wait_s <= max(BACKOFF.most_s, RETRY_AFTER_MOST_S)
        if not isinstance(how, Streamed):
            assert standing.wait_s >= 0.5
        if healthy or isinstance(how, Streamed):
            assert standing.failures <= 1
        now += standing.wait_s


@pytest.mark.parametrize("to", State)
@pytest.mark.parametrize("source", State)
def test_no_move_that_is_not_in_the_table(source: State, to: State):
    standing = Standing(state=source)
    moves = {
        State.CONNECTING: lambda: feeds.connecting(standing),
        State.LIVE: lambda: feeds.live(standing),
        State.BACKOFF: lambda: after(standing, CUT),
        State.GAVE_UP: lambda: feeds.gave_up(standing, "http_404"),
        State.STOPPED: lambda: feeds.stopped(standing, None),
    }
    if source is to or source in MOVES[to]:
        assert moves[to]().state is to
    elif (source, to) == (State.GAVE_UP, State.STOPPED):
        assert moves[to]() == standing
    else:
        with pytest.raises(ValueError, match=f"{source.value} cannot become {to.value}"):
            moves[to]()


def test_what_is_given_up_is_what_another_try_cannot_change():
    statuses = {one for one in range(200, 600) if after(Standing(), refused(one)).state is State.GAVE_UP}
    assert statuses == {204, 401, 403, 404, 410}
    assert after(Standing(), NotConnected(unsafe=True)).state is State.GAVE_UP


def test_a_call_that_runs_out_of_its_time_is_no_end_of_a_feed():
    with pytest.raises(ValueError, match="no connection to a feed ends so"):
        after(Standing(), Expired(clock=Clock.DEADLINE))


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        (closed(), "closed"),
        (NotConnected(), "unreachable"),
        (NotConnected(unsafe=True), "unsafe_url"),
        (Expired(clock=Clock.FIRST_BYTE), "no_answer"),
        (Expired(clock=Clock.IDLE), "silent"),
        (refused(200), "no_event_stream"),
        (refused(201), "http_201"),
        (refused(503, 7.0), "http_503"),
        (Reset(), "reset"),
        (CUT, "reset"),
    ],
)
def test_people_are_told_why(how: How, reason: str):
    assert feeds.reason_of(how) == reason


def test_waits_grow_from_one_second_by_half_to_thirty():
    standing, waits = Standing(), []
    for _ in range(12):
        standing = after(feeds.connecting(standing), CUT)
        waits.append(standing.wait_s)
    assert waits[:4] == [1.0, 1.5, 2.25, 3.375]
    assert waits[8:] == [pytest.approx(25.63, abs=0.01), 30, 30, 30]
    assert after(Standing(), CUT, spread=0.0).wait_s == 0.5


def test_health_wipes_out_the_failures_before_it():
    standing = Standing()
    for _ in range(5):
        standing = feeds.connecting(after(standing, CUT))
    assert standing.failures == 5
    assert after(feeds.live(standing), CUT, healthy=True).wait_s == 1.0


def test_clean_ends_are_followed_at_once_until_there_are_too_many():
    standing, waits = Standing(), []
    for _ in range(6):
        standing = after(feeds.live(feeds.connecting(standing)), closed())
        waits.append(standing.wait_s)
    assert waits == [0, 0, 0, 1, 2, 3]  # nothing but the waiting takes time here
    standing, now, started = Standing(), 0.0, []
    for _ in range(100):
        started.append(now)
        standing = after(feeds.live(feeds.connecting(standing)), closed(), now=now)
        now += standing.wait_s
    assert started[-1] == pytest.approx(96.0)
    assert after(feeds.live(feeds.connecting(standing)), closed(), now=now + 1000).wait_s == 0


def test_an_agent_may_ask_to_be_left_alone_but_not_for_ever():
    live = feeds.live(Standing())
    assert after(live, closed(5.0)).wait_s == 5.0
    assert after(live, closed(5000.0)).wait_s == BACKOFF.most_s
    assert after(live, refused(503, 20.0)).wait_s == 20.0
    assert after(live, refused(503, 5000.0)).wait_s == RETRY_AFTER_MOST_S
    assert after(live, refused(503, 0.0)).wait_s == 1.0


def test_ids_are_remembered_as_far_as_there_is_room():
    recent = Recent(capacity=2)
    assert [recent.is_new(one) for one in ("a", "a", "b", "a", "c", "b", "a")] == [
        True, False, True, False, True, False, True,
    ]  # fmt: skip
    assert len(recent) == 2


def test_long_ids_are_told_apart_and_not_kept():
    recent = Recent(capacity=100)
    long = ["x" * 10_000 + str(number) for number in range(3)] + ["\ud800" * 100]
    assert all(recent.is_new(one) for one in long)
    assert not any(recent.is_new(one) for one in long)
    assert sum(map(len, recent._ids)) < 100
