"""One connection to the events that an agent serves itself, from the question to its end."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Final

from aiohttp import (
    ClientConnectorError,
    ClientError,
    ClientResponse,
    ClientSession,
    ClientTimeout,
    ConnectionTimeoutError,
    DummyCookieJar,
    InvalidURL,
    TCPConnector,
)
from yarl import URL

from gateway.core import address, outcomes, retry
from gateway.core.feeds import How
from gateway.core.outcomes import Clock
from gateway.core.sse import EventParser
from gateway.net.connector import refused
from gateway.ports import FeedListener, FeedSource

PIECE_BYTES: Final = 4 * 1024
TURN_S: Final = 0.002
"""How long a feed may hold the loop, about: what is no event costs as much to read as what is one ..."""
RESTS: Final = 19
"""... and for how many times as long it is not read afterwards: nobody else may notice an agent that talks for ever."""
REST_MOST_S: Final = 0.1
_FIXED: Final = {
    "Accept": "text/event-stream",
    "Accept-Encoding": "identity",
    "Cache-Control": "no-store",
    "Connection": "close",  # one that the agent is about to end must not be used again
    "User-Agent": "a2a-gateway",
}


class EventFeed:
    """Reads feeds. first_byte_s: how long the head of an answer may take, the making of the connection included.

    silence_s: how long nothing may come afterwards. limit_bytes: the largest event.
    """

    def __init__(
        self,
        session: ClientSession,
        *,
        reach: address.Reach,
        first_byte_s: float,
        silence_s: float,
        limit_bytes: int,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._session = session
        self._reach = reach
        self._first_byte_s = first_byte_s
        self._silence_s = silence_s
        self._limit_bytes = limit_bytes
        self._now = now

    async def read(self, source: FeedSource, listener: FeedListener) -> How:
        """Read until the connection ends and return how; raises what the listener raises."""
        if isinstance(address.check_url(source.url, self._reach), address.Unsafe):
            return outcomes.NotConnected(unsafe=True)
        try:
            response = await self._ask(source)
        except (ClientConnectorError, ConnectionTimeoutError, InvalidURL) as error:
            return outcomes.NotConnected(unsafe=refused(error) is not None)
        except TimeoutError:  # of the head alone: the one for connecting is caught above
            return outcomes.Expired(clock=Clock.FIRST_BYTE)
        except (ClientError, OSError):
            return outcomes.Reset()
        try:
            refusal = self._refusal(response)
            if refusal is not None:
                return refusal
            listener.opened()
            return await self._follow(response, source, listener)
        finally:
            response.close()

    async def _ask(self, source: FeedSource) -> ClientResponse:
        headers = {**_FIXED, "X-Workspace-ID": source.workspace_id}
        if source.secret is not None:
            headers["Authorization"] = f"Bearer {source.secret}"
        if source.last_id and source.last_id.isprintable():
            headers["Last-Event-ID"] = source.last_id
        async with asyncio.timeout(self._first_byte_s):
            return await self._session.get(URL(source.url, encoded=True), headers=headers, allow_redirects=False)

    def _refusal(self, response: ClientResponse) -> How | None:
        coded = response.headers.get("Content-Encoding", "identity").strip().lower() != "identity"
        if response.status == HTTPStatus.OK and not coded and response.content_type == "text/event-stream":
            return None
        asked = response.headers.get("Retry-After")
        return outcomes.Answered(
            status=response.status,
            headers={} if asked is None else {"Retry-After": asked},
            body=b"",
            retry_after_s=retry.read_retry_after(asked, self._now()),
        )

    async def _follow(self, response: ClientResponse, source: FeedSource, listener: FeedListener) -> How:
        parser = EventParser(limit_bytes=self._limit_bytes, last_id=source.last_id)
        loop, worked_s = asyncio.get_running_loop(), 0.0
        while True:
            try:
                async with asyncio.timeout(self._silence_s):
                    chunk = await response.content.readany()
            except TimeoutError:
                return outcomes.Expired(clock=Clock.IDLE)
            except (ClientError, OSError):
                return outcomes.Cut(status=response.status)
            if not chunk:
                retry_s = None if parser.retry_ms is None else parser.retry_ms / 1000
                return outcomes.Streamed(status=response.status, headers={}, retry_after_s=retry_s)
            for start in range(0, len(chunk), PIECE_BYTES):
                began = loop.time()
                events = parser.feed(chunk[start : start + PIECE_BYTES])
                worked_s += loop.time() - began
                for came in events:
                    await listener.heard(came)
                listener.passed(parser.last_id, parser.dropped)
                if worked_s >= TURN_S:
                    await asyncio.sleep(min(RESTS * worked_s, REST_MOST_S))
                    worked_s = 0.0


@asynccontextmanager
async def opened(
    connector: TCPConnector,
    *,
    reach: address.Reach,
    connect_s: float,
    first_byte_s: float,
    silence_s: float,
    limit_bytes: int,
) -> AsyncIterator[EventFeed]:
    """Open the client that feeds are read with; `connector` checks every address that it goes to."""
    timeout = ClientTimeout(total=None, connect=connect_s, ceil_threshold=3600)
    async with ClientSession(
        connector=connector, timeout=timeout, cookie_jar=DummyCookieJar(), auto_decompress=False
    ) as session:
        yield EventFeed(session, reach=reach, first_byte_s=first_byte_s, silence_s=silence_s, limit_bytes=limit_bytes)
