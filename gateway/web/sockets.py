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
from events.hub import Hub, NotLoaded
from events.readers import Style, Subscription, Wanted
from gateway.core.refusals import Code, Refusal
from gateway.services.visibility import View, Visibility
from gateway.web import keys, parse
from gateway.web.cors import CrossOrigin
from gateway.web.events import end_spread, resume, wait_for_cursor
from gateway.web.places import Places
from gateway.web.stream import BUFFER_BYTES, bound_silence

log = structlog.get_logger("gateway.web.sockets")

PING_S: Final = 25.0
MESSAGE_BYTES: Final = 64 * 1024
"""The largest message that a client may send."""
CLOSE_S: Final = 2.0
"""How long a client has to answer a close."""
GOING_AWAY: Final = 1001
BAD_MESSAGE: Final = 1008
_ASKS: Final = frozenset({"resume", "subscribe"})
"""What a message may hold."""
_REASON_BYTES: Final = 123
"""What fits into a close frame beside its code (RFC 6455, 5.5)."""

STYLE: Final = Style(
    name="ws", block=ws.message, parts=ws.parts, wrap=lambda messages: messages, bus=ws.bus, gap=ws.gap
)


class Line:
    """One client's transport (hub.Sink). One that takes nothing for `drain_s` is let go; it may come back."""

    def __init__(self, request: web.Request, *, drain_s: float) -> None:
        self._drain_s = drain_s
        self._request = request
        self._stirred = asyncio.Event()
        self._draining = False
        self.ended = False
        if request.transport is not None:
            bound_silence(request.transport, drain_s)

    def write(self, blob: bytes) -> bool:
        """Write at once; False if more is unread than a reader that keeps up may have."""
        transport = self._request.transport
        if self.ended or transport is None or transport.is_closing():
            self.end()
            return True
        transport.write(blob)
        return transport.get_write_buffer_size() <= BUFFER_BYTES

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
        places: Places,
        drain_s: float,
        ping_s: float = PING_S,
    ) -> None:
        self._hub = hub
        self._bodies = bodies
        self._visibility = visibility
        self._cross_origin = cross_origin
        self._spawn = spawn
        self._places = places
        self._drain_s = drain_s
        self._ping_s = ping_s
        self._open: set[Line] = set()
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
        if self._closed or not self._places.take():
            raise Refusal(Code.OVERLOADED, "too many event streams", retry_after_s=2)
        socket = web.WebSocketResponse(
            heartbeat=self._ping_s, timeout=CLOSE_S, compress=False, max_msg_size=MESSAGE_BYTES
        )
        line = Line(request, drain_s=self._drain_s)
        try:
            await socket.prepare(request)
            self._open.add(line)
            await self._serve(request, socket, line, view, types)
        except NotLoaded:
            await socket.close(code=GOING_AWAY, drain=False)
        except Refusal as refused:
            await socket.close(code=BAD_MESSAGE, message=refused.sentence.encode()[:_REASON_BYTES], drain=False)
        finally:
            self._open.discard(line)
            self._places.free()
            line.end()
        return socket

    async def _serve(
        self,
        request: web.Request,
        socket: web.WebSocketResponse,
        line: Line,
        view: View,
        types: frozenset[str] | None,
    ) -> None:
        """Feed the socket what it has asked for, until it asks for something else, until the end."""
        asked: Asked | None = Asked(resume=parse.last_event_id(request))
        while asked is not None and not socket.closed:
            if asked.subscribe is not None:
                view = await self._visibility.look(parse.principal(request), asked.subscribe or None)
            if asked.resume is not None:
                await wait_for_cursor(self._hub, asked.resume)
            wanted = Wanted(workspaces=view.workspaces, types=types, resync=view.resync)
            with self._visibility.kept(view, line), self._hub.subscribed(wanted, STYLE, line) as subscription:
                if asked.resume is not None:
                    line.write(resume(self._hub, subscription, asked.resume))
                feeding = self._spawn(_feed(socket, line, subscription, self._bodies), "socket:feed")
                try:
                    asked = await _receive(socket)
                finally:
                    feeding.cancel()
                    await asyncio.wait([feeding])  # it may be in the middle of a message
            toll = request.get(keys.TOLL)
            if asked is not None and toll is not None:  # it costs what a request costs
                await request.app[keys.TOLLS].take(toll)

    def _check_origin(self, request: web.Request) -> None:
        """A browser tells which site's page asks: our own may, and those that the operator has named."""
        origin = request.headers.get("Origin")
        if origin is not None and not self._cross_origin.allows(origin) and not parse.is_own_origin(request, origin):
            raise Refusal(Code.NOT_ALLOWED, "pages of this origin may not connect")

    async def close(self, spread_s: float = 0.0) -> None:
        """End every socket, spread over these seconds, so that clients go elsewhere; new ones are refused."""
        self._closed = True
        await end_spread(self._open, spread_s)


async def _pump(line: Line, subscription: Subscription, bodies: Bodies) -> None:
    """Pull for a reader while it does not keep up, as fast as it reads; wait while it does; return at its end."""
    try:
        while not line.ended:
            if subscription.keeps_up:
                await line.stirred()
                continue
            await line.drained()
            blocks = subscription.pull(BUFFER_BYTES)
            if blocks:
                line.write(blocks)
            elif (due := subscription.due) is not None:
                subscription.take()
                await _write_parts(line, await bodies.parts(due, STYLE))
            await asyncio.sleep(0)
    except (ConnectionError, TimeoutError):
        line.abort()


async def _write_parts(line: Line, parts: list[bytes]) -> None:
    """Write a large event as fast as it is read; a message that is begun is written to its end."""
    rest = iter(parts)
    try:
        for part in rest:
            line.write(part)
            await line.drained()
    except asyncio.CancelledError:
        for part in rest:
            line.write(part)
        raise


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
        if not said or not said.keys() <= _ASKS:
            raise Refusal(Code.INVALID_REQUEST, "a message has `resume`, `subscribe` or both, and nothing else")
        since, named = said.get("resume"), said.get("subscribe")
        if "resume" in said and not isinstance(since, str):
            raise Refusal(Code.INVALID_REQUEST, "resume: must be the id of an event")
        if "subscribe" in said and not (isinstance(named, list) and all(isinstance(one, str) for one in named)):
            raise Refusal(Code.INVALID_REQUEST, "subscribe: must be a list of workspaces' UUIDs")
        return Asked(resume=since, subscribe=None if named is None else parse.ids("subscribe", named))
    return None


async def _feed(socket: web.WebSocketResponse, line: Line, subscription: Subscription, bodies: Bodies) -> None:
    """Feed a socket, and close it at the stream's end."""
    await _pump(line, subscription, bodies)
    await socket.close(code=GOING_AWAY, drain=False)


async def socket(request: web.Request) -> web.StreamResponse:
    """Show what happens, over a WebSocket."""
    return await request.app[SOCKETS].serve(request)


SOCKETS: Final = web.AppKey("sockets", EventSockets)
