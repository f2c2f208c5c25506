"""Event streams for browsers: what has been missed, then what happens, for as long as somebody reads."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterable
from time import monotonic
from typing import Final

import structlog
from aiohttp import HttpVersion11, web

from events import frame, sse
from events.bodies import Bodies
from events.bus import Spawn, Stamp, unwatched
from events.hub import SLICE_S, SLICE_WRITES, Hub, NotLoaded
from events.readers import Style, Subscription, Wanted
from gateway.core.refusals import bad_field
from gateway.services.visibility import Reader, View, Visibility
from gateway.web import parse
from gateway.web.places import Places
from gateway.web.stream import Stream, take_over

log = structlog.get_logger("gateway.web.events")

HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-store, no-transform",
    "X-Accel-Buffering": "no",
}
RETRY_MS: Final = 2000
"""How long a browser waits before it connects again; up to as much again is added, so that not all come at once."""
SWEEP_S: Final = 1.0
STEP_S: Final = 0.01
"""Streams that end within this are ended together."""


def _chunk(blocks: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(blocks), blocks)


CHUNKED: Final = Style(name="sse", block=sse.block, parts=sse.parts, wrap=_chunk, bus=sse.bus, gap=sse.gap)
PLAIN: Final = Style(
    name="sse/1.0", block=sse.block, parts=sse.parts, wrap=lambda blocks: blocks, bus=sse.bus, gap=sse.gap
)
LAST_CHUNK: Final = b"0\r\n\r\n"


async def wait_for_cursor(hub: Hub, since: str) -> None:
    """Wait a moment if this replica is behind the one that a reader comes from; NotLoaded: it knows nothing yet."""
    place = frame.find_position(since)
    if place is not None and hub.ring.newest < place:
        await hub.reached(place)


def resume(hub: Hub, subscription: Subscription, since: str) -> bytes:
    """Go back to where the reader was; or return the block that tells that something is missing, and go on from now."""
    place = frame.find_position(since)
    if place is not None and hub.ring.covers(place):
        subscription.rewind(place)
        return b""
    return subscription.gap("trimmed" if place is not None and place < hub.ring.floor else "unknown_id", since)


async def end_spread(streams: Iterable[Reader], spread_s: float) -> None:
    """End them in any order, evenly over these seconds, so that their readers do not all come back at once."""
    ending = list(streams)
    random.shuffle(ending)
    began = monotonic()
    for number, stream in enumerate(ending):
        early_s = began + spread_s * number / len(ending) - monotonic()
        if early_s > STEP_S:
            await asyncio.sleep(early_s)
        stream.end()


async def in_slices(streams: Iterable[Stream]) -> AsyncIterator[Stream]:
    """Go through streams that are written to, and let the loop turn now and then."""
    began = monotonic()
    for number, stream in enumerate(streams, 1):
        yield stream
        if number % SLICE_WRITES == 0 or monotonic() - began > SLICE_S:
            await asyncio.sleep(0)
            began = monotonic()


class EventStreams:
    """All event streams of this process, and what they share (stream.Keeper).

    `places` bound them, `keepalive_s` their silence; drain_s: how long a reader may take nothing of what waits.
    """

    def __init__(
        self,
        hub: Hub,
        bodies: Bodies,
        visibility: Visibility,
        spawn: Spawn,
        *,
        places: Places,
        keepalive_s: float,
        drain_s: float,
    ) -> None:
        self._hub = hub
        self._bodies = bodies
        self._spawn = spawn
        self._visibility = visibility
        self._places = places
        self._keepalive_s = keepalive_s
        self._drain_s = drain_s
        self._open: dict[Stream, None] = {}
        self._behind: dict[Stream, None] = {}
        self._some = asyncio.Event()
        self._closed = False
        self.now = monotonic()

    def __repr__(self) -> str:
        return f"<EventStreams open={len(self._open)}>"

    def __len__(self) -> int:
        return len(self._open)

    async def serve(self, request: web.Request, view: View, types: frozenset[str] | None = None) -> web.StreamResponse:
        """Begin a stream of what the view shows, events of these types (None: all); it goes on after this returns."""
        response = web.StreamResponse(headers=HEADERS)
        response.force_close()  # nothing can come after a stream on its connection
        opening = sse.retry(RETRY_MS + random.randrange(RETRY_MS))  # noqa: S311 - spreads clients, keeps no secret
        await response.prepare(request)
        if self._closed or not self._places.take():  # a native EventSource comes back after a 200 only
            await response.write(opening)
            return response
        chunked = request.version >= HttpVersion11
        style = CHUNKED if chunked else PLAIN
        stream = Stream(self, end=LAST_CHUNK if chunked else b"")
        if not take_over(request, stream):
            self._places.free()
            return response
        self._open[stream] = None
        stream.bound_silence(self._drain_s)
        stream.write(style.wrap(opening + sse.OPENING))
        wanted = Wanted(workspaces=view.workspaces, types=types, resync=view.resync)
        stream.subscription = self._hub.subscribe(wanted, style, stream)
        self._visibility.keep(view, stream)
        since = parse.last_event_id(request)
        if since is not None:
            await self._resume(stream, since)
        return response

    async def _resume(self, stream: Stream, since: str) -> None:
        """Hold a stream until it is known what its reader has missed, and let it go on from there."""
        stream.hold()
        try:
            await wait_for_cursor(self._hub, since)
        except NotLoaded:
            stream.end()
        if stream.subscription is None:  # it has ended meanwhile
            return
        gap = resume(self._hub, stream.subscription, since)
        if gap:
            stream.write_block(gap)
        stream.give(())
        self.stir(stream)

    # -- from the streams

    def stir(self, stream: Stream) -> None:
        """Let a stream pull, in its turn."""
        self._behind[stream] = None
        self._some.set()

    def fetch(self, stream: Stream, due: frame.Frame) -> None:
        """Bring a stream the parts of a large event, which are elsewhere."""
        self._spawn(self._bring(stream, due), "streams:bring")

    async def _bring(self, stream: Stream, due: frame.Frame) -> None:
        parts = await self._bodies.parts(due, CHUNKED)  # a plain one has the same
        stream.give(parts)
        self.stir(stream)

    def leave(self, stream: Stream) -> None:
        """Have nothing more written to a stream."""
        self._behind.pop(stream, None)
        subscription, stream.subscription = stream.subscription, None
        if subscription is not None:
            self._hub.leave(subscription)
            self._visibility.forget(stream)

    def lose(self, stream: Stream) -> None:
        """Let go of a stream whose connection is closed."""
        self.leave(stream)
        if stream in self._open:
            del self._open[stream]
            self._places.free()

    # -- what turns

    async def feed(self, stamp: Stamp = unwatched) -> None:
        """Pull for those who do not keep up, a piece for each in its turn, for ever."""
        while True:
            stamp(idle=True)
            await self._some.wait()
            stamp()
            self._some.clear()
            behind, self._behind = self._behind, {}
            async for stream in in_slices(behind):
                try:
                    more = stream.pull()
                except Exception:  # a bug of ours: it ends this reader, who may come back, and nobody else
                    log.exception("reader_broke")
                    stream.abort()
                    continue
                if more:
                    self.stir(stream)
            await asyncio.sleep(0)

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Once a second: let go of readers that take nothing, and keep the silent ones alive."""
        while True:
            stamp()
            await asyncio.sleep(SWEEP_S)
            self.now = monotonic()
            async for stream in in_slices(list(self._open)):
                if stream.is_stuck(self._drain_s):
                    stream.abort()
                elif stream.is_silent(self._keepalive_s):
                    stream.write_block(sse.keep_alive(frame.show(self._hub.ring.newest)))

    async def close(self, spread_s: float = 0.0) -> None:
        """End every stream, spread over these seconds: browsers go elsewhere. New ones are sent away at once."""
        self._closed = True
        await end_spread(self._open, spread_s)

    # -- handlers

    async def of_one(self, request: web.Request) -> web.StreamResponse:
        """Show what happens in one workspace."""
        named = frozenset({parse.workspace_id(request)})
        types = parse.event_types(request)
        if "workspace" in request.query:
            raise bad_field("workspace", "is named by the path; /events/stream takes several")
        return await self.serve(request, await self._visibility.look(parse.principal(request), named), types)

    async def of_all(self, request: web.Request) -> web.StreamResponse:
        """Show what happens in all workspaces that the caller may see, or in those it names."""
        types = parse.event_types(request)
        view = await self._visibility.look(parse.principal(request), parse.workspace_ids(request))
        return await self.serve(request, view, types)


async def stream_of_one(request: web.Request) -> web.StreamResponse:
    """Show what happens in one workspace."""
    return await request.app[STREAMS].of_one(request)


async def stream_of_all(request: web.Request) -> web.StreamResponse:
    """Show what happens everywhere."""
    return await request.app[STREAMS].of_all(request)


STREAMS: Final = web.AppKey("streams", EventStreams)
