"""Event streams for browsers: what has been missed, then what happens, for as long as somebody reads."""

import asyncio
import random
import socket
from time import monotonic
from typing import Final

import structlog
from aiohttp import HttpVersion11, web

from events import frame, sse
from events.bodies import Bodies
from events.hub import Hub
from events.readers import Style, Subscription, Wanted
from gateway.services.visibility import View, Visibility
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
REACH_S: Final = 5.0
"""How long a reader is held that knows more than this process does yet."""
SWEEP_S: Final = 1.0


def _chunk(blocks: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(blocks), blocks)


CHUNKED: Final = Style(name="sse", block=sse.block, parts=sse.parts, wrap=_chunk, bus=sse.bus, gap=sse.gap)
PLAIN: Final = Style(
    name="sse/1.0", block=sse.block, parts=sse.parts, wrap=lambda blocks: blocks, bus=sse.bus, gap=sse.gap
)


class Stream:
    """One reader's transport (hub.Sink). One that takes nothing for `drain_s` is let go; it may come back."""

    def __init__(self, request: web.Request, style: Style, *, drain_s: float) -> None:
        self._drain_s = drain_s
        self._request = request
        self.style = style
        self._stirred = asyncio.Event()
        self._draining = False
        self.last_write = monotonic()
        self.ended = False
        if request.transport is not None:
            _bound_silence(request.transport, drain_s)

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
        self.write(self.style.wrap(block))

    def stir(self) -> None:
        """Wake the handler: there is something to pull, or the end has come."""
        self._stirred.set()

    def end(self) -> None:
        """End the stream, after what waits for its reader if that keeps up; one that comes back resumes."""
        if self._draining:
            self.abort()
        self.ended = True
        self._stirred.set()

    def abort(self) -> None:
        """Break the connection, with what still waits for its reader."""
        if self._request.transport is not None:
            self._request.transport.abort()
        self.ended = True

    async def stirred(self) -> None:
        """Wait until there is something to do."""
        await self._stirred.wait()
        self._stirred.clear()

    async def drained(self) -> None:
        """Wait until the reader has taken nearly all; raises TimeoutError if it does not, ConnectionError if gone."""
        self._draining = True
        try:
            async with asyncio.timeout(self._drain_s):
                await self._request.writer.drain()
        finally:
            self._draining = False


def _bound_silence(transport: asyncio.BaseTransport, within_s: float) -> None:
    """Let the kernel find out that nobody is at the other end any more: bytes that are not acknowledged (Linux)."""
    opened = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None and opened is not None and opened.family in (socket.AF_INET, socket.AF_INET6):
        opened.setsockopt(socket.IPPROTO_TCP, option, int(within_s * 1000))


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


async def feed(stream: Stream, subscription: Subscription, bodies: Bodies) -> None:
    """Pull for a reader while it does not keep up, as fast as it reads; wait while it does; return at its end."""
    try:
        while not stream.ended:
            if subscription.keeps_up:
                await stream.stirred()
                continue
            await stream.drained()
            blocks = subscription.pull(BUFFER_BYTES)
            if blocks:
                stream.write_block(blocks)
            elif (due := subscription.due) is not None:
                subscription.take()
                await _write_parts(stream, await bodies.parts(due, stream.style))
            await asyncio.sleep(0)
    except (ConnectionError, TimeoutError):
        stream.abort()


async def _write_parts(stream: Stream, parts: list[bytes]) -> None:
    """Write a large event as fast as it is read; one that is begun is written to its end."""
    rest = iter(parts)
    try:
        for part in rest:
            stream.write_block(part)
            await stream.drained()
    except asyncio.CancelledError:
        for part in rest:
            stream.write_block(part)
        raise


class EventStreams:
    """All event streams of this process. `capacity` bounds them, `keepalive_s` their silence.

    drain_s: how long a reader may take nothing of what waits for it.
    """

    def __init__(
        self,
        hub: Hub,
        bodies: Bodies,
        visibility: Visibility,
        *,
        capacity: int,
        keepalive_s: float,
        drain_s: float,
    ) -> None:
        self._hub = hub
        self._bodies = bodies
        self._visibility = visibility
        self._capacity = capacity
        self._keepalive_s = keepalive_s
        self._drain_s = drain_s
        self._open: dict[Stream, Subscription] = {}
        self._closed = False

    def __repr__(self) -> str:
        return f"<EventStreams open={len(self._open)}>"

    def __len__(self) -> int:
        return len(self._open)

    async def serve(self, request: web.Request, view: View, types: frozenset[str] | None = None) -> web.StreamResponse:
        """Serve one stream to its end: of what the view shows, events of these types (None: all)."""
        response = web.StreamResponse(headers=HEADERS)
        opening = sse.retry(RETRY_MS + random.randrange(RETRY_MS))  # noqa: S311 - spreads clients, keeps no secret
        full = self._closed or len(self._open) >= self._capacity
        await response.prepare(request)
        response.headers.clear()  # they are sent, and each reader would keep its own
        if full:  # a native EventSource comes back after a 200 only
            await response.write(opening)
            return response
        await response.write(opening + sse.OPENING)
        style = CHUNKED if request.version >= HttpVersion11 else PLAIN
        stream = Stream(request, style, drain_s=self._drain_s)
        wanted = Wanted(workspaces=view.workspaces, types=types)
        with self._visibility.kept(view, stream), self._hub.subscribed(wanted, style, stream) as subscription:
            self._open[stream] = subscription
            try:
                since = parse.last_event_id(request)
                if since is not None:
                    await resume(self._hub, stream, subscription, since)
                await feed(stream, subscription, self._bodies)
            finally:
                del self._open[stream]
        return response

    async def run(self) -> None:
        """Once a second: remove readers whose connection is gone, and keep the silent ones alive."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = monotonic()
            comment = sse.keep_alive(frame.show(self._hub.ring.newest))
            for stream, subscription in list(self._open.items()):
                if stream.gone:
                    stream.end()
                elif subscription.at_rest and now - stream.last_write >= self._keepalive_s:
                    stream.write_block(comment)

    def close(self) -> None:
        """End every stream, so that browsers go elsewhere; new ones are sent away at once."""
        self._closed = True
        for stream in self._open:
            stream.end()

    # -- handlers

    async def of_one(self, request: web.Request) -> web.StreamResponse:
        """Show what happens in one workspace."""
        named = frozenset({parse.workspace_id(request)})
        return await self.serve(request, await self._visibility.look(parse.principal(request), named))

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
