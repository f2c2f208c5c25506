"""What clients get whose bytes are no request: our kind of refusal, and no word of theirs in it or in the log."""

from typing import Any

import structlog
from aiohttp import web
from aiohttp.http import HttpProcessingError
from aiohttp.web_protocol import RequestHandler

from gateway.core.ids import new_id
from gateway.core.refusals import Code, Refusal
from gateway.web import render
from gateway.web.guard import SECURITY_HEADERS

log = structlog.get_logger("gateway.web")


class Protocol(RequestHandler):
    """aiohttp's protocol, whose own answers and log lines would show what the client sent: its token, its body."""

    __slots__ = ()

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
    """Speaks to each client with our protocol."""

    def __call__(self) -> RequestHandler:
        """Return the protocol of a new connection."""
        return Protocol(self, loop=self._loop, **self._kwargs)


class Runner(web.AppRunner):
    """Runs an application behind our server."""

    async def _make_server(self) -> Server:
        made = await super()._make_server()
        return Server(made.request_handler, request_factory=made.request_factory, loop=made._loop, **made._kwargs)


async def expect(request: web.Request) -> None:
    """Let a client go on that waits to be told so (RFC 9110, 10.1.1); refuse it any other expectation."""
    if request.headers.get("Expect", "").lower() != "100-continue":
        raise web.HTTPExpectationFailed(text="")
    await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
    request.writer.output_size = 0
