"""Processes that renew their leases, and what the survivors announce for one that does not."""

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import ClassVar
from uuid import uuid4

import orjson
import pytest

from events.bus import Bus, LinkDown
from events.event import GAP, Event, event
from gateway.services.instances import Instances
from gateway.services.tasks import Tasks
from gateway.store.instances import InstanceStore
from tests.harness.world import eventually

EVERY_S = 0.05


class Link:
    """A way to Redis that can be away."""

    taken: ClassVar[Counter[str]] = Counter()

    def __init__(self) -> None:
        self.publisher = uuid4().hex
        self.away = False
        self.events: list[Event] = []

    async def send(self, events: Sequence[Event], first_sequence: int) -> None:
        if self.away:
            raise LinkDown
        self.events += events
        self.taken[self.publisher] = first_sequence + len(events)

    async def has_taken(self, publisher: str, count: int) -> bool:
        if self.away:
            raise LinkDown
        return self.taken[publisher] >= count


class Replica:
    """One process: its bus, and its lease."""

    def __init__(self, store: InstanceStore, tasks: Tasks) -> None:
        self.link = Link()
        self.bus = Bus(self.link, capacity=100, capacity_bytes=10_000, retry_s=0.01)
        self.instances = Instances(store, self.bus, every_s=EVERY_S)
        tasks.spawn(self.bus.run(), "bus")

    async def gaps(self) -> list[str]:
        """The reasons of the gaps that it has announced."""
        assert await self.bus.drain(5)
        return [orjson.loads(one.payload)["reason"] for one in self.link.events if one.type == GAP]


@pytest.fixture
def store(stores) -> InstanceStore:
    return InstanceStore(stores.database)


async def test_for_one_that_died_with_events_waiting_one_survivor_announces_one_gap(store, tasks):
    dying, first, second = [Replica(store, tasks) for _ in range(3)]
    dying.link.away = True
    dying.bus.publish(event("WORKSPACE_ONLINE", "w", {}))
    await eventually(lambda: dying.bus.away)
    await dying.instances.tick()
    await first.instances.tick()
    await second.instances.tick()
    assert await first.gaps() == await second.gaps() == []
    announced: list[str] = []

    async def is_dead() -> bool:
        await asyncio.gather(first.instances.tick(), second.instances.tick())
        announced[:] = [*await first.gaps(), *await second.gaps()]
        return bool(announced)

    async with asyncio.timeout(10):
        while True:
            if await is_dead():
                break
            await asyncio.sleep(EVERY_S)
    for _ in range(3):
        await is_dead()
    assert announced == ["instance_died"]


@pytest.mark.parametrize("ends", ["with nothing waiting", "in good order"])
async def test_for_one_that_left_nothing_behind_nothing_is_announced(store, stores, tasks, ends):
    ending, survivor = Replica(store, tasks), Replica(store, tasks)
    ending.bus.publish(event("WORKSPACE_ONLINE", "w", {}))
    assert await ending.bus.drain(5)
    await ending.instances.tick()
    if ends == "in good order":
        await ending.instances.leave()
    async with asyncio.timeout(10):
        while True:
            await survivor.instances.tick()
            if await stores.ask("select count(*) from instances") == 1:
                break
            await asyncio.sleep(EVERY_S)
    assert await survivor.gaps() == []


async def test_one_whose_events_arrived_before_its_lease_said_so_has_lost_nothing(store, stores, tasks):
    dying, survivor = Replica(store, tasks), Replica(store, tasks)
    dying.link.away = True
    dying.bus.publish(event("WORKSPACE_ONLINE", "w", {}))
    await eventually(lambda: dying.bus.away)
    await dying.instances.tick()
    dying.link.away = False
    assert await dying.bus.drain(5)
    async with asyncio.timeout(10):
        while True:
            await survivor.instances.tick()
            if await stores.ask("select count(*) from instances") == 1:
                break
            await asyncio.sleep(EVERY_S)
    assert await survivor.gaps() == []


async def test_one_that_ends_in_good_order_but_takes_events_along_is_announced(store, stores, tasks):
    ending, survivor = Replica(store, tasks), Replica(store, tasks)
    await ending.instances.tick()
    ending.link.away = True
    ending.bus.publish(event("WORKSPACE_ONLINE", "w", {}))
    await ending.instances.leave()
    await survivor.instances.tick()
    assert await survivor.gaps() == ["instance_died"]
