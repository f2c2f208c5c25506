from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.event import CATALOGUE, changed, event
from events.frame import Frame
from events.hub import Hub

HERE, THERE = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"


def frame(workspace_id: str = HERE, *, type_: str = "TASK_UPDATED", sign: bool = False, number: int = 1) -> Frame:
    id_ = f"{number}-0" if CATALOGUE[type_].journal else None
    return Frame(id=id_, prev=f"{number - 1}-0", event=event(type_, workspace_id, {}, sign=sign))


class Reader:
    def __init__(self) -> None:
        self.heard: list[Frame] = []
        self.losses: list[str] = []

    def deliver(self, frame: Frame) -> None:
        self.heard.append(frame)

    def resync(self, reason: str) -> None:
        self.losses.append(reason)


class World:
    """A hub, and what it tells those who are no readers."""

    def __init__(self) -> None:
        self.signs: list[str] = []
        self.changes = 0
        self.tapped: list[Frame] = []
        self.hub = Hub(on_sign=self.signs.append, on_change=self._change, taps={"TASK_UPDATED": self.tapped.append})

    def _change(self) -> None:
        self.changes += 1


@pytest.fixture
def world() -> World:
    return World()


def test_a_reader_hears_its_workspace_and_no_other_for_as_long_as_it_listens(world):
    reader, here, there = Reader(), frame(HERE), frame(THERE)
    world.hub.hear(here)
    with world.hub.listening(HERE, reader):
        world.hub.hear(here)
        world.hub.hear(there)
    world.hub.hear(here)
    assert reader.heard == [here]
    assert world.hub.readers == 0
    assert repr(world.hub) == "<Hub workspaces=0 readers=0>"


def test_a_reader_of_two_workspaces_hears_both(world):
    reader, frames = Reader(), [frame(HERE), frame(THERE)]
    with world.hub.listening(HERE, reader), world.hub.listening(THERE, reader):
        assert world.hub.readers == 2
        for one in frames:
            world.hub.hear(one)
    assert reader.heard == frames


def test_a_reader_that_ends_with_an_error_is_gone_too(world):
    with pytest.raises(ConnectionError), world.hub.listening(HERE, Reader()):
        raise ConnectionError
    assert world.hub.readers == 0


def test_signs_are_told_with_their_workspace_and_other_events_are_not(world):
    world.hub.hear(frame(HERE, type_="WORKSPACE_HEARTBEAT", sign=True))
    world.hub.hear(frame(THERE, type_="WORKSPACE_HEARTBEAT"))
    world.hub.hear(frame(THERE, sign=True))
    world.hub.hear(frame(HERE, type_="CALL_ENDED"))
    assert world.signs == [HERE, THERE]


def test_a_tap_hears_its_type_of_every_workspace(world):
    wanted = [frame(HERE), frame(THERE)]
    for one in (wanted[0], frame(type_="CALL_ENDED"), wanted[1]):
        world.hub.hear(one)
    assert world.tapped == wanted


def test_a_wake_up_reaches_the_caches_and_no_reader(world):
    reader = Reader()
    with world.hub.listening("-", reader), world.hub.listening(HERE, reader):
        world.hub.hear(Frame(id=None, prev="3-0", event=changed()))
    assert (world.changes, reader.heard, world.signs) == (1, [], [])


def test_the_cursor_is_the_last_id_that_was_heard_of(world):
    assert world.hub.cursor is None
    world.hub.hear(frame(number=3))
    assert world.hub.cursor == "3-0"
    world.hub.hear(frame(type_="WORKSPACE_HEARTBEAT", number=5))
    assert world.hub.cursor == "4-0"


def test_a_loss_is_told_to_every_reader_once_and_to_the_caches(world):
    readers = [Reader(), Reader(), Reader()]
    with (
        world.hub.listening(HERE, readers[0]),
        world.hub.listening(HERE, readers[1]),
        world.hub.listening(THERE, readers[2]),
    ):
        world.hub.lost("reconnected")
    assert [reader.losses for reader in readers] == [["reconnected"]] * 3
    assert world.changes == 1


class Leaver(Reader):
    """Ends its own listening, and that of others, at the first frame or loss."""

    def __init__(self, *listenings: object) -> None:
        super().__init__()
        self.listenings = list(listenings)

    def deliver(self, frame: Frame) -> None:
        super().deliver(frame)
        self._leave()

    def resync(self, reason: str) -> None:
        super().resync(reason)
        self._leave()

    def _leave(self) -> None:
        while self.listenings:
            self.listenings.pop().__exit__(None, None, None)


def test_readers_that_leave_during_a_delivery_hear_nothing_more_and_disturb_nobody(world):
    leaver, left, stays = Leaver(), Reader(), Reader()
    for reader in (leaver, left, stays):
        listening = world.hub.listening(HERE, reader)
        listening.__enter__()
        if reader is not stays:
            leaver.listenings.append(listening)
    world.hub.hear(frame(number=1))
    world.hub.hear(frame(number=2))
    assert [len(reader.heard) for reader in (leaver, left, stays)] == [1, 0, 2]


def test_the_last_reader_may_leave_while_a_loss_is_told(world):
    leaver = Leaver()
    leaver.listenings.append(world.hub.listening(HERE, leaver))
    leaver.listenings[0].__enter__()
    world.hub.lost("reconnected")
    world.hub.hear(frame())
    assert (leaver.losses, leaver.heard, world.hub.readers) == (["reconnected"], [], 0)


@given(
    st.lists(st.tuples(st.sampled_from(["join", "leave", "hear"]), st.integers(0, 3), st.sampled_from([HERE, THERE])))
)
def test_whoever_comes_and_goes_everybody_hears_what_happened_while_they_listened(steps):
    world, readers = World(), [Reader() for _ in range(4)]
    listening: dict[tuple[int, str], object] = {}
    expected: Counter[int] = Counter()
    for number, (what, who, where) in enumerate(steps, 1):
        if what == "join" and (who, where) not in listening:
            listening[who, where] = world.hub.listening(where, readers[who])
            listening[who, where].__enter__()
        elif what == "leave" and (who, where) in listening:
            listening.pop((who, where)).__exit__(None, None, None)
        elif what == "hear":
            world.hub.hear(frame(where, number=number))
            expected.update(reader for reader, at in listening if at == where)
    assert [len(reader.heard) for reader in readers] == [expected[who] for who in range(4)]
    assert world.hub.readers == len(listening)
