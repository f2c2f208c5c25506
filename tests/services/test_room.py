"""services.room: what fits, what does not, and that all of it comes back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ports import NoRoom
from gateway.services.room import Room


def test_requests_may_fill_half_of_the_room_and_answers_the_rest():
    room = Room(100)
    request, answer = room.hold(), room.hold()
    request.grow_by_request(50)
    with pytest.raises(NoRoom):
        request.grow_by_request(1)
    answer.grow(50)
    with pytest.raises(NoRoom):
        answer.grow(1)
    assert (room.held, room.refused) == (100, 2)
    request.release()
    assert room.held == 50
    answer.grow(50)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["grow", "grow_by_request", "release"]), st.integers(0, 60)))
)
def test_never_more_than_fits_and_nothing_once_all_are_released(acts: list[tuple[int, str, int]]):
    room = Room(100)
    holds = [room.hold() for _ in range(4)]
    for which, act, count in acts:
        if act == "release":
            holds[which].release()
            continue
        try:
            getattr(holds[which], act)(count)
        except NoRoom:
            assert room.held + count > 50
        assert 0 <= room.held <= 100
    for hold in [*holds, *holds]:
        hold.release()
    assert room.held == 0


def test_what_comes_after_the_release_is_held_by_nobody():
    room = Room(100)
    hold = room.hold()
    hold.grow_by_request(10)
    hold.release()
    hold.grow(10)
    hold.release()
    assert room.held == 0
