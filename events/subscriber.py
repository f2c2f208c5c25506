"""Hearing everything: the one task that listens, notices what it has missed, and mends it or says so."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from enum import Enum
from time import monotonic
from typing import Final

import structlog

from events.bus import LinkDown, Stamp, unwatched
from events.event import GAP, gap
from events.frame import ORIGIN, Frame, MalformedFrame, before, parse, show
from events.hub import Hub
from events.redis import Ear, JournalUnavailable, RedisBus
from events.sequence import Verdict, judge

log = structlog.get_logger("events.subscriber")

PAST_MS: Final = 1000
"""What was published so long before this process began to listen is past; about anything later its clock may err."""
PROBES_MISSED: Final = 2
"""Probes that may be missed before a process counts itself as blind."""


class State(Enum):
    """How well this process hears."""

    UP = "up"
    BLIND = "blind"
    REPAIRING = "repairing"


class Subscriber:
    """Listens on one connection and gives every frame to the hub, in order and once.

    probe_s: how often a probe is due. retry_s: returns how long to wait before the next attempt, given their number.
    """

    def __init__(self, link: RedisBus, hub: Hub, *, probe_s: float, retry_s: Callable[[int], float]) -> None:
        self._link = link
        self._hub = hub
        self._probe_s = probe_s
        self._retry_s = retry_s
        self._ear: Ear | None = None
        self._said = ORIGIN
        self._heard_at = monotonic()
        self._down_at = monotonic()
        self._told = False
        self._born = monotonic()
        self.state = State.BLIND
        self.up = asyncio.Event()
        self.gaps = 0
        self.repairs = 0

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Listen, for ever."""
        attempts = 0
        while True:
            stamp()
            try:
                async with self._link.listening() as ear:
                    self._ear, self._said, self._heard_at = ear, ORIGIN, monotonic()
                    self._become(State.REPAIRING)
                    await self._catch_up()
                    while True:
                        stamp(idle=True)  # a connection on which nothing comes is cut by `watch`
                        raw = await ear.hear()
                        stamp()
                        self._heard_at = monotonic()
                        await self._take(raw)
                        if self.state is not State.UP:
                            attempts = 0
                            self._become(State.UP)
            except (LinkDown, JournalUnavailable) as error:
                log.warning("bus_down", error=type(error.__cause__ or error).__name__)
            except asyncio.CancelledError:  # ended on purpose: it hears nothing any more, and that is no news
                self.up.clear()
                self.state = State.BLIND
                raise
            finally:
                self._ear = None
                self._become(State.BLIND)
            await asyncio.sleep(self._retry_s(attempts))
            attempts += 1

    async def watch(self, stamp: Stamp = unwatched) -> None:
        """Cut a connection on which the probes do not come any more, for ever: it may be stalled without an error.

        Readers are told of a state that lasts; a connection that was lost and is back at once is nothing to them.
        """
        while True:
            stamp()
            await asyncio.sleep(self._probe_s / 4)
            if self.state is not State.UP and not self._told and monotonic() - self._down_at > self._probe_s / 2:
                self._told = True
                self._hub.tell("degraded")
            silent_s = monotonic() - self._heard_at
            if self._ear is not None and silent_s > (PROBES_MISSED + 0.25) * self._probe_s:
                log.warning("bus_silent", silent_s=round(silent_s, 1))
                self._become(State.BLIND)
                self._down_at = self._heard_at  # it has lasted for a while already
                self._ear.cut()
                self._ear = None

    def _become(self, state: State) -> None:
        if state is self.state:
            return
        if state is State.UP:
            self.up.set()
            if self._told:
                self._told = False
                self._hub.tell("ok")
        elif self.state is State.UP:
            self.up.clear()
            self._down_at = monotonic()
        log.info("bus_state", state=state.value)
        self.state = state

    async def _take(self, raw: bytes) -> None:
        try:
            frame = parse(raw)
        except MalformedFrame:
            log.warning("bus_malformed_frame", start=raw[:80])
            return
        ring = self._hub.ring
        verdict = judge(ring.newest, self._said, frame, ring.covers)
        if verdict is Verdict.DOUBT:
            self.repairs += 1
            await self._catch_up()
            verdict = judge(ring.newest, frame.prev, frame, ring.covers)
        self._said = frame.place or frame.prev
        self._link.know(ring.newest)
        if verdict is Verdict.NEXT or (verdict is Verdict.DOUBT and frame.place is None):
            self._hub.hear(frame)
        elif verdict is Verdict.DOUBT:  # the journal does not have it either: it was taken back at once
            log.warning("bus_frame_dropped", place=frame.id)

    async def _catch_up(self) -> None:
        """Hear from the journal what has come since; say so where it does not go on from what was heard last.

        A journal that has lost what was heard ends before it: whoever publishes next writes a gap there (publish.lua).
        """
        hub, ring = self._hub, self._hub.ring
        if not hub.loaded.is_set():
            await self._load()
            return
        async for frame in self._link.read(ring.newest):
            for one in self._following(frame):
                hub.hear(one)
        self._link.know(ring.newest)

    async def _load(self) -> None:
        """Fill the ring, all at once: nobody may read from one that is half full.

        What was published before this process began to listen is no news to its readers.
        """
        hub, ring = self._hub, self._hub.ring
        began_ms = await self._link.now_ms() - (monotonic() - self._born) * 1000
        frames = [frame async for frame in self._link.read(None)]
        ring.begin(frames[0].prev if frames else ORIGIN)
        for frame in frames:
            assert frame.place is not None, "it is in the journal"
            take = hub.load if frame.place[0] < began_ms - PAST_MS else hub.hear
            for one in self._following(frame):
                take(one)
        hub.end_load()
        self._link.know(ring.newest)

    def _following(self, frame: Frame) -> list[Frame]:
        """Return the journal's next entry as one that follows what was heard last, after a gap where it does not."""
        newest = self._hub.ring.newest
        if frame.prev == newest:
            return [frame]
        assert frame.place is not None, "it is in the journal"
        if frame.event.type == GAP:  # it says by itself that something is missing
            return [replace(frame, prev=newest)]
        self.gaps += 1
        reason, until = "missing", frame.prev
        if until < newest:
            reason, until = "taken_back", before(frame.place)
        log.error("bus_gap", reason=reason, since=show(newest), until=show(until))
        if until == newest:  # no room for a gap between the two: this one is counted as lost
            return [replace(frame, prev=newest, event=gap(reason))]
        return [Frame(place=until, prev=newest, event=gap(reason)), replace(frame, prev=until)]
