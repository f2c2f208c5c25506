"""Streams of agents over HTTP: written as they come, kept alive, and ended in band, with their readers' credentials."""

import asyncio
from contextlib import suppress
from dataclasses import replace
from http import HTTPStatus
from time import monotonic
from typing import Final

from aiohttp import HttpVersion11, web

from gateway.core import farewells, streams
from gateway.core.calls import Kind
from gateway.core.refusals import Code, Refusal, bad_field, platform_unavailable
from gateway.ports import LiveUnavailable
from gateway.services.streams import Opened, Reading
from gateway.services.vigils import Awaited, Vigil
from gateway.web import keys, parse, render

HEADERS: Final = {"Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no"}
UNRESUMABLE: Final = {"X-A2A-Resumable": "false"}
"""Beside the headers of a stream that is not written to its journal any more: Redis is away."""
KEEP_ALIVE: Final = b":\n"
"""Without a blank line after it: published clients take that for an empty event, and crash."""
BUFFER_BYTES: Final = 64 * 1024
"""What may wait to be taken by a client that keeps up."""
BEGIN_S: Final = 30.0
"""How long who wants to follow a call that is under way waits for its answer to begin ..."""
SOON_S: Final = 0.25
"""... and how often it looks."""
LOOK_S: Final = 1.0
"""How often it is looked whether a reader of a silent stream is still there."""


async def serve(request: web.Request, opened: Opened, *, call_off: bool) -> web.StreamResponse:
    """Write a stream to its caller until its end, or until the caller leaves.

    call_off: whether the call is called off then, instead of going on without it.
    """
    request[keys.CALL_ID] = opened.head.call_id
    response = _begin(opened)
    reading = request.app[keys.AGENT_STREAMS].read(opened)
    try:
        with reading:
            await _write(request, response, reading, b"")
    finally:
        if call_off and opened.relay is not None and not opened.relay.over:  # though its reader may be told that it is
            request.app[keys.PROXY].forsake(opened.head.call_id)
    return response


async def join(request: web.Request, opened: Opened) -> web.StreamResponse:
    """Write a stream that an earlier call has begun, as `serve` does; who makes no call takes a place as a reader."""
    places = request.app[keys.PLACES]
    if not places.take():
        return _no_place(request, opened.head.call_id, opened.id_json, plain=opened.head.plain)
    try:
        return await serve(request, opened, call_off=False)
    finally:
        places.free()


def _no_place(request: web.Request, call_id: str, id_json: bytes | None, *, plain: bool) -> web.StreamResponse:
    """Tell who called, in its stream, that there is no room for that; plain: by HTTP+JSON it is told by the status."""
    refused = Refusal(Code.OVERLOADED, "too many streams are open: the call goes on", retry_after_s=2, call_id=call_id)
    if plain:
        raise refused
    request[keys.CALL_ID] = call_id
    return render.answer(farewells.refused_in_band(refused, call_id=call_id, id_json=id_json))


async def stay(request: web.Request, awaited: Awaited, *, call_off: bool) -> web.StreamResponse:
    """Write how a call stands that waits for its agent, and then its answer, as a stream, as `serve` does."""
    request[keys.CALL_ID] = awaited.call_id
    places = request.app[keys.PLACES]
    if not places.take():
        return _no_place(request, awaited.call_id, awaited.id_json, plain=False)
    vigil = request.app[keys.VIGILS].begin(awaited, lambda: request.transport is None)
    try:
        with vigil:
            response = web.StreamResponse(headers={"Content-Type": streams.MEDIA_TYPE, **HEADERS})
            await _write(request, response, vigil, b"")
    finally:
        places.free()
        if call_off and not vigil.over:
            await _call_off(request, awaited)
    return response


async def _call_off(request: web.Request, awaited: Awaited) -> None:
    """Call off a call whose caller has left and wants it ended then; it may have ended meanwhile."""
    with suppress(Refusal):
        await request.app[keys.CALLS].cancel(parse.principal(request), awaited.workspace_id, awaited.call_id)


async def follow(request: web.Request) -> web.StreamResponse:
    """Write the stream of a call from an event on: what is known of it, and what is still to come."""
    call_id = parse.call_id(request)
    after = streams.find_number(call_id, parse.last_event_id(request))
    if after is None:
        raise bad_field("Last-Event-ID", "is not the id of an event of this call")
    opened = await _find(request, call_id)
    request[keys.CALL_ID] = call_id
    places = request.app[keys.PLACES]
    if not places.take():
        raise Refusal(Code.OVERLOADED, "too many streams are open", retry_after_s=2)
    try:
        with request.app[keys.AGENT_STREAMS].read(replace(opened, after=after)) as reading:
            block = await reading.read(0.0)
            if reading.over and not block:
                return web.Response(status=HTTPStatus.NO_CONTENT)  # after which no browser comes back
            response = _begin(opened)
            await _write(request, response, reading, block)
            return response
    finally:
        places.free()


async def _find(request: web.Request, call_id: str) -> Opened:
    """The stream of a call that this caller may see, once it has begun."""
    until = monotonic() + BEGIN_S
    while True:
        call = await request.app[keys.CALLS].get(parse.principal(request), parse.workspace_id(request), call_id)
        try:
            opened = await request.app[keys.AGENT_STREAMS].find(call_id)
        except LiveUnavailable as error:
            raise platform_unavailable() from error
        if opened is not None:
            return opened
        if request.app[keys.AGENT_STREAMS].closed:
            raise Refusal(Code.DRAINING, "the gateway is shutting down", retry_after_s=5)
        if call.ended or call.kind is not Kind.PUSH or monotonic() >= until or request.transport is None:
            raise Refusal(Code.NO_STREAM, "the call has no stream, or none that is kept any more")
        await asyncio.sleep(SOON_S)


def _begin(opened: Opened) -> web.StreamResponse:
    """The answer that is a stream, which says so if it cannot be resumed."""
    told = {} if opened.relay is None or opened.relay.resumable else UNRESUMABLE
    return web.StreamResponse(status=opened.head.status, headers={**opened.head.headers, **HEADERS, **told})


async def _write(request: web.Request, response: web.StreamResponse, reading: Reading | Vigil, block: bytes) -> None:
    """Write what comes, after this block, until the end, or until the reader has left, or has been cut off."""
    keepalive_s = request.app[keys.KEEPALIVE_S]
    look_s = min(LOOK_S, keepalive_s)
    visibility = request.app[keys.VISIBILITY]
    pipe = _Pipe(request)
    view = visibility.look_at_self(parse.principal(request))
    with suppress(ConnectionError), visibility.kept(view, pipe), request[keys.TELLING](reading.rest):
        await response.prepare(request)
        if block:
            await response.write(block)
        while not reading.over:
            if pipe.ended:
                await response.write(reading.fail(Code.INVALID_CREDENTIAL, "your credential has ended"))
                break
            if reading.keeps_up:
                await reading.push(pipe.write, look_s)
                block = b""
            else:
                block = await reading.read(look_s)
            if request.transport is None:
                return
            if block or monotonic() - pipe.written_at >= keepalive_s:
                pipe.written_at = monotonic()
                await response.write(block or KEEP_ALIVE)  # which waits until there is room for more
            elif pipe.is_full:
                await response.write(KEEP_ALIVE)
        await response.write_eof()


class _Pipe:
    """Writes to a client in the turn in which something comes: a coroutine for each event would cost more than it."""

    def __init__(self, request: web.Request) -> None:
        self._request = request
        self._chunked = request.version >= HttpVersion11
        self.written_at = monotonic()
        self.ended = False

    @property
    def is_full(self) -> bool:
        """Whether more is unread than may be before whoever writes waits."""
        transport = self._request.transport
        return transport is not None and transport.get_write_buffer_size() > BUFFER_BYTES

    def end(self) -> None:
        """Note that whoever reads may not any more (visibility.Reader)."""
        self.ended = True

    def write(self, block: bytes) -> bool:
        """Write now; return whether more may come."""
        transport = self._request.transport
        if transport is None or transport.is_closing():
            return False
        transport.write(b"%x\r\n%b\r\n" % (len(block), block) if self._chunked else block)
        self.written_at = monotonic()
        return not self.is_full and not self.ended


def wants_call_off(request: web.Request) -> bool:
    """Return whether a call is to be called off when its caller leaves before its end."""
    match request.headers.get("X-On-Disconnect", "detach").strip().lower():
        case "detach":
            return False
        case "cancel":
            return True
        case _:
            raise bad_field("X-On-Disconnect", "must be detach or cancel")
