"""core.journey: what is stored of a call's way is read back as it was."""

from datetime import UTC, datetime, timedelta

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.calls import END_STATES, Kind, State, may_move, pushed
from gateway.core.endings import Ending
from gateway.core.journey import Arrival, Journey, Sign

BEGAN = datetime(2026, 11, 21, tzinfo=UTC)
counts = st.integers(0, 2**53)
journeys = st.builds(
    Journey,
    replica=st.text(),
    idle_s=st.floats(0, 1e9),
    limit_s=st.none() | st.floats(0, 1e9),
    by_deadline=st.booleans(),
    sent_bytes=counts,
    attempts=counts,
    received_bytes=st.none() | counts,
    first_byte_ms=st.none() | counts,
    reset_by=st.none() | st.sampled_from(Sign),
    reset_ms=st.none() | counts,
    status=st.none() | st.integers(100, 599),
)


@given(arrival=st.builds(Arrival, ending=st.sampled_from(Ending), duration_ms=counts, journey=journeys))
def test_what_is_stored_is_read_back_as_it_was(arrival: Arrival):
    assert Arrival.from_json(orjson.loads(orjson.dumps(arrival))) == arrival


@given(journey=journeys)
def test_a_call_under_way_has_no_end_and_lasts_as_long_as_its_limit(journey: Journey):
    call = pushed(
        call_id="c", workspace_id="t", caller_id=None, method="m", created_at=BEGAN, journey=journey, arrival=None
    )
    assert (call.kind, call.state, call.ended, call.ending) == (Kind.PUSH, State.DISPATCHED, False, None)
    assert (call.expires_at is None) == (journey.limit_s is None)


@pytest.mark.parametrize("ending", sorted(set(Ending) - {Ending.EXPIRED}))
def test_however_it_ends_that_is_a_move_of_the_table(ending: Ending):
    journey = Journey(replica="r", idle_s=1.0, limit_s=2.0, by_deadline=False, sent_bytes=3)
    arrival = Arrival(ending=ending, duration_ms=1500, journey=journey)
    call = pushed(
        call_id="c", workspace_id="t", caller_id=None, method="m", created_at=BEGAN, journey=journey, arrival=arrival
    )
    assert call.state is END_STATES[ending]
    assert may_move(State.DISPATCHED, call.state)
    assert (call.ended_at, call.duration_ms) == (BEGAN + timedelta(seconds=1.5), 1500)
    assert call.expires_at == BEGAN + timedelta(seconds=2)
