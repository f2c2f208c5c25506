"""Where a feed stands: only moves of the table, waits within their bounds, and nothing that is given up is tried."""

from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import feeds
from gateway.core.feeds import (
    BACKOFF_MOST_S,
    FINAL,
    MOVES,
    Closed,
    Cut,
    How,
    NoStream,
    NotConnected,
    Recent,
    Refused,
    Rules,
    Silent,
    Standing,
    State,
    Unanswered,
)
from gateway.core.retry import RETRY_AFTER_MOST_S

RULES: Final = Rules(healthy_s=10.0, pace_s=1.0)
ASKED: Final = st.one_of(st.none(), st.floats(0, 1e6))
HOWS: Final[st.SearchStrategy[How]] = st.one_of(
    st.builds(Closed, retry_s=ASKED),
    st.builds(NotConnected, unsafe=st.booleans()),
    st.builds(Unanswered),
    st.builds(Refused, status=st.integers(201, 599), retry_s=ASKED),
    st.builds(NoStream),
    st.builds(Silent),
    st.builds(Cut),
)
LIVES: Final = st.tuples(HOWS, st.floats(0, 100), st.booleans(), st.floats(0, 1))
NOW: Final = datetime(2026, 5, 1, tzinfo=UTC)


def after(standing: Standing, how: How, *, now: float = 0.0, healthy: bool = False, spread: float = 1.0) -> Standing:
    return feeds.ended(standing, how, now=now, healthy=healthy, spread=spread, rules=RULES)


@given(st.lists(LIVES, max_size=40))
def test_whatever_happens_it_moves_by_the_table_and_waits_within_bounds(lives):
    standing, now = Standing(), 0.0
    for how, took_s, lasted, spread in lives:
        healthy = lasted and isinstance(how, Closed | Silent | Cut)
        before = standing.state
        standing = feeds.connecting(standing)
        assert standing.state is before or before in MOVES[standing.state]
        if healthy:
            standing = feeds.live(standing)
        now += took_s
        standing = after(standing, how, now=now, healthy=healthy, spread=spread)
        assert standing.reason == feeds.reason_of(how)
        final = (isinstance(how, Refused) and how.status in FINAL) or how == NotConnected(unsafe=True)
        assert (standing.state is State.GAVE_UP) == final
        assert feeds.stopped(standing, "over").state is (State.GAVE_UP if final else State.STOPPED)
        if final:
            return
        assert standing.state is State.BACKOFF
        assert 0 <= standing.wait_s <= max(BACKOFF_MOST_S, RETRY_AFTER_MOST_S)
        if not isinstance(how, Closed):
            assert standing.wait_s >= 0.5
        if healthy or isinstance(how, Closed):
            assert standing.failures <= 1
        now += standing.wait_s


@pytest.mark.parametrize("to", State)
@pytest.mark.parametrize("source", State)
def test_no_move_that_is_not_in_the_table(source: State, to: State):
    standing = Standing(state=source)
    moves = {
        State.CONNECTING: lambda: feeds.connecting(standing),
        State.LIVE: lambda: feeds.live(standing),
        State.BACKOFF: lambda: after(standing, Cut()),
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


def test_waits_grow_from_one_second_by_half_to_thirty():
    assert [feeds.backoff_s(number, 1.0) for number in range(4)] == [1.0, 1.5, 2.25, 3.375]
    assert [feeds.backoff_s(number, 1.0) for number in (8, 9, 50, 10**6)] == [
        pytest.approx(25.63, abs=0.01),
        30,
        30,
        30,
    ]
    assert feeds.backoff_s(0, 0.0) == 0.5


def test_health_wipes_out_the_failures_before_it():
    standing = Standing()
    for _ in range(5):
        standing = feeds.connecting(after(standing, Cut()))
    assert standing.failures == 5
    assert after(feeds.live(standing), Cut(), healthy=True).wait_s == 1.0


def test_clean_ends_are_followed_at_once_until_there_are_too_many():
    standing, waits = Standing(), []
    for _ in range(6):
        standing = after(feeds.live(feeds.connecting(standing)), Closed())
        waits.append(standing.wait_s)
    assert waits == [0, 0, 0, 1, 2, 3]  # nothing but the waiting takes time here
    standing, now, started = Standing(), 0.0, []
    for _ in range(100):
        started.append(now)
        standing = after(feeds.live(feeds.connecting(standing)), Closed(), now=now)
        now += standing.wait_s
    assert started[-1] == pytest.approx(96.0)
    assert after(feeds.live(feeds.connecting(standing)), Closed(), now=now + 1000).wait_s == 0


def test_an_agent_may_ask_to_be_left_alone_but_not_for_ever():
    live = feeds.live(Standing())
    assert after(live, Closed(retry_s=5.0)).wait_s == 5.0
    assert after(live, Closed(retry_s=5000.0)).wait_s == BACKOFF_MOST_S
    assert after(live, Refused(status=503, retry_s=20.0)).wait_s == 20.0
    assert after(live, Refused(status=503, retry_s=5000.0)).wait_s == RETRY_AFTER_MOST_S
    assert after(live, Refused(status=503, retry_s=0.0)).wait_s == 1.0


def test_ids_are_remembered_as_far_as_there_is_room():
    recent = Recent(capacity=2)
    assert [recent.is_new(one) for one in ("a", "a", "b", "a", "c", "b", "a")] == [
        True, False, True, False, True, False, True,
    ]  # fmt: skip
    assert len(recent) == 2
