"""Events over a WebSocket, for those who prefer one connection to an event stream."""

import asyncio
from time import monotonic
from typing import Any, Final
from urllib.parse import urlsplit

import orjson
import structlog
from aiohttp import WSMsgType, web

from events import ws
from events.hub import Hub, Style, Subscription, Wanted
from gateway.core.ids import find_uuid
from gateway.core.refusals import Code, Refusal
from gateway.services.visibility import Visibility
from gateway.web import parse
from gateway.web.events import BUFFER_BYTES, DRAIN_S, Stream, resume

log = structlog.get_logger("gateway.web.sockets")

PING_S: Final = 25.0
MESSAGE_BYTES: Final = 64 * 1024
"""The largest message that a client may send."""
LOOK_S: Final = 0.05
"""How often a socket is looked at that does not keep up."""
GOING_AWAY: Final = 1001
BAD_MESSAGE: Final = 1008

STYLE: Final = Style(name="ws", block=ws.message, wrap=lambda messages: messages, bus=ws.bus, gap=ws.gap)


class EventSockets:
    """All WebSockets of this process. `capacity` bounds them."""

    def __init__(self, hub: Hub, visibility: Visibility, spawn: Any, *, capacity: int) -> None:
        self._hub = hub
        self._visibility = visibility
        self._spawn = spawn
        self._capacity = capacity
        self._open: dict[web.WebSocketResponse, Stream] = {}
        self._closed = False

    def __len__(self) -> int:
        return len(self._open)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one socket to its end; `{"resume": id}` and `{"subscribe": [workspace, ...]}` may come at any time."""
        _check_origin(request)
        if self._closed or len(self._open) >= self._capacity:
            raise Refusal(Code.OVERLOADED, "too many event streams", retry_after_s=2)
        wanted = Wanted(workspaces=await self._visibility.of(parse.principal(request), parse.workspace_ids(request)))
        socket = web.WebSocketResponse(heartbeat=PING_S, compress=False, max_msg_size=MESSAGE_BYTES)
        await socket.prepare(request)
        stream = Stream(request, STYLE)
        self._open[socket] = stream
        try:
            asked: dict[str, Any] | None = {}
            while asked is not None and not stream.ended:
                if "subscribe" in asked:
                    wanted = Wanted(workspaces=await self._wanted(request, asked["subscribe"]))
                with self._hub.subscribed(wanted, STYLE, stream) as subscription:
                    if "resume" in asked:
                        await resume(self._hub, stream, subscription, str(asked["resume"]))
                    feeding = self._spawn(_feed(request, stream, subscription), "socket:feed")
                    try:
                        asked = await _receive(socket)
                    finally:
                        feeding.cancel()
        except Refusal as refused:
            await socket.close(code=BAD_MESSAGE, message=refused.sentence.encode()[:120])
        finally:
            del self._open[socket]
            stream.end()
        if not socket.closed:
            await socket.close(code=GOING_AWAY)
        return socket

    async def _wanted(self, request: web.Request, named: Any) -> frozenset[str] | None:
        if not isinstance(named, list) or len(named) > 1000 or not all(isinstance(one, str) for one in named):
            raise Refusal(Code.INVALID_REQUEST, "subscribe: must be a list of workspace ids")
        ids = [find_uuid(one) for one in named]
        if not all(ids):
            raise Refusal(Code.INVALID_REQUEST, "subscribe: must be a list of workspace ids")
        return await self._visibility.of(parse.principal(request), frozenset(one for one in ids if one))

    async def close(self) -> None:
        """End every socket, so that its client goes elsewhere."""
        self._closed = True
        for socket, stream in list(self._open.items()):
            stream.end()
            await socket.close(code=GOING_AWAY, drain=False)


async def _receive(socket: web.WebSocketResponse) -> dict[str, Any] | None:
    """Return the next message that asks for something, None at the end."""
    async for message in socket:
        if message.type is WSMsgType.TEXT:
            try:
                asked = orjson.loads(message.data)
            except orjson.JSONDecodeError:
                asked = None
            if not isinstance(asked, dict):
                raise Refusal(Code.INVALID_REQUEST, "a message must be a JSON object")
            if "resume" in asked or "subscribe" in asked:
                return asked
    return None


async def _feed(request: web.Request, stream: Stream, subscription: Subscription) -> None:
    """Pull for a socket while it does not keep up, as fast as it reads; one that takes nothing is let go."""
    moved_at = monotonic()
    while not stream.ended:
        if subscription.keeps_up:
            await stream.stirred()
            moved_at = monotonic()
            continue
        transport = request.transport
        if transport is None:
            return
        if transport.get_write_buffer_size() > BUFFER_BYTES:
            if monotonic() - moved_at > DRAIN_S:
                stream.abort()
            await asyncio.sleep(LOOK_S)
            continue
        moved_at = monotonic()
        blocks = subscription.pull(BUFFER_BYTES)
        if blocks:
            stream.write(blocks)
            await asyncio.sleep(0)


def _check_origin(request: web.Request) -> None:
    """A browser tells which site's page asks; no other than our own may."""
    origin = request.headers.get("Origin")
    if origin is not None and urlsplit(origin).netloc != request.host:
        raise Refusal(Code.NOT_ALLOWED, "this origin may not connect")


async def socket(request: web.Request) -> web.StreamResponse:
    """Show what happens, over a WebSocket."""
    return await request.app[SOCKETS].serve(request)


SOCKETS: Final = web.AppKey("sockets", EventSockets)
