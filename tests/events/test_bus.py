"""The publisher, against a link that fails as it likes: in memory with every schedule, and before the real server."""

import asyncio
import itertools
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.bus import BATCH, Bus, LinkDown
from events.event import GAP, Event, event
from gateway.services.tasks import Tasks
from tests.harness.world import eventually

ID = "00000000-0000-4000-8000-00000000000a"
BYTES = 10**9


def kept(number: int) -> Event:
    return event("TASK_UPDATED", ID, {"number": number})


def state(number: int) -> Event:
    return event("WORKSPACE_HEARTBEAT", ID, {"number": number})


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One attempt to send: what is published meanwhile (True: kept), how many are taken, whether the answer comes."""

    published: Sequence[bool] = ()
    taken: int = 10**6
    answered: bool = True


@dataclass(kw_only=True)
class Server:
    """A link with a server behind it, which passes over what it has taken before, as publish.lua does."""

    turns: list[Turn] = field(default_factory=list)
    meanwhile: Callable[[Turn], None] = lambda turn: None
    taken: list[Event] = field(default_factory=list)
    numbered: dict[int, Event] = field(default_factory=dict)
    sizes: list[int] = field(default_factory=list)

    async def send(self, events: Sequence[Event], first_sequence: int) -> None:
        turn = self.turns.pop(0) if self.turns else Turn()
        self.sizes.append(len(events))
        await asyncio.sleep(0)
        self.meanwhile(turn)
        for number, one in enumerate(events, first_sequence):
            assert self.numbered.setdefault(number, one) is one, "a number belongs to one event for ever"
        for number, one in list(enumerate(events, first_sequence))[: turn.taken]:
            if number >= len(self.taken):
                assert number == len(self.taken), "numbers have no holes"
                self.taken.append(one)
        if turn.taken < len(events) or not turn.answered:
            raise LinkDown


turns = st.lists(
    st.builds(
        Turn,
        published=st.lists(st.booleans(), max_size=8),
        taken=st.integers(0, 6) | st.just(10**6),
        answered=st.booleans(),
    ),
    max_size=12,
)


def play(some: list[Turn], capacity: int) -> tuple[list[Event], Server, Bus]:
    """Publish as the turns say until all is sent; return what was published, the server and the bus."""
    published: list[Event] = []

    def publish(turn: Turn) -> None:
        for journalled in turn.published:
            published.append(kept(len(published)) if journalled else state(len(published)))
            bus.publish(published[-1])
            assert len(bus) <= capacity + 1, "a gap may come on top"

    server = Server(turns=list(some), meanwhile=publish)
    bus = Bus(server, capacity=capacity, capacity_bytes=BYTES, retry_s=0)

    async def run() -> None:
        async with Tasks() as tasks:
            publish(Turn(published=[True]))
            tasks.spawn(bus.run(), "run")
            assert await bus.drain(10)

    asyncio.run(run())
    return published, server, bus


def history(events: Sequence[Event]) -> list[Event]:
    return [one for one in events if one.journalled and one.type != GAP]


@given(turns)
def test_whatever_the_link_does_history_arrives_once_and_in_order(some):
    published, server, bus = play(some, capacity=1000)
    assert history(server.taken) == history(published)
    assert all(one.type != GAP for one in server.taken)
    assert (bus.dropped, bus.away) == (0, False)


@given(turns, st.integers(1, 6))
def test_what_is_state_arrives_at_most_once_and_in_order_and_never_when_it_would_be_old(some, capacity):
    published, server, _ = play(some, capacity)
    states = [one for one in server.taken if not one.journalled]
    places = [published.index(one) for one in states]
    assert places == sorted(set(places))


@given(turns)
def test_over_a_link_that_works_all_that_fits_arrives(some):
    published, server, _ = play([Turn(published=turn.published) for turn in some], capacity=1000)
    assert server.taken == published


@given(turns, st.integers(1, 6))
def test_where_history_was_too_much_there_is_a_gap_in_its_place_and_nowhere_else(some, capacity):
    """One, unless more is lost when it has been sent already: then it is followed by another."""
    published, server, bus = play(some, capacity)
    arrived = [one for one in server.taken if one.journalled]
    expected = [one if one in arrived else GAP for one in history(published)]
    shown = [GAP if one.type == GAP else one for one in arrived]
    assert [one for one, _ in itertools.groupby(shown)] == [one for one, _ in itertools.groupby(expected)]
    assert bus.dropped == expected.count(GAP) >= shown.count(GAP)


@given(turns, st.integers(1, 6))
def test_what_arrives_is_what_fitted(some, capacity):
    """As a model: what waits beyond the batch in flight, and whether the link is known to be away."""
    published, server, _ = play(some, capacity)
    waiting: list[Event] = [published[0]]
    batch: list[Event] = []
    expected: list[Event] = []
    coming = iter(published[1:])
    away = False
    for turn in itertools.chain(some, itertools.repeat(Turn())):
        if not batch:
            batch, waiting = waiting, []
        if not batch:
            break
        hole = False
        for one in itertools.islice(coming, len(turn.published)):
            size = len(batch) + len(waiting)
            if one.journalled:
                hole |= size >= capacity
            if size < capacity and (one.journalled or not away):
                assert not hole, "it only grows within a turn"
                waiting.append(one)
        if turn.taken >= len(batch) and turn.answered:
            expected += batch
            batch, away = [], False
        elif not away:
            away = True
            waiting = [one for one in waiting if one.journalled]
        if hole:
            break
    assert server.taken[: len(expected)] == expected


async def _run(bus: Bus, work: Callable[[], Coroutine[object, object, None]]) -> None:
    async with Tasks() as tasks:
        tasks.spawn(bus.run(), "run")
        await work()
    assert tasks.deaths == 0


async def test_what_is_published_at_once_goes_in_one_batch_and_more_in_several():
    server = Server()
    bus = Bus(server, capacity=10_000, capacity_bytes=BYTES)
    many = [kept(number) for number in range(BATCH + 10)]

    async def work() -> None:
        for one in many:
            bus.publish(one)
        assert await bus.drain(5)

    await _run(bus, work)
    assert server.taken == many
    assert server.sizes == [BATCH, 10]


async def test_a_batch_is_no_larger_than_can_be_sent_in_time_though_one_event_goes_whatever_its_size(monkeypatch):
    monkeypatch.setattr("events.bus.BATCH_BYTES", 10_000)
    server = Server()
    bus = Bus(server, capacity=1000, capacity_bytes=BYTES)
    many = [event("TASK_UPDATED", ID, {"current_task": "x" * size}) for size in (4000, 4000, 4000, 20_000, 10, 10)]
    for one in many:
        bus.publish(one)
    await _run(bus, lambda: _drained(bus))
    assert server.taken == many
    assert server.sizes == [2, 1, 1, 2]


async def test_what_is_in_flight_is_never_dropped_and_keeps_its_number():
    """Redis goes while a batch of heartbeats is on its way: they are sent again, those behind them are not."""
    server = Server(turns=[Turn(published=[True, False], answered=False)])
    bus = Bus(server, capacity=10, capacity_bytes=BYTES, retry_s=0)
    beats, late, one = [state(0), state(1)], state(2), kept(3)
    server.meanwhile = lambda turn: [bus.publish(it) for it in (late, one)[: len(turn.published)]] and None

    async def work() -> None:
        for beat in beats:
            bus.publish(beat)
        assert await bus.drain(5)

    await _run(bus, work)
    assert server.taken == [*beats, one]
    assert (bus.dropped, bus.failures) == (0, 1)


async def test_while_redis_is_away_state_is_not_kept_and_history_is():
    away = Server(turns=[Turn(taken=0)] * 10**4)
    bus = Bus(away, capacity=10, capacity_bytes=BYTES, retry_s=0.001)
    first, last = kept(1), kept(3)

    async def work() -> None:
        bus.publish(first)
        await eventually(lambda: bus.away)
        bus.publish(state(2))
        bus.publish(last)
        away.turns.clear()
        assert await bus.drain(5)
        assert not bus.away
        bus.publish(state(4))
        assert await bus.drain(5)

    await _run(bus, work)
    assert [one.payload for one in away.taken] == [kept(1).payload, kept(3).payload, state(4).payload]


async def test_what_is_dropped_last_ends_as_a_gap_too():
    server = Server()
    bus = Bus(server, capacity=2, capacity_bytes=BYTES)
    some = [kept(number) for number in range(4)]
    for one in some:
        bus.publish(one)
    assert (len(bus), bus.dropped) == (2, 2)
    await _run(bus, lambda: _drained(bus))
    assert server.taken[:2] == some[:2]
    assert [one.type for one in server.taken[2:]] == [GAP]
    assert server.taken[2].payload == b'{"reason":"overflow"}'


async def test_few_large_events_are_too_much_as_many_small_ones_are():
    server = Server()
    bus = Bus(server, capacity=1000, capacity_bytes=10_000)
    some = [event("TASK_UPDATED", ID, {"current_task": "x" * 6000}) for _ in range(4)]
    for one in some:
        bus.publish(one)
    assert (len(bus), bus.dropped) == (2, 2)
    await _run(bus, lambda: _drained(bus))
    assert [one.type for one in server.taken] == ["TASK_UPDATED", "TASK_UPDATED", GAP]
    bus.publish(some[0])
    assert len(bus) == 1, "there is room again"


async def _drained(bus: Bus) -> None:
    assert await bus.drain(5)


async def test_draining_waits_for_the_answer_and_gives_up_in_time():
    away = Server(turns=[Turn(taken=0)] * 10**4)
    bus = Bus(away, capacity=10, capacity_bytes=BYTES, retry_s=0.01)

    async def work() -> None:
        assert await bus.drain(0), "nothing to do"
        bus.publish(kept(1))
        assert not await bus.drain(0.05)
        assert len(bus) == 1
        away.turns.clear()
        assert await bus.drain(5)

    await _run(bus, work)
    assert repr(bus) == "<Bus waiting=0 dropped=0 away=False>"


async def test_a_run_that_died_leaves_nothing_behind_for_the_next():
    class Broken(Server):
        async def send(self, events: Sequence[Event], first_sequence: int) -> None:
            if not self.sizes:
                self.sizes.append(0)
                raise ZeroDivisionError
            await super().send(events, first_sequence)

    server = Broken()
    bus = Bus(server, capacity=10, capacity_bytes=BYTES)
    bus.publish(kept(1))
    with pytest.raises(ZeroDivisionError):
        await bus.run()
    await _run(bus, lambda: _drained(bus))
    assert len(server.taken) == 1


class Unreliable:
    """A link to the real server that fails before, in the middle of, or after every second batch."""

    def __init__(self, link, random: Random) -> None:
        self._link = link
        self._random = random
        self.failures = 0

    async def send(self, events: Sequence[Event], first_sequence: int) -> None:
        fails = self._random.random() < 0.5
        arrive = self._random.choice([0, len(events) // 2, len(events)]) if fails else len(events)
        if arrive:
            await self._link.send(events[:arrive], first_sequence)
        if fails:
            self.failures += 1
            raise LinkDown


@pytest.mark.parametrize("seed", range(5))
async def test_the_real_journal_holds_every_event_once_and_in_order(link, seed):
    unreliable = Unreliable(link, Random(seed))
    bus = Bus(unreliable, capacity=10_000, capacity_bytes=BYTES, retry_s=0)
    many = [kept(number) for number in range(600)]

    async def work() -> None:
        for place, one in enumerate(many):
            bus.publish(one)
            if place % 7 == 0:
                await asyncio.sleep(0)
        assert await bus.drain(20)

    await _run(bus, work)
    assert unreliable.failures
    assert [heard.event async for heard in link.read((0, 0))] == many
