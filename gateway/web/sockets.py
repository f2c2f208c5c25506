"""Events over a WebSocket, for those who prefer one connection to an event stream."""

import asyncio
from dataclasses import dataclass
from typing import Final

import orjson
import structlog
from aiohttp import WSMsgType, web

from events import ws
from events.bodies import Bodies
from events.bus import Spawn
from events.hub import Hub
from events.readers import Style, Subscription, Wanted
from gateway.core.refusals import Code, Refusal
from gateway.services.visibility import View, Visibility
from gateway.web import parse
from gateway.web.cors import CrossOrigin
from gateway.web.events import Stream, feed, resume

log = structlog.get_logger("gateway.web.sockets")

PING_S: Final = 25.0
MESSAGE_BYTES: Final = 64 * 1024
"""The largest message that a client may send."""
CLOSE_S: Final = 2.0
"""How long a client has to answer a close."""
GOING_AWAY: Final = 1001
BAD_MESSAGE: Final = 1008
_REASON_BYTES: Final = 123
"""What fits into a close frame beside its code (RFC 6455, 5.5)."""

STYLE: Final = Style(
    name="ws", block=ws.message, parts=ws.parts, wrap=lambda messages: messages, bus=ws.bus, gap=ws.gap
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """What a client asks for: go back to just after this id, hear these workspaces from now on; None: as it is."""

    resume: str | None = None
    subscribe: frozenset[str] | None = None


class EventSockets:
    """All WebSockets of this process. `capacity` bounds them; drain_s: how long one may take nothing."""

    def __init__(
        self,
        hub: Hub,
        bodies: Bodies,
        visibility: Visibility,
        cross_origin: CrossOrigin,
        spawn: Spawn,
        *,
        capacity: int,
        drain_s: float,
        ping_s: float = PING_S,
    ) -> None:
        self._hub = hub
        self._bodies = bodies
        self._visibility = visibility
        self._cross_origin = cross_origin
        self._spawn = spawn
        self._capacity = capacity
        self._drain_s = drain_s
        self._ping_s = ping_s
        self._open: set[Stream] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<EventSockets open={len(self._open)}>"

    def __len__(self) -> int:
        return len(self._open)

    async def serve(self, request: web.Request) -> web.StreamResponse:
        """Serve one socket to its end; `{"resume": id}` and `{"subscribe": [workspace, ...]}` may come at any time."""
        self._check_origin(request)
        types = parse.event_types(request)
        view = await self._visibility.look(parse.principal(request), parse.workspace_ids(request))
        if self._closed or len(self._open) >= self._capacity:
            raise Refusal(Code.OVERLOADED, "too many event streams", retry_after_s=2)
        socket = web.WebSocketResponse(
            heartbeat=self._ping_s, timeout=CLOSE_S, compress=False, max_msg_size=MESSAGE_BYTES
        )
        await socket.prepare(request)
        stream = Stream(request, STYLE, drain_s=self._drain_s)
        self._open.add(stream)
        try:
            await self._serve(request, socket, stream, view, types)
        except Refusal as refused:
            await socket.close(code=BAD_MESSAGE, message=refused.sentence.encode()[:_REASON_BYTES], drain=False)
        finally:
            self._open.discard(stream)
            stream.end()
        return socket

    async def _serve(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        stream: Stream,
        view: View,
        types: frozenset[str] | None,
    ) -> None:
        """Feed the socket what it has asked for, until it asks for something else, until the end."""
        asked: Asked | None = Asked(resume=parse.last_event_id(request))
        while asked is not None and not socket.closed:
            if asked.subscribe is not None:
                view = await self._visibility.look(parse.principal(request), asked.subscribe or None)
            wanted = Wanted(workspaces=view.workspaces, types=types)
            with self._visibility.kept(view, stream), self._hub.subscribed(wanted, STYLE, stream) as subscription:
                if asked.resume is not None:
                    await resume(self._hub, stream, subscription, asked.resume)
                feeding = self._spawn(_feed(socket, stream, subscription, self._bodies), "socket:feed")
                try:
                    asked = await _receive(socket)
                finally:
                    feeding.cancel()
                    await asyncio.wait([feeding])  # it may be in the middle of a message

    def _check_origin(self, request: web.Request) -> None:
        """A browser tells which site's page asks: our own may, and those that the operator has named."""
        origin = request.headers.get("Origin")
        if origin is not None and not self._cross_origin.allows(origin) and not parse.is_own_origin(request, origin):
            raise Refusal(Code.NOT_ALLOWED, "pages of this origin may not connect")

    def close(self) -> None:
        """End every socket, so that its client goes elsewhere; new ones are sent away at once."""
        self._closed = True
        for stream in self._open:
            stream.end()


async def _receive(socket: web.WebSocketResponse) -> Asked | None:
    """Return what is asked for next, None at the end; refuses what cannot be understood."""
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            raise Refusal(Code.INVALID_REQUEST, "a message must be text")
        try:
            said = orjson.loads(message.data)
        except orjson.JSONDecodeError:
            raise Refusal(Code.INVALID_REQUEST, "a message must be JSON") from None
        if not isinstance(said, dict):
            raise Refusal(Code.INVALID_REQUEST, "a message must be a JSON object")
        since, named = said.get("resume"), said.get("subscribe")
        if since is not None and not isinstance(since, str):
            raise Refusal(Code.INVALID_REQUEST, "resume: must be the id of an event")
        if named is not None and not (isinstance(named, list) and all(isinstance(one, str) for one in named)):
            raise Refusal(Code.INVALID_REQUEST, "subscribe: must be a list of workspaces' UUIDs")
        if since is not None or named is not None:
            return Asked(resume=since, subscribe=None if named is None else parse.ids("subscribe", named))
    return None


async def _feed(socket: web.WebSocketResponse, stream: Stream, subscription: Subscription, bodies: Bodies) -> None:
    """Feed a socket, and close it at the stream's end."""
    await feed(stream, subscription, bodies)
    await socket.close(code=GOING_AWAY, drain=False)


async def socket(request: web.Request) -> web.StreamResponse:
    """Show what happens, over a WebSocket."""
    return await request.app[SOCKETS].serve(request)


SOCKETS: Final = web.AppKey("sockets", EventSockets)
