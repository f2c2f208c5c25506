"""Who hears what in this process: at once for those who keep up, from the ring for those who do not."""

import asyncio
import math
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from itertools import chain
from time import monotonic
from typing import Final

import structlog

from events.bus import Stamp, unwatched
from events.event import CHANGED, EVERYWHERE, PROBE
from events.frame import Frame, Position
from events.readers import OK, Channel, Sink, Style, Subscription, Wanted
from events.ring import Ring

log = structlog.get_logger("events.hub")

COALESCE_S: Final = 0.01
"""Writes to one reader are at least this far apart: what happens meanwhile goes out together."""
SLICE_S: Final = 0.002
"""The longest that writing to readers keeps the loop from everything else ..."""
SLICE_WRITES: Final = 250
"""... and how many writes are made in one turn: the loop itself may put them off to the turn's end (uvloop does)."""
LOAD_S: Final = 30.0
"""How long a reader who comes back is held until all is heard that it may know; then it may come back once more."""


class NotLoaded(ConnectionError):
    """What has happened so far is not known here yet: nobody can say what a reader has missed."""


class Hub:
    """The readers of one process, and the ring they read from.

    on_sign hears every sign of life, on_change every wake-up for caches, and each of `taps` all events of one type.
    """

    def __init__(
        self,
        ring: Ring,
        *,
        on_sign: Callable[[str], None],
        on_change: Callable[[], None],
        taps: Mapping[str, Callable[[Frame], None]] | None = None,
    ) -> None:
        self.ring = ring
        self._told = OK
        self._on_sign = on_sign
        self._on_change = on_change
        self._taps = dict(taps or {})
        self._channels: dict[tuple[Wanted, str], Channel] = {}
        self._by_workspace: dict[str, dict[Channel, None]] = {}
        self._of_all: dict[Channel, None] = {}
        self._changed: dict[Channel, None] = {}
        self._some = asyncio.Event()
        self._advanced = asyncio.Event()
        self._confirmed = -math.inf
        self.loaded = asyncio.Event()
        """Set once the ring holds what had happened before this process began to listen."""
        self.readers = 0
        self.fallen_behind = 0

    def __repr__(self) -> str:
        return f"<Hub readers={self.readers} channels={len(self._channels)} ring={self.ring!r}>"

    @property
    def lagging(self) -> int:
        """Readers that do not keep up."""
        return self.readers - sum(len(channel.current) for channel in self._channels.values())

    def is_read(self, workspace_id: str, types: Collection[str]) -> bool:
        """Return whether anybody here reads events of a workspace, of any of these types."""
        channels = chain(self._by_workspace.get(workspace_id, ()), self._of_all)
        return any(one.wanted.types is None or not one.wanted.types.isdisjoint(types) for one in channels)

    # -- readers

    @contextmanager
    def subscribed(self, wanted: Wanted, style: Style, sink: Sink) -> Iterator[Subscription]:
        """Let a reader hear what it wants for as long as the block lasts."""
        subscription = self.subscribe(wanted, style, sink)
        try:
            yield subscription
        finally:
            self.leave(subscription)

    def subscribe(self, wanted: Wanted, style: Style, sink: Sink) -> Subscription:
        """Let a reader hear what it wants until it leaves; it begins in the present."""
        key = (wanted, style.name)
        channel = self._channels.get(key)
        if channel is None:
            channel = self._channels[key] = self._open(wanted, style)
        subscription = Subscription(channel, sink)
        channel.subscriptions[subscription] = None
        subscription.keep_up()
        subscription.tell()
        self.readers += 1
        return subscription

    def leave(self, subscription: Subscription) -> None:
        """Write nothing more to a reader."""
        channel = subscription.channel
        self.readers -= 1
        channel.current.pop(subscription, None)
        del channel.subscriptions[subscription]
        if not channel.subscriptions:
            self._close(channel)

    def _open(self, wanted: Wanted, style: Style) -> Channel:
        channel = Channel(self.ring, wanted, style)
        channel.told = self._told
        if wanted.workspaces is None:
            self._of_all[channel] = None
        else:
            for workspace_id in wanted.workspaces:
                self._by_workspace.setdefault(workspace_id, {})[channel] = None
        return channel

    def _close(self, channel: Channel) -> None:
        del self._channels[channel.wanted, channel.style.name]
        self._changed.pop(channel, None)
        self._of_all.pop(channel, None)
        for workspace_id in channel.wanted.workspaces or ():
            channels = self._by_workspace[workspace_id]
            del channels[channel]
            if not channels:
                del self._by_workspace[workspace_id]
        channel.close()

    async def reached(self, place: Position) -> bool:
        """Wait until this process has heard of a place that a reader knows from elsewhere; False if there is none such.

        Whoever knows a place has it from the journal: it is waited for until all has been heard that was there when
        this was asked. Raises NotLoaded if that takes longer than LOAD_S.
        """
        asked = monotonic()
        try:
            async with asyncio.timeout(LOAD_S):
                await self.loaded.wait()
                while self.ring.newest < place and self._confirmed <= asked:
                    self._advanced.clear()
                    await self._advanced.wait()
        except TimeoutError:
            raise NotLoaded from None
        return self.ring.newest >= place

    def confirm(self, at: float) -> None:
        """Learn that all has been heard that was in the journal at this time, on the monotonic clock."""
        self._confirmed = at
        self._advanced.set()

    # -- frames

    def load(self, frame: Frame) -> None:
        """Take the next frame of the past: kept for who comes back, but nothing that happens now; then `end_load`."""
        self.ring.append(frame)
        tap = self._taps.get(frame.event.type)
        if tap is not None:
            tap(frame)

    def end_load(self) -> None:
        """Answer who waits for the past: to those who came without an id, what was loaded counts as served."""
        for channel in self._channels.values():
            channel.settle()
        self.loaded.set()
        self._advanced.set()

    def hear(self, frame: Frame) -> None:
        """Take the next frame."""
        event = frame.event
        if frame.place is not None:
            self.ring.append(frame)
            self._advanced.set()
        tap = self._taps.get(event.type)
        if tap is not None:
            tap(frame)
        if event.type == PROBE:
            return
        if event.type == CHANGED:
            self._on_change()
            return
        if event.sign:
            self._on_sign(event.workspace_id)
        if event.workspace_id == EVERYWHERE:
            self._on_change()
            for channel in self._channels.values():
                self._put(channel, frame)
        else:
            for channel in self._by_workspace.get(event.workspace_id, ()):
                self._put(channel, frame)
            for channel in self._of_all:
                self._put(channel, frame)

    def _put(self, channel: Channel, frame: Frame) -> None:
        if channel.wanted.has(frame):
            channel.window.append(frame)
            self._changed[channel] = None
            self._some.set()

    def tell(self, state: str) -> None:
        """Tell every reader of the state of the bus (`ok` or `degraded`), those to come as well."""
        self._told = state
        for channel in self._channels.values():
            channel.told = state
            for subscription in list(channel.subscriptions):
                subscription.tell()

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Write to those who keep up, for ever: at once, but not twice within COALESCE_S."""
        while True:
            stamp(idle=True)
            await self._some.wait()
            stamp()
            await self.tick()
            await asyncio.sleep(COALESCE_S)

    async def tick(self) -> None:
        """Write what has come to those who keep up."""
        self._some.clear()
        changed, self._changed = self._changed, {}
        try:
            while changed:
                channel = next(iter(changed))
                del changed[channel]
                channel.being_served = True
                try:
                    await self._serve(channel)
                finally:
                    channel.being_served = False
        finally:
            if changed:  # the others have their turn when this loop is started again
                self._changed = changed | self._changed
                self._some.set()

    def _frame(self, channel: Channel) -> bytes | None:
        """What those who keep up get; None if each has to pull it, by itself."""
        try:
            return channel.take_window()
        except Exception:  # a bug of ours: whoever pulls the same ends, and may come back; nobody misses it unawares
            log.exception("window_broke")
            return None

    async def _serve(self, channel: Channel) -> None:
        begins, before = channel.served, channel.reached
        blob = self._frame(channel)
        served, newest = channel.served, channel.newest
        began = monotonic()
        for number, subscription in enumerate(list(channel.current), 1):
            if not subscription.keeps_up or subscription not in channel.subscriptions:
                continue  # it fell behind, or left, while others were written to
            if subscription.joined > begins:
                subscription.rejoin()
                subscription.sink.stir()
            elif blob is None:
                subscription.fall_behind(begins, before)
                subscription.sink.stir()
            elif not subscription.sink.write(blob):
                subscription.fall_behind(served, newest)
                self.fallen_behind += 1
                subscription.sink.stir()
            if number % SLICE_WRITES == 0 or monotonic() - began > SLICE_S:
                await asyncio.sleep(0)
                began = monotonic()
