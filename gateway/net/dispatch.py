"""One call to one agent, from the first byte out to the outcome; its clocks run all the while."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Final

import structlog
from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientPayloadError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    InvalidURL,
    TCPConnector,
)
from yarl import URL

from gateway.core import http_json, outcomes, retry
from gateway.core import streams as sse
from gateway.core.outcomes import Clock, Outcome
from gateway.core.relay import TooLong
from gateway.net.clocks import ClockExpired, Clocks, Watch
from gateway.net.connector import refused
from gateway.ports import Begin, Hold, Meter, NoRoom, Outbound, Sink

log = structlog.get_logger("gateway.net.dispatch")

RETURNED: Final = (
    "Content-Type",
    "A2A-Version",
    "A2A-Extensions",
    "X-A2A-Extensions",
    "Retry-After",
    "WWW-Authenticate",
)
"""The headers of an agent's answer that its caller gets."""
LINGER_S: Final = 5.0
"""How long an agent that has said all may take to end its stream; afterwards it is ended for it."""
PIECE_BYTES: Final = 4 * 1024
TURN_S: Final = 0.005
"""How long one stream may hold the loop, about: what comes of a few compressed bytes may have no end."""
_FIXED: Final = {"Accept-Encoding": "identity", "User-Agent": "a2a-gateway"}


class Dispatcher:
    """Sends calls to agents. limit_bytes: the longest body of an answer that is no stream. comments_count: whether the
    comments of a stream are signs of life."""

    def __init__(
        self, session: ClientSession, clocks: Clocks, *, limit_bytes: int, comments_count: bool = True
    ) -> None:
        self._session = session
        self._clocks = clocks
        self._limit_bytes = limit_bytes
        self._comments_count = comments_count

    async def send(self, outbound: Outbound, begin: Begin | None = None) -> Outcome:
        """Make the call and return what happened; never raises but when it is itself cancelled.

        An answer that is a stream goes, as it comes, to what `begin` returns. Sent again, once, only if no connection
        was acquired: afterwards the agent may already be working.
        """
        watch = self._clocks.watch(
            outbound.workspace_id,
            idle_s=outbound.idle_s,
            limit_s=outbound.limit_s,
            limit=Clock.DEADLINE if outbound.by_deadline else Clock.CEILING,
        )
        try:
            async with watch:
                outbound.meter.clockwork = watch
                outcome = await self._attempt(outbound, watch, begin)
                if retry.is_sent_again(outcome):
                    outcome = await self._attempt(outbound, watch, begin)
                return outcome
        except ClockExpired as expired:
            return outcomes.Expired(clock=expired.clock)

    async def _attempt(self, outbound: Outbound, watch: Watch, begin: Begin | None) -> Outcome:
        meter = outbound.meter
        meter.attempts += 1
        try:
            operation = outbound.operation
            url = outbound.url if operation is None else http_json.below(outbound.url, operation.path)
            request = self._session.request(
                "POST" if operation is None else operation.verb,
                URL(url, encoded=True),
                data=outbound.body or None,
                headers={**outbound.headers, **_FIXED},
                allow_redirects=False,
            )
            async with request as response:
                watch.touch()
                meter.first_byte_s = watch.age_s
                headers = _returned(response.headers)
                if begin is not None and sse.begins(response.status, headers):
                    return await self._relay(response, watch, begin(response.status, headers), meter)
                return await self._read(response, watch, outbound.hold, meter)
        except (ClientConnectorError, ConnectionTimeoutError, InvalidURL) as error:
            log.info(
                "agent_unreachable",
                call_id=outbound.call_id,
                workspace_id=outbound.workspace_id,
                error=type(error).__name__,
            )
            return outcomes.NotConnected(unsafe=refused(error) is not None)
        except (ClientError, OSError) as error:
            log.info(
                "agent_reset", call_id=outbound.call_id, workspace_id=outbound.workspace_id, error=type(error).__name__
            )
            return outcomes.Reset()

    async def _relay(self, response: ClientResponse, watch: Watch, sink: Sink, meter: Meter) -> Outcome:
        """Pass a stream on; what goes wrong after all has been said changes nothing any more."""
        watch.progress()
        loop, events, closed = asyncio.get_running_loop(), 0, False
        try:
            while chunk := await _next(response, sink):
                meter.received_bytes += len(chunk)
                turn = loop.time()
                for start in range(0, len(chunk), PIECE_BYTES):
                    if sink.feed(chunk[start : start + PIECE_BYTES]) or self._comments_count:
                        watch.touch()
                    if sink.events != events:
                        events = sink.events
                        watch.progress()
                    if len(chunk) > PIECE_BYTES and loop.time() - turn >= TURN_S:
                        await asyncio.sleep(0)
                        turn = loop.time()
                if sink.is_ahead:
                    await sink.rest()
                if len(chunk) > PIECE_BYTES:  # the next one may be there already
                    await asyncio.sleep(0)
            sink.finish()
            closed = True
        except TooLong:
            response.close()
            return outcomes.TooLarge()
        except NoRoom:
            response.close()
            return outcomes.Unheld(status=response.status)
        except (ClientPayloadError, ClientError, OSError):  # TimeoutError is one: it lingers
            response.close()
        if sink.complete:
            return outcomes.Streamed(status=response.status, headers=_returned(response.headers))
        return outcomes.Cut(status=response.status, closed=closed)

    async def _read(self, response: ClientResponse, watch: Watch, hold: Hold, meter: Meter) -> Outcome:
        chunks: list[bytes] = []
        size = 0
        try:
            async for chunk in response.content.iter_any():
                watch.touch()
                meter.received_bytes = size = size + len(chunk)
                if size > self._limit_bytes:
                    response.close()
                    return outcomes.TooLarge()
                hold.grow(len(chunk))
                chunks.append(chunk)
        except NoRoom:
            response.close()
            return outcomes.Unheld(status=response.status)
        except (ClientPayloadError, ClientError, OSError):
            return outcomes.Cut(status=response.status)
        return outcomes.Answered(
            status=response.status,
            headers=_returned(response.headers),
            body=b"".join(chunks),
            retry_after_s=retry.read_retry_after(response.headers.get("Retry-After"), datetime.now(UTC)),
        )


async def _next(response: ClientResponse, sink: Sink) -> bytes:
    """The next bytes of a stream, b"" at its end. Raises TimeoutError where nothing comes after its last event."""
    if not sink.complete:
        return await response.content.readany()
    async with asyncio.timeout(LINGER_S):
        return await response.content.readany()


def _returned(headers: Mapping[str, str]) -> dict[str, str]:
    """What may be passed on; a value that could not stand in a header of ours is left out."""
    return {name: headers[name] for name in RETURNED if name in headers and headers[name].isprintable()}


@asynccontextmanager
async def opened(
    connector: TCPConnector, clocks: Clocks, *, connect_s: float, limit_bytes: int, comments_count: bool = True
) -> AsyncIterator[Dispatcher]:
    """Open the client that agents are called with; no clock of its library runs but the one for connecting.

    That one covers the question to the name servers and all addresses together: a name may lead to many.
    """
    timeout = ClientTimeout(total=None, connect=connect_s, ceil_threshold=3600)
    async with ClientSession(
        connector=connector, timeout=timeout, cookie_jar=DummyCookieJar(), skip_auto_headers=("Accept",)
    ) as session:
        yield Dispatcher(session, clocks, limit_bytes=limit_bytes, comments_count=comments_count)
