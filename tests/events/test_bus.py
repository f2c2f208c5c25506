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
from events.event import Event, event
from gateway.services.tasks import Tasks

ID = "00000000-0000-4000-8000-00000000000a"


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
            assert len(bus) <= capacity

    server = Server(turns=list(some), meanwhile=publish)
    bus = Bus(server, capacity=capacity, retry_s=0)

    async def run() -> None:
        async with Tasks() as tasks:
            publish(Turn(published=[True]))
            tasks.spawn(bus.run(), "run")
            assert await bus.drain(10)

    asyncio.run(run())
    return published, server, bus


@given(turns)
def test_whatever_the_link_does_every_event_arrives_once_and_in_order(some):
    published, server, bus = play(some, capacity=1000)
    assert server.taken == published
    assert bus.dropped == 0


@given(turns, st.integers(1, 6))
def test_of_too_many_the_rest_arrives_once_and_in_order_and_the_loss_is_counted(some, capacity):
    published, server, bus = play(some, capacity)
    places = [published.index(one) for one in server.taken]
    assert places == sorted(set(places))
    assert len(server.taken) + bus.dropped == len(published)


@given(turns, st.integers(1, 6))
def test_history_is_lost_only_when_no_state_can_go_instead(some, capacity):
    """As a model: of what waits beyond the batch in flight, state makes room for history, the oldest first."""
    published, server, _ = play(some, capacity)
    waiting: list[Event] = [published[0]]
    batch: list[Event] = []
    expected: list[Event] = []
    coming = iter(published[1:])
    for turn in itertools.chain(some, itertools.repeat(Turn())):
        if not batch:
            batch, waiting = waiting, []
        if not batch:
            break
        for one in itertools.islice(coming, len(turn.published)):
            if len(batch) + len(waiting) >= capacity:
                loose = next((waits for waits in waiting if not waits.journalled), None)
                if loose is None or not one.journalled:
                    continue
                waiting.remove(loose)
            waiting.append(one)
        if turn.taken >= len(batch) and turn.answered:
            expected += batch
            batch = []
    assert server.taken == expected


async def _run(bus: Bus, work: Callable[[], Coroutine[object, object, None]]) -> None:
    async with Tasks() as tasks:
        tasks.spawn(bus.run(), "run")
        await work()
    assert tasks.deaths == 0


async def test_what_is_published_at_once_goes_in_one_batch_and_more_in_several():
    server = Server()
    bus = Bus(server, capacity=10_000)
    many = [kept(number) for number in range(BATCH + 10)]

    async def work() -> None:
        for one in many:
            bus.publish(one)
        assert await bus.drain(5)

    await _run(bus, work)
    assert server.taken == many
    assert server.sizes == [BATCH, 10]


async def test_what_is_in_flight_is_never_dropped_and_keeps_its_number():
    """The batch in flight is all heartbeats, the rest history: there is nothing that may go, so the newcomer does."""
    server = Server(turns=[Turn(published=[True, True], answered=False)])
    bus = Bus(server, capacity=3, retry_s=0)
    beats, history = [state(number) for number in range(2)], [kept(number) for number in range(2, 4)]
    server.meanwhile = lambda turn: [bus.publish(one) for one in history[: len(turn.published)]] and None

    async def work() -> None:
        for one in beats:
            bus.publish(one)
        assert await bus.drain(5)

    await _run(bus, work)
    assert server.taken == [*beats, history[0]]
    assert bus.dropped == 1


async def test_the_oldest_heartbeat_goes_first_and_a_new_one_makes_no_room_for_itself():
    server = Server()
    bus = Bus(server, capacity=3)
    first, second, third = state(1), state(2), kept(3)
    last = kept(5)
    for one in (first, second, third, state(4), last):
        bus.publish(one)
    assert (len(bus), bus.dropped) == (3, 2)
    await _run(bus, lambda: _drained(bus))
    assert server.taken == [second, third, last]


async def _drained(bus: Bus) -> None:
    assert await bus.drain(5)


async def test_draining_waits_for_the_answer_and_gives_up_in_time():
    away = Server(turns=[Turn(taken=0)] * 10**4)
    bus = Bus(away, capacity=10, retry_s=0.01)

    async def work() -> None:
        assert await bus.drain(0), "nothing to do"
        bus.publish(kept(1))
        assert not await bus.drain(0.05)
        assert len(bus) == 1
        away.turns.clear()
        assert await bus.drain(5)

    await _run(bus, work)
    assert repr(bus) == "<Bus waiting=0 dropped=0>"


async def test_a_run_that_died_leaves_nothing_behind_for_the_next():
    class Broken(Server):
        async def send(self, events: Sequence[Event], first_sequence: int) -> None:
            if not self.sizes:
                self.sizes.append(0)
                raise ZeroDivisionError
            await super().send(events, first_sequence)

    server = Broken()
    bus = Bus(server, capacity=10)
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
    bus = Bus(unreliable, capacity=10_000, retry_s=0)
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
