"""The ring, against a plain list of all that was ever appended."""

from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.event import EVERYWHERE, Event, gap
from events.frame import ORIGIN, Frame, Position
from events.ring import Lane, Ring

HERE, THERE = "a", "b"
COST = 900


def frame(place: Position, prev: Position, workspace_id: str = HERE, size: int = 2) -> Frame:
    event = Event(type="TASK_UPDATED", workspace_id=workspace_id, payload=b"x" * size, at_ms=0)
    return Frame(place=place, prev=prev, event=gap("x") if workspace_id == EVERYWHERE else event)


def chain(*workspaces: str, ring: Ring) -> list[Frame]:
    """Append one frame for each, in places that follow each other."""
    frames = []
    for workspace_id in workspaces:
        one = frame((ring.newest[0] + 1, 0), ring.newest, workspace_id)
        ring.append(one)
        frames.append(one)
    return frames


def held(lane: Lane) -> list[Frame]:
    return [lane[cursor] for cursor in range(lane.start, lane.end)]


@dataclass
class Model:
    """A ring that keeps its frames in a list."""

    max_frames: int
    max_bytes: int
    frames: list[Frame] = field(default_factory=list)
    floor: Position = ORIGIN
    dropped: int = 0

    def add(self, one: Frame) -> None:
        self.frames.append(one)
        while len(self.frames) > self.max_frames or (self.bytes > self.max_bytes and len(self.frames) > 1):
            gone = self.frames.pop(0)
            self.dropped += 1
            assert gone.place is not None
            self.floor = gone.place

    @property
    def bytes(self) -> int:
        return sum(COST + 2 * len(one.event.payload) for one in self.frames)

    def lane(self, workspace_id: str) -> list[Frame]:
        return [one for one in self.frames if one.event.workspace_id in (workspace_id, EVERYWHERE)]

    def after(self, frames: list[Frame], place: Position) -> list[Frame]:
        """Those of these that come after a place."""
        return [one for one in frames if one.place is not None and one.place > place]


@dataclass(frozen=True)
class Step:
    what: str
    workspace_id: str
    amount: int


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(["append", "append", "append", "gap", "lost", "pin", "unpin"]),
        st.sampled_from([HERE, THERE, "c"]),
        st.integers(0, 2000),
    ),
    max_size=60,
)


@given(steps, st.integers(1, 12), st.integers(1, 12 * COST))
def test_a_ring_holds_what_a_list_would_and_knows_what_it_covers(some, max_frames, max_bytes):
    ring, model = Ring(max_frames=max_frames, max_bytes=max_bytes), Model(max_frames, max_bytes)
    assert not ring.covers(ORIGIN), "nobody knows yet where it begins"
    ring.begin(ORIGIN)
    pinned: dict[str, list[Lane]] = {HERE: [], THERE: [], "c": []}
    said: list[Position] = [ORIGIN]
    for number, step in enumerate(some, 1):
        match step.what:
            case "pin":
                lane = ring.pin(step.workspace_id)
                assert all(lane is other for other in pinned[step.workspace_id]), "cursors into it stay good"
                pinned[step.workspace_id].append(lane)
            case "unpin" if pinned[step.workspace_id]:
                ring.unpin(step.workspace_id)
                pinned[step.workspace_id].pop()
            case "append" | "gap":
                where = EVERYWHERE if step.what == "gap" else step.workspace_id
                one = frame((ring.newest[0] + 1, number), ring.newest, where, step.amount)
                ring.append(one)
                model.add(one)
            case "lost":
                one = frame((ring.newest[0] + 1 + step.amount % 5, number), ring.newest, EVERYWHERE)
                ring.append(one)
                model.add(one)
        said.append(ring.newest)
        assert held(ring.everything) == model.frames
        assert (ring.bytes, ring.floor, len(ring)) == (model.bytes, model.floor, len(model.frames))
        assert ring.everything.start == model.dropped
        good = {model.floor} | {one.place for one in model.frames if one.place}
        for place in [*said, (number, 7**9)]:
            assert ring.covers(place) == (place in good)
        for workspace_id, lanes in pinned.items():
            if lanes:
                lane = lanes[-1]
                assert held(lane) == model.lane(workspace_id)
                for place in good:
                    expected = model.after(model.lane(workspace_id), place)
                    assert [lane[cursor] for cursor in range(lane.after(place), lane.end)] == expected
        for place in good:
            expected = model.after(model.frames, place)
            assert [ring.everything[at] for at in range(ring.everything.after(place), ring.everything.end)] == expected
    for workspace_id, lanes in pinned.items():
        for _ in lanes:
            ring.unpin(workspace_id)
    for workspace_id, lane in ring._lanes.items():
        assert held(lane) == model.lane(workspace_id) != [], "an empty lane that nobody reads is gone"


@given(st.lists(st.booleans(), max_size=300))
def test_the_number_of_a_frame_never_changes(some):
    """True appends, False drops the oldest; the lane lets go of memory behind them in its own time."""
    lane, model = Lane(), {}
    for number, appends in enumerate(some, 1):
        if appends:
            model[lane.end] = frame((number, 0), ORIGIN)
            lane.append(model[lane.end])
        elif model:
            del model[lane.start]
            lane.drop_oldest()
        assert {cursor: lane[cursor] for cursor in range(lane.start, lane.end)} == model
        assert len(lane) == len(model)


def test_a_lane_lets_go_of_the_memory_of_what_it_dropped():
    lane = Lane()
    for number in range(1, 10_000):
        lane.append(frame((number, 0), (number - 1, 0)))
        if len(lane) > 10:
            lane.drop_oldest()
    assert len(lane._frames) < 100


def test_a_ring_begins_where_the_journal_does():
    ring = Ring(max_frames=10, max_bytes=10**6)
    ring.begin((7, 3))
    assert ring.covers((7, 3))
    assert not ring.covers(ORIGIN)
    chain(HERE, ring=ring)
    assert ring.covers((7, 3))
    with pytest.raises(AssertionError, match="empty"):
        ring.begin((9, 0))


def test_nothing_can_be_between_the_oldest_frame_and_the_place_just_before_it():
    ring = Ring(max_frames=10, max_bytes=10**6)
    ring.append(frame((7, 3), ORIGIN))
    assert ring.covers((7, 2))
    assert not ring.covers((7, 1))
    ring = Ring(max_frames=10, max_bytes=10**6)
    ring.append(frame((7, 0), ORIGIN))
    assert ring.covers((6, 2**64 - 1))


def test_a_frame_that_does_not_follow_is_not_taken():
    ring = Ring(max_frames=10, max_bytes=10**6)
    chain(HERE, ring=ring)
    with pytest.raises(AssertionError, match="holes"):
        ring.append(frame((9, 0), (8, 0)))


def test_a_frame_larger_than_the_ring_is_held_until_the_next():
    ring = Ring(max_frames=10, max_bytes=COST)
    ring.append(frame((1, 0), ORIGIN, size=5000))
    assert (len(ring), ring.floor) == (1, ORIGIN)
    chain(HERE, ring=ring)
    assert (len(ring), ring.floor) == (1, (1, 0))


def test_a_lane_that_is_opened_later_has_every_gap_that_is_held_and_finds_each():
    ring = Ring(max_frames=10, max_bytes=10**6)
    first, _, second = chain(EVERYWHERE, THERE, EVERYWHERE, ring=ring)
    lane = ring.pin(HERE)
    assert held(lane) == [first, second]
    assert lane[lane.after(ORIGIN)] is first


def test_it_says_how_much_it_holds():
    ring = Ring(max_frames=10, max_bytes=10**6)
    chain(HERE, HERE, THERE, ring=ring)
    assert repr(ring) == f"<Ring frames=3 bytes={3 * (COST + 4)} lanes=2>"
