"""Event streams for browsers: what has been missed, then what happens, for as long as somebody reads."""

import asyncio
import random
from time import monotonic
from typing import Final

import structlog
from aiohttp import HttpVersion11, web

from events import frame, sse
from events.frame import Frame, Position
from events.hub import Hub
from events.redis import JournalUnavailable, RedisBus
from gateway.services.directory import Directory
from gateway.web import parse

log = structlog.get_logger("gateway.web.events")

HEADERS: Final = {
    "Content-Type": "text/event-stream",
    "Cache-Control": "no-cache, no-store, no-transform",
    "X-Accel-Buffering": "no",
}
RETRY_MS: Final = 2000
"""How long a browser waits before it connects again; up to as much again is added, so that not all come at once."""
BUFFER_BYTES: Final = 1024 * 1024
"""A reader whose unread bytes pass this is let go; it may come back with its last id."""
HELD_FRAMES: Final = 10_000
"""Frames held back for one reader while its history is read; past this it is let go."""
SWEEP_S: Final = 1.0


class _Stream:
    """One reader: a writer onto one transport. Frames are held back until its history has been sent."""

    def __init__(self, streams: "EventStreams", request: web.Request, resync_url: str) -> None:
        self._streams = streams
        self._request = request
        self._resync_url = resync_url
        self._chunked = request.version >= HttpVersion11
        self._held: list[Frame] | None = []
        self._replayed: Position | None = None
        self.last_write = monotonic()
        self.done = asyncio.Event()

    def deliver(self, heard: Frame) -> None:
        """Take one frame (hub.Reader)."""
        if self._held is not None:
            self._held.append(heard)
            if len(self._held) > HELD_FRAMES:
                self.let_go()
        elif self._replayed is None or not self._was_replayed(heard, self._replayed):
            self.write(self._streams.block(heard))

    def _was_replayed(self, heard: Frame, replayed: Position) -> bool:
        """The journal is read faster than the channel: what it gave already may still be on its way here."""
        place = frame.find_position(heard.id) if heard.id is not None else None
        if place is None:
            return False
        if place <= replayed:
            return True
        self._replayed = None
        return False

    def resync(self, reason: str) -> None:
        """Tell the browser that something may be missing (hub.Reader)."""
        self.write(self.gap(reason=reason, since=None, until=None))

    def gap(self, *, reason: str, since: str | None, until: str | None) -> bytes:
        """Return the block that says so."""
        return sse.gap(reason=reason, since=since, until=until, resync=self._resync_url)

    def write(self, block: bytes) -> None:
        """Write a block, or let the reader go if it is gone or does not read."""
        transport = self._request.transport
        if transport is None or transport.is_closing() or self.done.is_set():
            self.done.set()
            return
        transport.write(b"%x\r\n%b\r\n" % (len(block), block) if self._chunked else block)
        self.last_write = monotonic()
        if transport.get_write_buffer_size() > BUFFER_BYTES:
            log.info("reader_too_slow")
            self.let_go()

    def let_go(self) -> None:
        """End this stream at once; a reader that comes back resumes."""
        transport = self._request.transport
        if transport is not None:
            transport.abort()
        self.done.set()

    def go_live(self, replayed: Position | None) -> None:
        """Send what was held back, but for what the history already had; from here on frames are written at once."""
        held, self._held = self._held or [], None
        self._replayed = replayed
        for heard in held:
            self.deliver(heard)

    @property
    def gone(self) -> bool:
        """Whether nobody is at the other end any more."""
        transport = self._request.transport
        return transport is None or transport.is_closing()


class EventStreams:
    """All event streams of this process. `capacity` bounds them, `keepalive_s` their silence."""

    def __init__(self, hub: Hub, bus: RedisBus, directory: Directory, *, capacity: int, keepalive_s: float) -> None:
        self._hub = hub
        self._bus = bus
        self._directory = directory
        self._capacity = capacity
        self._keepalive_s = keepalive_s
        self._open: set[_Stream] = set()
        self._closed = False
        self._built: tuple[Frame | None, bytes] = (None, b"")

    def __repr__(self) -> str:
        return f"<EventStreams open={len(self._open)}>"

    def __len__(self) -> int:
        return len(self._open)

    def block(self, heard: Frame) -> bytes:
        """Return a frame's block, built once however many read it."""
        if self._built[0] is not heard:
            self._built = (heard, sse.block(heard))
        return self._built[1]

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one stream to its end."""
        workspace_id = parse.workspace_id(request)
        await self._directory.get(workspace_id)
        response = web.StreamResponse(headers=HEADERS)
        opening = sse.retry(RETRY_MS + random.randrange(RETRY_MS))  # noqa: S311 - spreads clients, keeps no secret
        full = self._closed or len(self._open) >= self._capacity
        await response.prepare(request)
        if full:  # a native EventSource comes back after a 200 only
            await response.write(opening)
            return response
        await response.write(opening + sse.OPENING)
        since = request.headers.get("Last-Event-ID") or request.query.get("last_event_id")
        stream = _Stream(self, request, f"/workspaces/{workspace_id}")
        self._open.add(stream)
        try:
            with self._hub.listening(workspace_id, stream):
                stream.go_live(await self._replay(response, workspace_id, since, stream))
                await stream.done.wait()
        except ConnectionError:
            stream.let_go()
        finally:
            self._open.discard(stream)
        return response

    async def _replay(
        self, response: web.StreamResponse, workspace_id: str, since: str | None, stream: _Stream
    ) -> Position | None:
        """Send what has happened since, and return up to where; a loss is announced."""
        if not since:
            return None
        try:
            return await self._send_history(response, workspace_id, since, stream)
        except JournalUnavailable:
            await response.write(stream.gap(reason="journal_unavailable", since=since, until=None))
            return None

    async def _send_history(
        self, response: web.StreamResponse, workspace_id: str, since: str, stream: _Stream
    ) -> Position | None:
        place = frame.find_position(since)
        span = await self._bus.span()
        oldest = frame.find_position(span[0]) if span else None
        newest = frame.find_position(span[1]) if span else None
        if place is None or oldest is None or newest is None or not oldest <= place <= newest:
            reason = "unknown_id" if place is None else "trimmed"
            await response.write(stream.gap(reason=reason, since=since, until=span[1] if span else None))
            return newest
        async for heard in self._bus.read(place):
            if stream.done.is_set():
                break
            if heard.id is not None:
                place = frame.find_position(heard.id) or place
            if heard.event.workspace_id == workspace_id:
                await response.write(sse.block(heard))
                stream.last_write = monotonic()
        return place

    async def run(self) -> None:
        """Once a second: remove readers whose connection is gone, and keep the silent ones alive."""
        while True:
            await asyncio.sleep(SWEEP_S)
            now = monotonic()
            comment = sse.keep_alive(self._hub.cursor)
            for stream in list(self._open):
                if stream.gone:
                    stream.done.set()
                elif now - stream.last_write >= self._keepalive_s:
                    stream.write(comment)

    def close(self) -> None:
        """End every stream, so that browsers go elsewhere; new ones are sent away at once."""
        self._closed = True
        for stream in self._open:
            stream.done.set()


async def stream(request: web.Request) -> web.StreamResponse:
    """Show what happens in one workspace."""
    return await request.app[STREAMS].serve(request)


STREAMS: Final = web.AppKey("streams", EventStreams)
