"""The hub, and what its readers get: against a list of all that was heard, whatever they do and in whatever order."""

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from events import hub
from events.event import CATALOGUE, EVERYWHERE, MAX_PAYLOAD_BYTES, Event, changed, event, gap, probe
from events.frame import ORIGIN, Frame, Position, find_position
from events.hub import Hub
from events.readers import SCAN_FRAMES, Style, Subscription, Wanted
from events.ring import Ring
from tests.harness.world import eventually

HERE, THERE = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
PLAIN = Style(
    name="plain",
    block=lambda one: one.event.payload + b";",
    parts=lambda one: [one.event.payload, b";"],
    wrap=lambda blocks: blocks,
    bus=lambda state: b"bus:%b;" % state.encode(),
    gap=lambda *words: b"gap:%b;" % ":".join(words).encode(),
)
LOUD = Style(
    name="loud",
    block=lambda one: b"!",
    parts=lambda one: [b"!"],
    wrap=lambda blocks: b"<%b>" % blocks,
    bus=PLAIN.bus,
    gap=PLAIN.gap,
)
OF_HERE = Wanted(workspaces=frozenset({HERE}))
OF_ALL = Wanted()


class Reader:
    """A sink with as much room as it is given."""

    def __init__(self) -> None:
        self.got = b""
        self.room = True
        self.stirs = 0
        self.writes = 0

    def write(self, blob: bytes) -> bool:
        self.got += blob
        self.writes += 1
        return self.room

    def stir(self) -> None:
        self.stirs += 1

    @property
    def said(self) -> list[str]:
        return self.got.decode().split(";")[:-1]

    def pull(self, subscription: Subscription, limit_bytes: int = 10**6) -> None:
        """Take all there is, as long as it does not keep up."""
        while not subscription.keeps_up:
            self.got += subscription.pull(limit_bytes)


class World:
    """A hub with all that it was told, and what it tells those who are no readers."""

    def __init__(self, max_frames: int = 1000) -> None:
        self.signs: list[str] = []
        self.changes = 0
        self.tapped: list[Frame] = []
        self.heard: list[Frame] = []
        self.ring = Ring(max_frames=max_frames, max_bytes=10**9)
        taps = {"TASK_UPDATED": self.tapped.append}
        self.hub = Hub(self.ring, on_sign=self.signs.append, on_change=self._change, taps=taps)
        self.ring.begin(ORIGIN)
        self.hub.loaded.set()

    def _change(self) -> None:
        self.changes += 1

    def hear(self, workspace_id: str = HERE, *, type_: str = "TASK_UPDATED", sign: bool = False) -> Frame:
        """The next event, whose payload is its number."""
        number = len(self.heard)
        kept = CATALOGUE[type_].journal
        payload = b"%d" % number
        one = Event(type=type_, workspace_id=workspace_id, payload=payload, sign=sign)
        return self._hear(Frame(place=self._place(number) if kept else None, prev=self.ring.newest, event=one))

    def hear_gap(self) -> Frame:
        """A gap from the journal."""
        return self._hear(Frame(place=self._place(len(self.heard)), prev=self.ring.newest, event=gap("journal")))

    def lose(self, forward: int) -> Frame:
        """A gap that only this process has found; the journal goes on later."""
        place = self.ring.newest[0] + 1 + forward, len(self.heard)
        return self._hear(Frame(place=place, prev=self.ring.newest, event=gap("lost")))

    def _place(self, number: int) -> Position:
        return self.ring.newest[0] + 1, number

    def _hear(self, one: Frame) -> Frame:
        self.heard.append(one)
        self.hub.hear(one)
        return one


@pytest.fixture
def world() -> World:
    return World()


async def test_a_reader_hears_what_it_wants_and_no_more_for_as_long_as_it_listens(world):
    reader = Reader()
    world.hear(HERE)
    with world.hub.subscribed(OF_HERE, PLAIN, reader):
        world.hear(HERE)
        world.hear(THERE)
        world.hear(HERE, type_="WORKSPACE_HEARTBEAT")
        await world.hub.tick()
        assert world.hub.readers == 1
    world.hear(HERE)
    await world.hub.tick()
    assert reader.said == ["1", "3"]
    assert repr(world.hub).startswith("<Hub readers=0 channels=0 ring=")


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted(), ["0", "1", "2", "3"]),
        (Wanted(workspaces=frozenset({HERE, THERE})), ["0", "1", "2"]),
        (Wanted(workspaces=frozenset({THERE})), ["1"]),
        (Wanted(workspaces=frozenset()), []),
        (Wanted(types=frozenset({"CALL_ENDED"})), ["2", "3"]),
        (Wanted(workspaces=frozenset({HERE}), types=frozenset({"CALL_ENDED"})), ["2"]),
    ],
)
async def test_workspaces_and_types_are_what_a_reader_may_want(world, wanted, said):
    reader = Reader()
    with world.hub.subscribed(wanted, PLAIN, reader):
        world.hear(HERE)
        world.hear(THERE)
        world.hear(HERE, type_="CALL_ENDED")
        world.hear("c", type_="CALL_ENDED")
        await world.hub.tick()
    assert reader.said == said


async def test_a_reader_begins_in_the_present_though_others_have_not_been_served_yet(world):
    first, second = Reader(), Reader()
    with world.hub.subscribed(OF_HERE, PLAIN, first):
        world.hear()
        with world.hub.subscribed(OF_HERE, PLAIN, second) as subscription:
            world.hear()
            await world.hub.tick()
            second.pull(subscription)
            world.hear()
            await world.hub.tick()
    assert (first.said, second.said) == (["0", "1", "2"], ["1", "2"])


async def test_a_reader_that_goes_back_to_what_is_about_to_be_served_gets_nothing_twice(world):
    first, second = Reader(), Reader()
    with world.hub.subscribed(OF_HERE, PLAIN, first), world.hub.subscribed(OF_HERE, PLAIN, second) as subscription:
        world.hear()
        place = world.hear().place
        subscription.rewind(place)
        second.pull(subscription)
        world.hear()
        await world.hub.tick()
        second.pull(subscription)
    assert (first.said, second.said) == (["0", "1", "2"], ["2"])


async def test_a_gap_leads_to_the_present_and_nothing_of_before_comes_after_it(world):
    reader = Reader()
    with world.hub.subscribed(OF_HERE, PLAIN, reader) as subscription:
        world.hear()
        reader.got += subscription.gap("unknown_id", "9-9")
        reader.pull(subscription)
        world.hear()
        await world.hub.tick()
        reader.pull(subscription)
    assert reader.said == [f"gap:unknown_id:9-9:1-0:/workspaces/{HERE}", "1"]


@pytest.mark.parametrize("wanted", [Wanted(types=frozenset({"CALL_ENDED"})), Wanted(workspaces=frozenset({"a", "b"}))])
async def test_what_a_reader_does_not_want_makes_no_gap_for_it_however_much_it_is(wanted):
    world, reader, late = World(max_frames=5), Reader(), Reader()
    with world.hub.subscribed(wanted, PLAIN, reader):
        for _ in range(20):
            world.hear(HERE)
        with world.hub.subscribed(wanted, PLAIN, late) as subscription:
            subscription.hold()
            late.pull(subscription)
            for _ in range(20):
                world.hear(HERE)
            last = world.hear("a", type_="CALL_ENDED")
            await world.hub.tick()
            late.pull(subscription)
    assert reader.said == late.said == [last.event.payload.decode()]


async def test_who_has_no_room_is_fed_from_the_ring_as_fast_as_it_reads_and_others_notice_nothing(world):
    slow, quick = Reader(), Reader()
    slow.room = False
    with world.hub.subscribed(OF_HERE, PLAIN, slow) as subscription, world.hub.subscribed(OF_HERE, PLAIN, quick):
        for _ in range(10):
            world.hear()
            await world.hub.tick()
        assert (slow.said, slow.stirs, world.hub.lagging, world.hub.fallen_behind) == (["0"], 1, 1, 1)
        assert subscription.pull(3) == b"1;2;"
        slow.got += b"1;2;"
        slow.pull(subscription)
        assert world.hub.lagging == 0
        world.hear()
        await world.hub.tick()
    assert slow.said == quick.said == [str(number) for number in range(11)]


async def test_who_wants_few_of_many_looks_at_some_at_a_time_and_finds_them_all():
    world, reader = World(max_frames=10 * SCAN_FRAMES), Reader()
    with world.hub.subscribed(Wanted(types=frozenset({"CALL_ENDED"})), PLAIN, reader) as subscription:
        subscription.hold()
        for _ in range(2 * SCAN_FRAMES):
            world.hear()
        last = world.hear(type_="CALL_ENDED")
        await world.hub.tick()
        assert subscription.pull(100) == b""
        assert not subscription.keeps_up
        reader.pull(subscription)
    assert reader.said == [last.event.payload.decode()]


async def test_who_is_overtaken_by_the_ring_is_told_of_it_once():
    world, slow = World(max_frames=3), Reader()
    slow.room = False
    with world.hub.subscribed(OF_ALL, PLAIN, slow) as subscription:
        for _ in range(10):
            world.hear()
            await world.hub.tick()
        slow.pull(subscription)
    assert slow.said == ["0", "gap:overrun:1-0:7-6:/workspaces", "7", "8", "9"]


async def test_the_blocks_of_a_style_are_made_once_for_all_its_readers_and_wrapped_together(world):
    readers = [Reader() for _ in range(3)]
    made = []
    style = Style(
        name="counting",
        block=lambda one: made.append(one) or b"x;",
        parts=lambda one: [b"x;"],
        wrap=lambda blocks: b"(%b);" % blocks,
        bus=PLAIN.bus,
        gap=PLAIN.gap,
    )
    with ExitStack() as stack:
        for number, wanted in enumerate([OF_HERE, OF_HERE, OF_ALL]):
            stack.enter_context(world.hub.subscribed(wanted, style, readers[number]))
        world.hear()
        world.hear()
        await world.hub.tick()
    assert len(made) == 2
    assert {reader.got for reader in readers} == {b"(x;x;);"}


async def test_readers_of_several_styles_each_get_their_own(world):
    plain, loud = Reader(), Reader()
    with world.hub.subscribed(OF_HERE, PLAIN, plain), world.hub.subscribed(OF_HERE, LOUD, loud):
        world.hear()
        await world.hub.tick()
    assert (plain.got, loud.got) == (b"0;", b"<!>")


async def test_what_comes_together_is_written_together(world, tasks):
    reader = Reader()
    tasks.spawn(world.hub.run(), "serve")
    with world.hub.subscribed(OF_HERE, PLAIN, reader):
        for _ in range(50):
            world.hear()
        await eventually(lambda: len(reader.said) == 50)
        assert reader.writes == 1
        world.hear()
        await eventually(lambda: len(reader.said) == 51)


async def test_what_cannot_be_framed_is_pulled_by_each_and_nobody_misses_anything_unawares(world):
    def block(one: Frame) -> bytes:
        if one.event.payload == b"0":
            raise ZeroDivisionError
        return b"%b;" % one.event.payload

    reader, other = Reader(), Reader()
    broken = replace(PLAIN, name="broken", block=block)
    with (
        world.hub.subscribed(OF_HERE, broken, reader) as subscription,
        world.hub.subscribed(OF_HERE, PLAIN, other),
    ):
        world.hear()
        world.hear()
        with capture_logs() as logs:
            await world.hub.tick()
        assert [entry["event"] for entry in logs] == ["window_broke"]
        assert (reader.said, reader.stirs, subscription.keeps_up) == ([], 1, False)
        with pytest.raises(ZeroDivisionError):
            subscription.pull(10**6)
        assert other.said == ["0", "1"]


async def test_a_turn_that_breaks_leaves_the_others_theirs(world, tasks):
    class Broken(Reader):
        def write(self, blob: bytes) -> bool:
            raise ZeroDivisionError

    reader = Reader()
    with world.hub.subscribed(OF_HERE, LOUD, Broken()), world.hub.subscribed(OF_HERE, PLAIN, reader):
        world.hear()
        with pytest.raises(ZeroDivisionError):
            await world.hub.tick()
        tasks.spawn(world.hub.run(), "serve")
        await eventually(lambda: reader.said == ["0"])


async def test_a_reader_that_ends_with_an_error_is_gone_too(world):
    with pytest.raises(ConnectionError), world.hub.subscribed(OF_HERE, PLAIN, Reader()):
        raise ConnectionError
    assert (world.hub.readers, world.hub.lagging) == (0, 0)


async def test_signs_are_told_with_their_workspace_and_other_events_are_not(world):
    world.hear(HERE, type_="WORKSPACE_HEARTBEAT", sign=True)
    world.hear(THERE, type_="WORKSPACE_HEARTBEAT")
    world.hear(THERE, sign=True)
    world.hear(HERE, type_="CALL_ENDED")
    assert world.signs == [HERE, THERE]


async def test_a_tap_hears_its_type_of_every_workspace(world):
    wanted = [world.hear(HERE), world.hear(THERE)]
    world.hear(type_="CALL_ENDED")
    assert world.tapped == wanted


@pytest.mark.parametrize("one", [changed(), probe("me", 1)])
async def test_what_is_for_the_house_reaches_no_reader(world, one):
    reader = Reader()
    with world.hub.subscribed(OF_ALL, PLAIN, reader):
        world.hub.hear(Frame(place=None, prev=ORIGIN, event=one))
        await world.hub.tick()
    assert (world.changes, reader.said, world.signs) == (1 if one.type == changed().type else 0, [], [])


async def test_a_gap_is_told_to_every_reader_whatever_it_wants_and_to_the_caches(world):
    readers = [Reader(), Reader(), Reader()]
    wanted = [OF_HERE, OF_ALL, Wanted(workspaces=frozenset({THERE}), types=frozenset({"CALL_ENDED"}))]
    with ExitStack() as stack:
        for one, reader in zip(wanted, readers, strict=True):
            stack.enter_context(world.hub.subscribed(one, PLAIN, reader))
        world.hear()
        world.hear_gap()
        await world.hub.tick()
    assert [reader.said[-1] for reader in readers] == [
        f"gap:journal:1-0:2-1:/workspaces/{HERE}",
        "gap:journal:1-0:2-1:/workspaces",
        f"gap:journal:1-0:2-1:/workspaces/{THERE}",
    ]
    assert world.changes == 1


async def test_the_state_of_the_bus_is_told_at_once_to_all_and_to_those_who_come_while_it_lasts(world):
    reader, slow, late, later = Reader(), Reader(), Reader(), Reader()
    with world.hub.subscribed(OF_HERE, PLAIN, reader), world.hub.subscribed(OF_HERE, LOUD, slow) as subscription:
        subscription.hold()
        world.hub.tell("degraded")
        assert slow.got == b""
        assert subscription.pull(1) == b"bus:degraded;"
        with world.hub.subscribed(OF_HERE, PLAIN, late):
            world.hub.tell("ok")
        assert subscription.pull(1) == b"bus:ok;"
        with world.hub.subscribed(OF_HERE, PLAIN, later):
            pass
    assert reader.said == late.said == ["bus:degraded", "bus:ok"]
    assert slow.got == b""
    assert later.said == []


async def test_an_event_by_reference_is_pulled_by_all_who_want_it_in_its_turn_and_by_nobody_else(world):
    wants, behind, other = Reader(), Reader(), Reader()
    with (
        world.hub.subscribed(OF_HERE, PLAIN, wants) as first,
        world.hub.subscribed(OF_HERE, PLAIN, behind) as second,
        world.hub.subscribed(Wanted(workspaces=frozenset({THERE})), PLAIN, other),
    ):
        second.hold()
        world.hear()
        large = event("A2A_RESPONSE", HERE, {"text": "x" * MAX_PAYLOAD_BYTES})
        by_reference = world._hear(Frame(place=world._place(1), prev=world.ring.newest, event=large))
        world.hear(THERE)
        world.hear()
        await world.hub.tick()
        assert other.said == ["2"]
        assert wants.got == b""
        assert wants.stirs == 1
        assert not first.keeps_up
        for one in (first, second):
            assert one.pull(10**6) == b"0;"
            assert one.pull(10**6) == b""
            assert one.due is by_reference
            one.take()
            assert one.due is None
            assert one.pull(10**6) == b"3;"
            assert one.pull(10**6) == b""
            assert one.keeps_up
        world.hear()
        await world.hub.tick()
        assert wants.said == behind.said == ["4"]


async def test_a_reader_looks_at_so_many_frames_in_a_row_that_it_does_not_want_and_no_more(world, monkeypatch):
    monkeypatch.setattr("events.readers.SCAN_FRAMES", 10)
    reader = Reader()
    rare = Wanted(types=frozenset({"CALL_ENDED"}))
    with world.hub.subscribed(rare, PLAIN, reader) as subscription:
        subscription.hold()
        for _ in range(25):
            world.hear()
        world.hear(type_="CALL_ENDED")
        world.hub.tell("degraded")  # settles nothing: it is still to be pulled
        await world.hub.tick()
        assert subscription.pull(10**6) == b"bus:degraded;"
        pulls = 0
        while not (got := subscription.pull(10**6)):
            pulls += 1
            assert subscription.due is None
            assert not subscription.keeps_up
        assert pulls == 1
        assert got == b"25;"


async def test_readers_that_leave_while_others_are_written_to_hear_nothing_more_and_disturb_nobody(world):
    stack, left, stays = ExitStack(), Reader(), Reader()

    class Leaver(Reader):
        def write(self, blob: bytes) -> bool:
            stack.close()
            return super().write(blob)

    leaver = Leaver()
    stack.enter_context(world.hub.subscribed(OF_HERE, PLAIN, leaver))
    stack.enter_context(world.hub.subscribed(OF_HERE, PLAIN, left))
    with world.hub.subscribed(OF_HERE, PLAIN, stays):
        for _ in range(2):
            world.hear()
            await world.hub.tick()
    assert (leaver.said, left.said, stays.said) == (["0"], [], ["0", "1"])


async def test_a_cursor_may_be_moved_to_the_present_only_when_nothing_waits(world, monkeypatch):
    monkeypatch.setattr("events.hub.SLICE_S", 0)
    readers = [Reader() for _ in range(3)]
    with ExitStack() as stack:
        some = [stack.enter_context(world.hub.subscribed(OF_HERE, PLAIN, reader)) for reader in readers]
        assert all(one.at_rest for one in some)
        world.hear()
        assert not any(one.at_rest for one in some)
        ticking = asyncio.get_running_loop().create_task(world.hub.tick())
        while not ticking.done():
            written = [bool(reader.got) for reader in readers]
            assert not any(one.at_rest for one, done in zip(some, written, strict=True) if not done)
            await asyncio.sleep(0)
        assert all(one.at_rest for one in some)
        some[0].hold()
        assert not some[0].at_rest


async def test_who_waits_for_a_place_is_told_when_it_is_reached_and_when_it_is_not(world, tasks):
    assert await world.hub.reached(ORIGIN)
    answers: list[bool] = []

    async def wait(place: Position) -> None:
        answers.append(await world.hub.reached(place))

    before = monotonic()
    nowhere = tasks.spawn(wait((1, 0)), "wait")
    await asyncio.sleep(0.01)
    world.hub.confirm(before)  # of what has come since, this says nothing
    await asyncio.sleep(0.01)
    assert not nowhere.done()
    world.hub.confirm(monotonic())
    await eventually(lambda: answers == [False])
    answers.clear()

    for place in [(1, 0), (2, 1), (2, 0)]:
        tasks.spawn(wait(place), "wait")
    await asyncio.sleep(0)
    world.hear()
    await eventually(lambda: answers == [True])
    world.hear()
    await eventually(lambda: answers == [True] * 3)


async def test_who_comes_back_before_the_ring_is_loaded_is_held_and_then_knows(tasks, monkeypatch):
    world = World()
    world.hub.loaded.clear()
    answers: list[bool] = []

    async def wait() -> None:
        answers.append(await world.hub.reached((2, 1)))

    waiting = tasks.spawn(wait(), "wait")
    world.hear()
    world.hear()
    assert not waiting.done()
    world.hub.loaded.set()
    await eventually(lambda: answers == [True])
    world.hub.loaded.clear()
    monkeypatch.setattr(hub, "LOAD_S", 0.01)
    with pytest.raises(hub.NotLoaded):
        await world.hub.reached((2, 1))


async def test_what_is_past_is_kept_for_who_comes_back_and_is_no_news(world):
    reader = Reader()
    one = Event(type="TASK_UPDATED", workspace_id=HERE, payload=b"0", sign=True)
    past = Frame(place=(1, 0), prev=ORIGIN, event=one)
    with world.hub.subscribed(OF_HERE, PLAIN, reader) as subscription:
        world.hub.load(past)
        world.hub.end_load()
        await world.hub.tick()
        assert (reader.said, world.signs, world.tapped) == ([], [], [past])
        world.hub.hear(Frame(place=(2, 0), prev=(1, 0), event=replace(one, payload=b"1")))
        await world.hub.tick()
        assert reader.said == ["1"]
        subscription.rewind(ORIGIN)
        reader.pull(subscription)
    assert reader.said == ["1", "0", "1"]


async def test_who_is_held_while_the_past_is_loaded_gets_all_of_it_before_what_is_new(world):
    reader = Reader()
    with world.hub.subscribed(OF_HERE, PLAIN, reader) as subscription:
        subscription.hold()
        for number in range(3):
            one = Event(type="TASK_UPDATED", workspace_id=HERE, payload=b"%d" % number)
            world.hub.load(Frame(place=(number + 1, 0), prev=world.ring.newest, event=one))
        world.hub.end_load()
        subscription.rewind((1, 0))
        reader.pull(subscription)
        world.hub.hear(Frame(place=(4, 0), prev=(3, 0), event=replace(one, payload=b"3")))
        await world.hub.tick()
    assert reader.said == ["1", "2", "3"]


# -- whatever they do


WANTED = [
    OF_HERE,
    Wanted(workspaces=frozenset({THERE})),
    Wanted(workspaces=frozenset({HERE, THERE})),
    OF_ALL,
    Wanted(types=frozenset({"CALL_ENDED", "WORKSPACE_HEARTBEAT"})),
]


@dataclass(frozen=True)
class Step:
    what: str
    who: int
    amount: int


@dataclass
class Session:
    """A reader from when it began, or went back: what it wants, and from which heard frame on."""

    subscription: Subscription
    wanted: Wanted
    begins: int
    reader: Reader = field(default_factory=Reader)

    def check(self, heard: list[Frame]) -> None:
        """It got all it wanted since then, in order and once; what is missing was told as overrun, in its place."""
        numbers = {one.place: number for number, one in enumerate(heard) if one.place} | {ORIGIN: -1}
        expected = self._expected(heard)
        due = next(expected, None)
        last = -1  # what is state may be from just before
        last_kept = max((number for number in range(self.begins) if heard[number].place), default=-1)
        for word in self.reader.said:
            if word.startswith("gap:overrun:"):
                since, until = (numbers[find_position(id_)] for id_ in word.split(":")[2:4])
                assert since >= last_kept, "a gap begins where the reader was"
                while due is not None and due <= until:
                    assert due > since, "a gap begins where the reader was"
                    due = next(expected, None)
                last = max(last, until)
                continue
            number = numbers[find_position(word.split(":")[3])] if word.startswith("gap:") else int(word)
            assert number > last, "in order, and nothing twice"
            last = number
            if heard[number].place is not None:
                assert number == due, "without a hole"
                last_kept = number
                due = next(expected, None)
            else:
                assert self.wanted.has(heard[number])
        assert due is None, "and all of it"

    def _expected(self, heard: list[Frame]) -> Iterator[int]:
        for number in range(self.begins, len(heard)):
            one = heard[number]
            if one.place is not None and (one.event.workspace_id == EVERYWHERE or self.wanted.has(one)):
                yield number


steps = st.lists(
    st.builds(
        Step,
        st.sampled_from(
            ["kept"] * 8 + ["ended", "live", "journal gap", "lost", "tick", "tick", "tick", "join", "join", "leave"]
            + ["full", "full", "room", "pull", "pull", "hold", "rewind", "rewind"]
        ),
        st.integers(0, 2),
        st.integers(0, 9),
    ),
    min_size=20,
    max_size=100,
)  # fmt: skip


async def play(some: list[Step], max_frames: int) -> tuple[list[Frame], list[Session]]:
    """Do all this, then let everybody read to the end; return what was heard, and all sessions that came to it."""
    world, done = World(max_frames), []
    sessions: list[Session | None] = [None] * 3
    stacks = [ExitStack() for _ in sessions]

    def begin(who: int, subscription: Subscription, wanted: Wanted, begins: int) -> Session:
        session = Session(subscription, wanted, begins)
        old = sessions[who]
        session.reader.room = old is None or old.reader.room
        subscription.sink = session.reader
        sessions[who] = session
        return session

    for step in some:
        session = sessions[step.who]
        match step.what:
            case "kept" | "live" | "ended":
                types = {"kept": "TASK_UPDATED", "live": "WORKSPACE_HEARTBEAT", "ended": "CALL_ENDED"}
                world.hear([HERE, HERE, THERE, "c"][step.amount % 4], type_=types[step.what])
            case "journal gap":
                world.hear_gap()
            case "lost":
                world.lose(step.amount)
            case "tick":
                await world.hub.tick()
            case "join" if session is None:
                wanted = WANTED[step.amount % len(WANTED)]
                subscription = stacks[step.who].enter_context(world.hub.subscribed(wanted, PLAIN, Reader()))
                begin(step.who, subscription, wanted, len(world.heard))
            case "leave" if session is not None:
                stacks[step.who].close()
                sessions[step.who] = None
            case "full" | "room" if session is not None:
                session.reader.room = step.what == "room"
            case "pull" if session is not None and not session.subscription.keeps_up:
                session.reader.got += session.subscription.pull(step.amount)
            case "hold" if session is not None:
                session.subscription.hold()
                begin(step.who, session.subscription, session.wanted, len(world.heard))
            case "rewind" if session is not None:
                places = [one.place for one in world.heard if one.place and world.ring.covers(one.place)]
                if places:
                    place = places[-1 - step.amount % len(places)]
                    session.subscription.rewind(place)
                    begins = next(number for number, one in enumerate(world.heard) if one.place == place) + 1
                    begin(step.who, session.subscription, session.wanted, begins)
    for session in filter(None, sessions):
        session.reader.room = True
    for _ in range(2):
        await world.hub.tick()
        for session in filter(None, sessions):
            session.reader.pull(session.subscription)
    done = [session for session in sessions if session is not None]
    assert (world.hub.lagging, world.hub.readers) == (0, len(done))
    for stack in stacks:
        stack.close()
    assert (world.hub.readers, world.ring._readers) == (0, {})
    return world.heard, done


@settings(max_examples=300, deadline=None)
@given(steps, st.sampled_from([3, 10, 1000]))
def test_whatever_happens_everybody_gets_what_it_wants_in_order_and_once_or_is_told(some, max_frames):
    heard, sessions = asyncio.run(play(some, max_frames))
    for session in sessions:
        session.check(heard)
        if max_frames == 1000:
            assert "gap:overrun" not in session.reader.got.decode(), "nothing was overrun"
