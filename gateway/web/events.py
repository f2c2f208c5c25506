"""Event streams for browsers: what has been missed, then what happens, for as long as somebody reads."""

import asyncio
import random
from time import monotonic
from typing import Final

import structlog
from aiohttp import HttpVersion11, web

from events import frame, sse
from events.hub import Hub, Style, Subscription, Wanted
from gateway.services.visibility import Visibility
from gateway.web import parse

log = structlog.get_logger("gateway.web.events")

HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-store, no-transform",
    "X-Accel-Buffering": "no",
}
RETRY_MS: Final = 2000
"""How long a browser waits before it connects again; up to as much again is added, so that not all come at once."""
BUFFER_BYTES: Final = 64 * 1024
"""A reader with more than this unread does not keep up: it is fed from the ring, as fast as it reads."""
DRAIN_S: Final = 30.0
"""A reader that takes nothing for this long is let go; it may come back with its last id."""
REACH_S: Final = 5.0
"""How long a reader is held that knows more than this process does yet."""
SWEEP_S: Final = 1.0


def _chunk(blocks: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(blocks), blocks)


CHUNKED: Final = Style(name="sse", block=sse.block, wrap=_chunk, bus=sse.bus, gap=sse.gap)
PLAIN: Final = Style(name="sse/1.0", block=sse.block, wrap=lambda blocks: blocks, bus=sse.bus, gap=sse.gap)


class Stream:
    """One reader's transport (hub.Sink)."""

    def __init__(self, request: web.Request, style: Style) -> None:
        self._request = request
        self._style = style
        self._stirred = asyncio.Event()
        self.last_write = monotonic()
        self.ended = False

    @property
    def gone(self) -> bool:
        """Whether nobody is at the other end any more."""
        transport = self._request.transport
        return transport is None or transport.is_closing()

    def write(self, blob: bytes) -> bool:
        """Write at once; False if more is unread than a reader that keeps up may have."""
        transport = self._request.transport
        if self.ended or transport is None or transport.is_closing():
            self.end()
            return True
        transport.write(blob)
        self.last_write = monotonic()
        return transport.get_write_buffer_size() <= BUFFER_BYTES

    def write_block(self, block: bytes) -> None:
        """Write a block of this reader's own."""
        self.write(self._style.wrap(block))

    def stir(self) -> None:
        """Wake the handler: there is something to pull, or the end has come."""
        self._stirred.set()

    def end(self) -> None:
        """End the stream; a reader that comes back resumes."""
        self.ended = True
        self._stirred.set()

    def abort(self) -> None:
        """End the stream of a reader that does not read, with what still waits for it."""
        if self._request.transport is not None:
            self._request.transport.abort()
        self.end()

    async def stirred(self) -> None:
        """Wait until there is something to do."""
        await self._stirred.wait()
        self._stirred.clear()


async def resume(hub: Hub, stream: Stream, subscription: Subscription, since: str) -> None:
    """Go back to where the reader was, or tell it that something is missing and go on in the present."""
    subscription.hold()
    place = frame.find_position(since)
    if place is not None:
        # this replica may be a moment behind the one that the reader comes from
        if hub.ring.newest < place:
            await hub.reached(place, REACH_S)
        if hub.ring.covers(place):
            subscription.rewind(place)
            return
    reason = "trimmed" if place is not None and place < hub.ring.floor else "unknown_id"
    stream.write_block(subscription.gap(reason, since))


class EventStreams:
    """All event streams of this process. `capacity` bounds them, `keepalive_s` their silence."""

    def __init__(self, hub: Hub, visibility: Visibility, *, capacity: int, keepalive_s: float) -> None:
        self._hub = hub
        self._visibility = visibility
        self._capacity = capacity
        self._keepalive_s = keepalive_s
        self._open: dict[Stream, Subscription] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<EventStreams open={len(self._open)}>"

    def __len__(self) -> int:
        return len(self._open)

    async def serve(self, request: web.Request, wanted: Wanted) -> web.StreamResponse:
        """Serve one stream to its end."""
        response = web.StreamResponse(headers=HEADERS)
        opening = sse.retry(RETRY_MS + random.randrange(RETRY_MS))  # noqa: S311 - spreads clients, keeps no secret
        full = self._closed or len(self._open) >= self._capacity
        await response.prepare(request)
        if full:  # a native EventSource comes back after a 200 only
            await response.write(opening)
            return response
        await response.write(opening + sse.OPENING)
        style = CHUNKED if request.version >= HttpVersion11 else PLAIN
        stream = Stream(request, style)
        with self._hub.subscribed(wanted, style, stream) as subscription:
            self._open[stream] = subscription
            try:
                since = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
                if since:
                    await resume(self._hub, stream, subscription, since)
                await self._feed(response, stream, subscription)
            except (ConnectionError, TimeoutError):
                stream.abort()
            finally:
                del self._open[stream]
        return response

    async def _feed(self, response: web.StreamResponse, stream: Stream, subscription: Subscription) -> None:
        """Pull for the reader while it does not keep up, as fast as it reads; wait while it does."""
        while not stream.ended:
            if subscription.keeps_up:
                await stream.stirred()
                continue
            blocks = subscription.pull(BUFFER_BYTES)
            if blocks:
                async with asyncio.timeout(DRAIN_S):
                    await response.write(blocks)
                stream.last_write = monotonic()

    async def run(self) -> None:
        """Once a second: remove readers whose connection is gone, and keep the silent ones alive."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = monotonic()
            comment = sse.keep_alive(frame.show(self._hub.ring.newest))
            for stream, subscription in list(self._open.items()):
                if stream.gone:
                    stream.end()
                elif subscription.keeps_up and now - stream.last_write >= self._keepalive_s:
                    stream.write_block(comment)

    def close(self) -> None:
        """End every stream, so that browsers go elsewhere; new ones are sent away at once."""
        self._closed = True
        for stream in self._open:
            stream.end()

    # -- handlers

    async def of_one(self, request: web.Request) -> web.StreamResponse:
        """Show what happens in one workspace."""
        workspace_id = parse.workspace_id(request)
        await self._visibility.check(workspace_id)
        return await self.serve(request, Wanted(workspaces=frozenset({workspace_id})))

    async def of_all(self, request: web.Request) -> web.StreamResponse:
        """Show what happens in all workspaces that the caller may see, or in those it names."""
        named = parse.workspace_ids(request)
        visible = await self._visibility.of(parse.principal(request), named)
        types = request.query.getall("type", None)
        return await self.serve(request, Wanted(workspaces=visible, types=None if types is None else frozenset(types)))


async def stream_of_one(request: web.Request) -> web.StreamResponse:
    """Show what happens in one workspace."""
    return await request.app[STREAMS].of_one(request)


async def stream_of_all(request: web.Request) -> web.StreamResponse:
    """Show what happens everywhere."""
    return await request.app[STREAMS].of_all(request)


STREAMS: Final = web.AppKey("streams", EventStreams)
