"""How events leave a process: at once for the one who publishes, in order and in batches for Redis."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

import structlog

from events.event import Event, gap

log = structlog.get_logger("events.bus")

BATCH: Final = 256
"""Events sent to Redis in one round trip ..."""
BATCH_BYTES: Final = 1024 * 1024
"""... and what their payloads may come to, or one event alone: a batch that takes too long is sent again, for ever."""

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
"""Starts a task that somebody owns: the coroutine, and a name for it."""


class Stamp(Protocol):
    """Says that a loop turns: who watches it sees by that that it does not hang."""

    def __call__(self, *, idle: bool = False) -> None:
        """Say so; `idle`: it waits for what may never come, so that no next stamp is due."""


def unwatched(*, idle: bool = False) -> None:
    """The stamp of a loop that nobody watches."""


class LinkDown(Exception):
    """Redis did not take the batch, or its answer was lost; the same batch may be sent again."""


class Link(Protocol):
    """The way to Redis. `publisher`: under which name it publishes, that no other has."""

    publisher: str

    async def send(self, events: Sequence[Event], first_sequence: int) -> None:
        """Publish these, in order, the first under this number; may be repeated with the same. Raises LinkDown."""

    async def has_taken(self, publisher: str, count: int) -> bool:
        """Return whether Redis has had so many events of this publisher. Raises LinkDown."""


class Bus:
    """Publishes events in the order in which they were given, without making anybody wait.

    While Redis is away at most `capacity` events, of at most `capacity_bytes`, wait. Those that are state and not
    history (heartbeats, probes) do not wait at all: the next one says it again. What else does not fit ends as one GAP
    entry in its place, and is counted in `dropped`.
    """

    def __init__(self, link: Link, *, capacity: int, capacity_bytes: int, retry_s: float = 0.2) -> None:
        self._link = link
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._retry_s = retry_s
        self._waiting: deque[Event] = deque()
        self._waiting_bytes = 0
        self._batch: list[Event] = []
        """Taken from those that wait, and not yet known to have arrived; nothing is dropped from it any more."""
        self._sequence = 0  # of the batch's first event
        self._hole = False
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.away = False
        self.dropped = 0
        self.failures = 0

    def __len__(self) -> int:
        return len(self._batch) + len(self._waiting)

    def __repr__(self) -> str:
        return f"<Bus waiting={len(self)} dropped={self.dropped} away={self.away}>"

    @property
    def publisher(self) -> str:
        """The name under which this process publishes."""
        return self._link.publisher

    @property
    def count(self) -> int:
        """How many events Redis has had from this process once all that wait have been sent."""
        return self._sequence + len(self)

    async def has_taken(self, publisher: str, count: int) -> bool:
        """Return whether Redis has had so many events of a process that published under this name; raises LinkDown."""
        return await self._link.has_taken(publisher, count)

    def publish(self, event: Event) -> None:
        """Hand an event over; never waits, never raises."""
        full = len(self) >= self._capacity or self._waiting_bytes >= self._capacity_bytes
        if not event.journalled:
            if not (self.away or full):
                self._put(event)
        elif full:
            self.dropped += 1
            self._hole = True
        else:
            self._fill_hole()
            self._put(event)

    def _put(self, event: Event) -> None:
        self._waiting.append(event)
        self._waiting_bytes += event.size_bytes
        self._idle.clear()
        self._wake.set()

    def _fill_hole(self) -> None:
        """Put a gap where events were dropped: before the next one that fits, or after all the others."""
        if self._hole:
            self._hole = False
            self._put(gap("overflow"))

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Send what waits, for ever; a batch that failed is sent again, under the same numbers, before any other."""
        while True:
            while self:  # at first: what an earlier run has left
                stamp()
                await self._send()
                if not self:
                    self._fill_hole()
            self._idle.set()
            stamp(idle=True)
            await self._wake.wait()
            self._wake.clear()

    async def _send(self) -> None:
        """Send one batch, or wait a while after having tried."""
        if not self._batch:
            self._batch = self._take_batch()
        try:
            await self._link.send(self._batch, self._sequence)
        except LinkDown as error:
            self.failures += 1
            self._go_away(error)
            await asyncio.sleep(self._retry_s)
            return
        if self.away:
            self.away = False
            log.warning("bus_sends_again", waiting=len(self))
        self._sequence += len(self._batch)
        self._batch = []

    def _take_batch(self) -> list[Event]:
        batch = [self._waiting.popleft()]
        size = batch[0].size_bytes
        while self._waiting and len(batch) < BATCH and size + self._waiting[0].size_bytes <= BATCH_BYTES:
            batch.append(self._waiting.popleft())
            size += batch[-1].size_bytes
        self._waiting_bytes -= size
        return batch

    def _go_away(self, error: LinkDown) -> None:
        """Redis has gone: what is state and not history would be old when it is back."""
        if not self.away:
            self.away = True
            log.warning("bus_does_not_send", waiting=len(self), error=repr(error.__cause__ or error))
            self._waiting = deque(event for event in self._waiting if event.journalled)
            self._waiting_bytes = sum(event.size_bytes for event in self._waiting)

    async def drain(self, within_s: float) -> bool:
        """Wait until all has been sent; False if it was not within that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        return not self
