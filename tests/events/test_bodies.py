"""Wholes, fetched once for many readers, and held within bounds."""

import asyncio
from dataclasses import dataclass, field

import pytest

from events.bodies import Bodies
from events.event import MAX_PAYLOAD_BYTES, event
from events.frame import Frame
from events.readers import Style
from gateway.services.tasks import Tasks

HERE = "00000000-0000-4000-8000-00000000000a"


def cut(payload: bytes, size: int = 100_000) -> list[bytes]:
    return [payload[at : at + size] for at in range(0, len(payload), size)]


STYLE = Style(
    name="plain",
    block=lambda one: one.event.payload,
    parts=lambda one: cut(one.event.payload),
    wrap=lambda blocks: blocks,
    bus=lambda state: state.encode(),
    gap=lambda *words: " ".join(words).encode(),
)
OTHER = Style(
    name="other",
    block=STYLE.block,
    parts=lambda one: [one.event.payload],
    wrap=STYLE.wrap,
    bus=STYLE.bus,
    gap=STYLE.gap,
)


@dataclass
class Store:
    """Where wholes are; it answers when it is let."""

    wholes: dict[str, bytes] = field(default_factory=dict)
    fetched: list[str] = field(default_factory=list)
    open: asyncio.Event = field(default_factory=asyncio.Event)
    away: bool = False

    def __post_init__(self) -> None:
        self.open.set()

    async def fetch(self, reference: str) -> bytes | None:
        self.fetched.append(reference)
        await self.open.wait()
        if self.away:
            raise LookupError
        return self.wholes.get(reference)

    def large(self, number: int, size: int = 200_000) -> Frame:
        """A large event, as it is heard; its whole is here."""
        told = event("A2A_RESPONSE", HERE, {"number": number, "text": "x" * size})
        assert told.whole is not None
        assert told.reference is not None
        self.wholes[told.reference] = told.whole
        heard = event("A2A_RESPONSE", HERE, {})
        heard = type(heard)(type=heard.type, workspace_id=HERE, payload=told.payload)
        return Frame(place=(number, 0), prev=(number - 1, 0), event=heard)

    def whole_of(self, frame: Frame) -> bytes:
        return self.wholes[frame.event.reference or ""]


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def tasks():
    async with Tasks() as tasks:
        yield tasks
    assert tasks.deaths == 0


async def test_many_readers_and_styles_share_one_fetch(store, tasks):
    bodies = Bodies(store.fetch, tasks.spawn, max_bytes=10**7)
    frame = store.large(1)
    assert len(frame.event.payload) <= MAX_PAYLOAD_BYTES
    store.open.clear()
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(bodies.parts(frame, STYLE if one % 2 else OTHER)) for one in range(100)]
        await asyncio.sleep(0)
        store.open.set()
    assert {b"".join(one.result()) for one in asked} == {store.whole_of(frame)}
    assert len(store.fetched) == bodies.fetched == 1
    assert bodies.missed == 0
    assert await bodies.parts(frame, STYLE) is await bodies.parts(frame, STYLE)


async def test_a_reader_that_leaves_while_it_is_fetched_takes_it_from_nobody(store, tasks):
    bodies = Bodies(store.fetch, tasks.spawn, max_bytes=10**7)
    frame = store.large(1)
    store.open.clear()
    async with Tasks() as readers:
        first = readers.spawn(_read(bodies, frame), "first")
        second = readers.spawn(_read(bodies, frame), "second")
        await asyncio.sleep(0)
        first.cancel()
        store.open.set()
        await second
    assert len(store.fetched) == 1
    assert b"".join(await bodies.parts(frame, STYLE)) == store.whole_of(frame)


async def _read(bodies: Bodies, frame: Frame) -> None:
    await bodies.parts(frame, STYLE)


async def test_what_is_gone_arrives_cut_short_and_is_asked_for_once(store, tasks):
    bodies = Bodies(store.fetch, tasks.spawn, max_bytes=10**7)
    frame = store.large(1)
    store.wholes.clear()
    for _ in range(3):
        assert await bodies.parts(frame, STYLE) == [frame.event.payload]
    assert len(store.fetched) == 1
    assert bodies.missed == 3


@pytest.mark.parametrize("away", [True, False])
async def test_what_cannot_be_fetched_now_arrives_cut_short_and_is_asked_for_again(store, tasks, away, monkeypatch):
    monkeypatch.setattr("events.bodies.FETCH_S", 0.05)
    bodies = Bodies(store.fetch, tasks.spawn, max_bytes=10**7)
    frame = store.large(1)
    store.away = away
    if not away:
        store.open.clear()
    assert await bodies.parts(frame, STYLE) == [frame.event.payload]
    store.away = False
    store.open.set()
    assert b"".join(await bodies.parts(frame, STYLE)) == store.whole_of(frame)


async def test_what_is_held_stays_within_its_bounds(store, tasks, monkeypatch):
    monkeypatch.setattr("events.bodies.MAX_KNOWN", 4)
    bodies = Bodies(store.fetch, tasks.spawn, max_bytes=1_000_000)
    frames = [store.large(number) for number in range(10)]
    for frame in frames:
        await bodies.parts(frame, STYLE)
        assert bodies.bytes <= 1_000_000
    await bodies.parts(frames[-1], STYLE)
    assert len(store.fetched) == 10
    await bodies.parts(frames[0], STYLE)
    assert len(store.fetched) == 11
