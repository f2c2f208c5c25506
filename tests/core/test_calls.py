"""core.calls: states, the moves between them, and the ends."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls import END_STATES, FINAL, LIVING, MOVES, Call, Kind, State, allowed, may_move
from gateway.core.endings import Ending

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_nothing_leaves_a_final_state_and_every_living_one_can_end() -> None:
    assert not any(may_move(final, to) for final in FINAL for to in State)
    assert all(any(may_move(state, final) for final in FINAL) for state in LIVING)
    assert all(may_move(state, State.CANCELLED) for state in LIVING)
    assert not any(may_move(state, state) for state in State)


def test_only_queued_and_dispatched_go_back_and_forth() -> None:
    both_ways = {(a, b) for a in State for b in State if may_move(a, b) and may_move(b, a)}
    assert both_ways == {(State.QUEUED, State.DISPATCHED), (State.DISPATCHED, State.QUEUED)}


def test_every_state_can_be_reached_from_where_calls_begin() -> None:
    reached = {State.PENDING}
    while more := {to for to in State for source in reached if may_move(source, to)} - reached:
        reached |= more
    assert reached == set(State)


@given(st.lists(st.sampled_from(State), max_size=50))
def test_whatever_is_tried_a_call_ends_once_and_never_comes_back(tries: list[State]) -> None:
    state, walked = State.PENDING, [State.PENDING]
    for to in tries:
        if may_move(state, to):
            state = to
            walked.append(to)
    assert sum(one in FINAL for one in walked) <= 1
    assert not any(one in FINAL for one in walked[:-1])
    without_queue = [one for one in walked if one not in (State.QUEUED, State.DISPATCHED)]
    assert len(without_queue) == len(set(without_queue))


@pytest.mark.parametrize("ending", Ending)
def test_every_ending_has_a_final_state_that_something_may_move_to(ending: Ending) -> None:
    assert END_STATES[ending] in FINAL
    assert MOVES[END_STATES[ending]]


def test_a_move_that_is_not_in_the_table_is_a_bug_and_not_a_query() -> None:
    assert allowed(State.DISPATCHED, {State.QUEUED, State.PARKED}) == ["parked", "queued"]
    with pytest.raises(ValueError, match="no call moves from failed to dispatched"):
        allowed(State.DISPATCHED, {State.PARKED, State.FAILED})


def test_a_call_knows_how_long_it_took_once_it_has_ended() -> None:
    fields = {"kind": Kind.PARKED, "workspace_id": "w", "caller_id": None, "method": "m", "attempts": 1}
    living = Call(id="c", state=State.PARKED, created_at=NOW, expires_at=NOW, **fields)
    ended = Call(
        id="c",
        state=State.COMPLETED,
        ending=Ending.COMPLETED,
        created_at=NOW,
        expires_at=NOW,
        ended_at=NOW + timedelta(seconds=1.5),
        **fields,
    )
    assert (living.ended, living.duration_ms) == (False, 0)
    assert (ended.ended, ended.duration_ms) == (True, 1500)
