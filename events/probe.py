"""Probes: sent on the way of all events, so that who hears none knows that it hears nothing."""

import asyncio
import secrets
from collections.abc import Callable
from time import monotonic

import orjson

from events.bus import Stamp, unwatched
from events.event import Event, probe
from events.frame import Frame


class Prober:
    """Publishes a probe every `every_s`. `latency_s`: how long the last one took to come back, None before.

    on_heard: told when a probe has come back, and with it all that was published before: the time at which it was sent,
    on the monotonic clock.
    """

    def __init__(
        self, publish: Callable[[Event], None], *, every_s: float, on_heard: Callable[[float], None] = lambda _: None
    ) -> None:
        self._publish = publish
        self._on_heard = on_heard
        self._every_s = every_s
        self._me = secrets.token_hex(8)
        self._sent: dict[int, float] = {}
        self._number = 0
        self.latency_s: float | None = None

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Probe for ever."""
        while True:
            stamp()
            self._number += 1
            self._sent[self._number] = monotonic()
            self._sent.pop(self._number - 100, None)  # it was lost
            self._publish(probe(self._me, self._number))
            await asyncio.sleep(self._every_s)

    def note(self, frame: Frame) -> None:
        """Take a probe that was heard."""
        said = orjson.loads(frame.event.payload)
        sent_at = self._sent.pop(said["number"], None) if said["by"] == self._me else None
        if sent_at is not None:
            self.latency_s = monotonic() - sent_at
            self._on_heard(sent_at)
