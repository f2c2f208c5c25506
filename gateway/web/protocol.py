"""What clients get whose bytes are no request, or do not come: no word of theirs in it or in the log."""

import asyncio
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from gateway.core.ids import new_id
from gateway.core.refusals import Code, Refusal
from gateway.web import render
from gateway.web.guard import SECURITY_HEADERS, SERVER

log = structlog.get_logger("gateway.web")


class Protocol(RequestHandler):
    """aiohttp's protocol, whose own answers and log lines would show what the client sent: its token, its body."""

    __slots__ = ("_first_request",)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Give a new client a while to send its first request; those that come later have aiohttp's keep-alive time."""
        super().connection_made(transport)
        server: Any = self._manager
        self._first_request: asyncio.TimerHandle | None = self._loop.call_later(server.first_request_s, self._give_up)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Wait for nothing any more."""
        self.note_request()
        super().connection_lost(exc)

    def note_request(self) -> None:
        """Learn that a request has come."""
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
    """Speaks to each client with our protocol; `first_request_s` is how long one has to send the head of a request."""

    first_request_s: float

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        return Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application behind our server. first_request_s: how long a new client has to send a request's head."""

    def __init__(self, app: web.Application, *, first_request_s: float = 15.0, **options: Any) -> None:
        super().__init__(app, **options)
        self._first_request_s = first_request_s

    async def _make_server(self) -> Server:
        made = await super()._make_server()

        def request(message: Any, payload: Any, protocol: Any, *others: Any) -> web.BaseRequest:
            protocol.note_request()
            return made.request_factory(message, payload, protocol, *others)

        server = Server(made.request_handler, request_factory=request, loop=made._loop, **made._kwargs)
        server.first_request_s = self._first_request_s
        return server


async def expect(request: web.Request) -> None:
    """Let a client go on that waits to be told so (RFC 9110, 10.1.1); refuse it any other expectation."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
