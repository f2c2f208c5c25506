"""How events leave a process: at once for the one who publishes, in order and in batches for Redis."""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Final, Protocol

import structlog

from events.event import Event

log = structlog.get_logger("events.bus")

BATCH: Final = 256
"""Events sent to Redis in one round trip."""

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
"""Starts a task that somebody owns: the coroutine, and a name for it."""


class LinkDown(Exception):
    """Redis did not take the batch, or its answer was lost; the same batch may be sent again."""


class Link(Protocol):
    """The way to Redis."""

    async def send(self, events: Sequence[Event], first_sequence: int) -> None:
        """Publish these, in order, the first under this number; may be repeated with the same. Raises LinkDown."""


class Bus:
    """Publishes events in the order in which they were given, without making anybody wait.

    While Redis is away the newest `capacity` events wait; what does not fit is dropped, heartbeats and wake-ups first
    (they are state, not history), and counted in `dropped`.
    """

    def __init__(self, link: Link, *, capacity: int, retry_s: float = 0.2) -> None:
        self._link = link
        self._capacity = capacity
        self._retry_s = retry_s
        self._waiting: deque[Event] = deque()
        self._sequence = 0  # of the first event in _waiting
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._in_batch = 0
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<Bus waiting={len(self._waiting)} dropped={self.dropped}>"

    def publish(self, event: Event) -> None:
        """Hand an event over; never waits, never raises."""
        if len(self._waiting) >= self._capacity and not self._make_room(event):
            self.dropped += 1
            return
        self._waiting.append(event)
        self._idle.clear()
        self._wake.set()

    def _make_room(self, event: Event) -> bool:
        """Full: let go of the oldest event that is state and not history, for one that is; never of one being sent."""
        if not event.journalled:
            return False
        for place in range(self._in_batch, len(self._waiting)):
            if not self._waiting[place].journalled:
                del self._waiting[place]
                self.dropped += 1
                return True
        return False

    async def run(self) -> None:
        """Send what waits, for ever; a batch that failed is sent again, under the same numbers, before any other."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                batch = [self._waiting[i] for i in range(min(BATCH, len(self._waiting)))]
                self._in_batch = len(batch)
                try:
                    await self._link.send(batch, self._sequence)
                except LinkDown as error:
                    log.warning(
                        "bus_send_failed", waiting=len(self._waiting), error=type(error.__cause__ or error).__name__
                    )
                    await asyncio.sleep(self._retry_s)
                    continue
                for _ in batch:
                    self._waiting.popleft()
                self._sequence += len(batch)
                self._in_batch = 0
            self._idle.set()

    async def drain(self, within_s: float) -> bool:
        """Wait until all has been sent; False if it was not within that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        return not self._waiting
