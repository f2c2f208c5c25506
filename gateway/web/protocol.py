"""What clients get whose bytes are no request, or do not come: no word of theirs in it or in the log."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Final

import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.http_exceptions import BadHttpMessage
from aiohttp.streams import EMPTY_PAYLOAD
from aiohttp.web_protocol import RequestHandler, _ErrInfo

from gateway.core.ids import new_id
from gateway.core.refusals import Code, Refusal
from gateway.web import render
from gateway.web.doorway import Doorway, TurnedAway
from gateway.web.guard import SECURITY_HEADERS, SERVER
from gateway.web.keys import TELLING
from gateway.web.parse import HOLD
from gateway.web.stream import bound_silence

log = structlog.get_logger("gateway.web")


HEAD_BYTES: Final = 64 * 1024
"""What the head of a request may take; aiohttp bounds each line and their number, which come to a megabyte."""
AHEAD: Final = 2
"""Requests that may wait behind the one that is answered, about; aiohttp's 32 may be four megabytes a connection."""


class Protocol(RequestHandler):
    """aiohttp's protocol, whose own answers and log lines would show what the client sent: its token, its body."""

    __slots__ = ("_doorway", "_first_request", "_head_bytes", "_on_lost", "_write_s")

    def __init__(self, server: "Server", **options: Any) -> None:
        super().__init__(server, **options)
        self._max_msg_queue_size, self._msg_queue_resume_size = AHEAD, AHEAD // 2
        self._doorway: Doorway | None = server.doorway
        self._write_s = server.write_s
        self._head_bytes = 0
        self._on_lost: dict[Callable[[], None], None] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give a new client a while to send its first request; those that come later have aiohttp's keep-alive time."""
        super().connection_made(transport)
        server: Any = self._manager
        server.doorway.enter()
        bound_silence(transport, self._write_s)
        self._first_request: asyncio.TimerHandle | None = self._loop.call_later(server.first_request_s, self._give_up)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait for nothing any more; may come twice, first when another protocol takes the connection over."""
        self._stop_waiting()
        doorway, self._doorway = self._doorway, None
        if doorway is not None:
            doorway.leave()
        super().connection_lost(exc)
        for tell in tuple(self._on_lost):
            tell()

    @contextmanager
    def telling(self, tell: Callable[[], None]) -> Iterator[None]:
        """Call this when the connection is lost while the block lasts."""
        self._on_lost[tell] = None
        try:
            yield
        finally:
            del self._on_lost[tell]

    def data_received(self, data: bytes) -> None:
        """Read on, unless a head has no end."""
        idle = self._waiter is not None and not self._messages
        super().data_received(data)
        if idle and not self._messages:  # what has come is a piece of a head
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES:
                self._refuse(BadHttpMessage("the head is too long"))

    def _refuse(self, error: HttpProcessingError) -> None:
        """Have it answered like bytes that are no request."""
        self._messages.append((_ErrInfo(status=error.code, exc=error, message=""), EMPTY_PAYLOAD))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _handle_request(self, request: web.BaseRequest, *others: Any) -> tuple[web.StreamResponse, bool]:
        """Answer a request; what it held is held until its answer has been written, or cannot be."""
        try:
            return await super()._handle_request(request, *others)
        finally:
            hold = request.get(HOLD)
            if hold is not None:
                hold.release()

    async def _drain_helper(self) -> None:
        """Wait until a client has taken nearly all that was written to it; one that does not in time is cut off."""
        if not self.writing_paused:
            return
        timer = self._loop.call_later(self._write_s, self._cut_off)
        try:
            await super()._drain_helper()
        finally:
            timer.cancel()

    def _cut_off(self) -> None:
        log.info("answer_not_taken", within_s=self._write_s)
        if self.transport is not None:
            self.transport.abort()

    def note_request(self) -> None:
        """Learn that a request has come."""
        self._head_bytes = 0
        self._stop_waiting()

    def _stop_waiting(self) -> None:
        if self._first_request is not None:
            self._first_request.cancel()
            self._first_request = None

    def _give_up(self) -> None:
        log.info("request_did_not_come")
        self.force_close()

    def handle_error(
        self, request: Any, status: int = 500, exc: BaseException | None = None, message: str | None = None
    ) -> web.StreamResponse:
        """Return the answer to what could not be read, or could not be answered; the connection ends with it."""
        self.log_exception("request", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("the answer has begun already")
        refused = Refusal(Code.INTERNAL, "internal error")
        if status < 500:
            refused = Refusal(Code.INVALID_REQUEST, "the request is malformed")
        response = render.refusal(refused)
        response.headers.update(SECURITY_HEADERS)
        response.headers["Server"] = SERVER
        response.headers["X-Request-ID"] = new_id()
        response.force_close()
        return response

    def log_exception(self, *args: Any, exc_info: BaseException | None = None, **_: Any) -> None:
        """Log what went wrong; of bytes that are no request only their kind of fault."""
        if isinstance(exc_info, (HttpProcessingError, web.RequestPayloadError)):
            log.info("request_malformed", fault=type(exc_info).__name__)
        else:
            log.error("connection_broke", exc_info=exc_info)


class Server(web.Server):
    """Speaks to each client with our protocol, to those that come too many with another.

    first_request_s: how long one has to send the head of a request. write_s: how long to take an answer.
    """

    first_request_s: float
    write_s: float
    doorway: Doorway

    def __call__(self) -> Any:
        """Return the protocol of a new connection."""
        if self.doorway.is_full:
            return TurnedAway(self.doorway)
        return Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application behind our server; its words are the server's."""

    def __init__(
        self,
        app: web.Application,
        *,
        doorway: Doorway | None = None,
        first_request_s: float = 15.0,
        write_s: float = 60.0,
        **options: Any,
    ) -> None:
        # aiohttp unfolds without a bound what no handler reads, and what it has refused already
        super().__init__(app, auto_decompress=False, **options)
        self._doorway = Doorway() if doorway is None else doorway
        self._first_request_s = first_request_s
        self._write_s = write_s

    async def _make_server(self) -> Server:
        made = await super()._make_server()

        def request(message: Any, payload: Any, protocol: Any, *others: Any) -> web.BaseRequest:
            protocol.note_request()
            one = made.request_factory(message, payload, protocol, *others)
            one[TELLING] = protocol.telling
            return one

        server = Server(made.request_handler, request_factory=request, loop=made._loop, **made._kwargs)
        server.first_request_s = self._first_request_s
        server.write_s = self._write_s
        server.doorway = self._doorway
        return server


async def expect(request: web.Request) -> None:
    """Let a client go on that waits to be told so (RFC 9110, 10.1.1); refuse it any other expectation."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
