"""The bus of one process without the gateway: it publishes, listens and probes, and one reader wants everything."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest

from events import redis
from events.bus import Bus, LinkDown
from events.event import PROBE, Event
from events.hub import Hub
from events.probe import Prober
from events.readers import Style, Wanted
from events.ring import Ring
from events.subscriber import State, Subscriber
from gateway.services.tasks import Tasks
from tests.harness.world import eventually

WORKSPACE = "00000000-0000-4000-8000-00000000000a"
PROBE_S = 0.4
STYLE = Style(
    name="words",
    block=lambda frame: b"%b;" % frame.event.payload,
    parts=lambda frame: [b"%b;" % frame.event.payload],
    wrap=lambda blocks: blocks,
    bus=lambda state: b"bus %b;" % state.encode(),
    gap=lambda reason, since, until, resync: b"gap %b %b %b;" % (reason.encode(), since.encode(), until.encode()),
)


def numbered(number: int) -> Event:
    """An event that is its number."""
    return Event(type="TASK_UPDATED", workspace_id=WORKSPACE, payload=b"%d" % number)


async def send_unanswered(link: redis.RedisBus, events: Sequence[Event], first_sequence: int) -> None:
    """Publish these; they are published, and the answer is lost."""
    answered = redis.ask

    async def unanswered(connection: object, *command: str | int | bytes) -> object:
        await answered(connection, *command)
        raise ConnectionError("lost on its way")

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(redis, "ask", unanswered)
        with pytest.raises(LinkDown):
            await link.send(events, first_sequence)


class Replica:
    """What runs, and what its reader was told."""

    def __init__(self, link: redis.RedisBus) -> None:
        self.link = link
        self.bus = Bus(link, capacity=10_000, capacity_bytes=10**8, retry_s=0.02)
        self.prober = Prober(self.bus.publish, every_s=PROBE_S, on_heard=lambda at: self.hub.confirm(at))
        self.ring = Ring(max_frames=1000, max_bytes=10**8)
        self.changes = 0
        self.hub = Hub(self.ring, on_sign=lambda _: None, on_change=self._change, taps={PROBE: self.prober.note})
        self.subscriber = Subscriber(link, self.hub, probe_s=PROBE_S, retry_s=lambda tries: min(0.01 * 2**tries, 0.2))
        self._said = b""

    def __repr__(self) -> str:
        return f"<Replica {self.subscriber.state} {self.words}>"

    def _change(self) -> None:
        self.changes += 1

    def write(self, blob: bytes) -> bool:
        self._said += blob
        return True

    def stir(self) -> None:
        raise AssertionError("this reader keeps up")

    @property
    def words(self) -> list[str]:
        """All that the reader was told, in order."""
        return self._said.decode().split(";")[:-1]

    @property
    def story(self) -> list[str]:
        """The same without the state of the bus: a slow start is one, too."""
        return [word for word in self.words if not word.startswith("bus ")]

    @property
    def state(self) -> str | None:
        """What the reader was told last of the state of the bus: it may come before the events that were missed."""
        return next((word for word in reversed(self.words) if word.startswith("bus ")), None)

    @property
    def numbers(self) -> list[int]:
        """The events that it was told of."""
        return [int(word) for word in self.words if word.isdigit()]

    @property
    def gaps(self) -> list[str]:
        """The reasons of the losses that it was told of."""
        return [word.split()[1] for word in self.words if word.startswith("gap ")]

    @property
    def is_up(self) -> bool:
        return self.subscriber.state is State.UP

    def publish(self, *numbers: int) -> None:
        for number in numbers:
            self.bus.publish(numbered(number))

    async def heard(self, last: int, within_s: float = 10) -> None:
        """Wait until the reader was told of this event."""
        await eventually(lambda: last in self.numbers, within_s)

    async def blind_after(self) -> float:
        """Wait until it knows that it hears nothing; return the seconds that took."""
        began = time.monotonic()
        await eventually(lambda: not self.is_up)
        return time.monotonic() - began


@asynccontextmanager
async def replica(
    url: str, prefix: str, *, journal_length: int = 1000, max_frames: int = 1000
) -> AsyncIterator[Replica]:
    """One that runs; it need not be up yet."""
    async with Tasks() as tasks, redis.opened(url, prefix=prefix, journal_length=journal_length) as link:
        one = Replica(link)
        for work in (one.bus.run, one.prober.run, one.subscriber.run, one.subscriber.watch, one.hub.run):
            tasks.spawn(work(), work.__qualname__)
        with one.hub.subscribed(Wanted(), STYLE, one):
            yield one
            assert tasks.deaths == 0
