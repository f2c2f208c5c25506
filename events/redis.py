"""The way to Redis and back: the only place in which the bus knows its client library."""

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, Final, Protocol

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from events import frame
from events.bus import LinkDown
from events.event import Event
from events.frame import Frame, MalformedFrame, Position

log = structlog.get_logger("events.redis")

_SCRIPT: Final = files("events").joinpath("publish.lua").read_text()
_AWAY: Final = (RedisError, OSError, TimeoutError)
PAGE: Final = 500
"""Journal entries read in one round trip."""


class JournalUnavailable(Exception):
    """The journal could not be read."""


class Listener(Protocol):
    """Who hears the frames of this process (`hub.Hub`)."""

    def hear(self, frame: Frame) -> None:
        """Take one frame."""

    def lost(self, reason: str) -> None:
        """Learn that frames may have been missed."""


class RedisBus:
    """One Redis with one journal, under `prefix`; `journal_length` entries are kept, roughly.

    `up` tells whether the subscriber is connected.
    """

    def __init__(self, client: Redis, *, prefix: str, journal_length: int) -> None:
        self._client = client
        self._journal = f"{prefix}:journal"
        self._channel = f"{prefix}:events"
        self._journal_length = journal_length
        self._last_sequence_key = f"{prefix}:publisher:{secrets.token_hex(8)}"
        self._script = client.register_script(_SCRIPT)
        self._heard_before = False
        self.up = False

    # -- out

    async def send(self, events: Sequence[Event], first_sequence: int) -> None:
        """Publish these in order, in one round trip; safe to repeat with the same numbers. Raises LinkDown."""
        arguments: list[str | int | bytes] = [self._channel, self._journal_length, first_sequence + 1]
        for event in events:
            arguments += (1 if event.journalled else 0, frame.body(event))
        try:
            await self._script(keys=(self._journal, self._last_sequence_key), args=arguments)
        except _AWAY as error:
            raise LinkDown from error

    # -- back

    async def read(self, since: Position) -> AsyncIterator[Frame]:
        """Yield the journal's entries after this place, oldest first. Raises JournalUnavailable."""
        while True:
            try:
                entries: Any = await self._client.xrange(self._journal, f"({since[0]}-{since[1]}", "+", count=PAGE)
            except _AWAY as error:
                raise JournalUnavailable from error
            for id_, fields in entries:
                since = frame.find_position(id_.decode()) or since
                try:
                    heard = frame.entry(id_, fields[b"p"], fields[b"f"])
                except (KeyError, MalformedFrame):  # not ours, or of a version to come
                    log.warning("journal_malformed_entry", id=id_.decode())
                    continue
                yield heard
            if len(entries) < PAGE:
                return

    async def span(self) -> tuple[str, str] | None:
        """Return the oldest entry's `prev` and the newest's id, None for no entry at all. Raises JournalUnavailable."""
        try:
            pipeline = self._client.pipeline(transaction=True)
            pipeline.xrange(self._journal, "-", "+", count=1)
            pipeline.xrevrange(self._journal, "+", "-", count=1)
            oldest, newest = await pipeline.execute()
        except _AWAY as error:
            raise JournalUnavailable from error
        if not oldest or not newest:
            return None
        return oldest[0][1][b"p"].decode(), newest[0][0].decode()

    async def listen(
        self, listener: Listener, *, retry_s: Callable[[], float], ready: asyncio.Event | None = None
    ) -> None:
        """Hear every frame, for ever, on a connection of its own; after each loss of it, say so.

        The client library's own pub/sub connects again in silence and loses what was published meanwhile; on a plain
        connection a loss is an error.
        """
        while True:
            connection: Any = self._client.connection_pool.make_connection()  # type: ignore[no-untyped-call]
            try:
                await connection.connect()
                await connection.send_command("SUBSCRIBE", self._channel)
                await connection.read_response()
                self.up = True
                if self._heard_before:
                    listener.lost("reconnected")
                self._heard_before = True
                if ready is not None:
                    ready.set()
                log.info("bus_up")
                while True:
                    _, _, raw = await connection.read_response(timeout=math.inf)
                    try:
                        listener.hear(frame.parse(raw))
                    except MalformedFrame:
                        log.warning("bus_malformed_frame", start=raw[:80])
            except _AWAY as error:
                log.warning("bus_down", error=type(error).__name__)
            finally:
                self.up = False
                await connection.disconnect(nowait=True)
            await asyncio.sleep(retry_s())


@asynccontextmanager
async def opened(url: str, *, prefix: str, journal_length: int) -> AsyncIterator[RedisBus]:
    """Open the clients for this URL. Redis need not answer yet; a malformed URL raises ValueError."""
    client = Redis.from_url(
        url,
        retry=Retry(NoBackoff(), 0),
        socket_timeout=5,
        socket_connect_timeout=2,
        protocol=2,
        client_name="a2a-gateway",
    )
    try:
        yield RedisBus(client, prefix=prefix, journal_length=journal_length)
    finally:
        await client.aclose()
