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
        self._batch: list[Event] = []
        """Taken from those that wait, and not yet known to have arrived; nothing is dropped from it any more."""
        self._sequence = 0  # of the batch's first event
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self.dropped = 0

    def __len__(self) -> int:
        return len(self._batch) + len(self._waiting)

    def __repr__(self) -> str:
        return f"<Bus waiting={len(self)} dropped={self.dropped}>"

    def publish(self, event: Event) -> None:
        """Hand an event over; never waits, never raises."""
        if len(self) >= self._capacity and not self._make_room(event):
            self.dropped += 1
            return
        self._waiting.append(event)
        self._idle.clear()
        self._wake.set()

    def _make_room(self, event: Event) -> bool:
        """Full: let go of the oldest event that is state and not history, for one that is."""
        if not event.journalled:
            return False
        for place, waiting in enumerate(self._waiting):
            if not waiting.journalled:
                del self._waiting[place]
                self.dropped += 1
                return True
        return False

    async def run(self) -> None:
        """Send what waits, for ever; a batch that failed is sent again, under the same numbers, before any other."""
        while True:
            while self:  # at first: what an earlier run has left
                await self._send()
            self._idle.set()
            await self._wake.wait()
            self._wake.clear()

    async def _send(self) -> None:
        """Send one batch, or wait a while after having tried."""
        if not self._batch:
            self._batch = [self._waiting.popleft() for _ in range(min(BATCH, len(self._waiting)))]
        try:
            await self._link.send(self._batch, self._sequence)
        except LinkDown as error:
            log.warning("bus_send_failed", waiting=len(self), error=type(error.__cause__ or error).__name__)
            await asyncio.sleep(self._retry_s)
            return
        self._sequence += len(self._batch)
        self._batch = []

    async def drain(self, within_s: float) -> bool:
        """Wait until all has been sent; False if it was not within that time."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._idle.wait()
        return not self
