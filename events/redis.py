"""The way to Redis and back: the only place in which the bus knows its client library.

Publishing and listening each have a plain connection of their own. The library's pub/sub connects again in silence and
loses what was published meanwhile; on a plain connection a loss is an error.
"""

import asyncio
import math
import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qsl, urlsplit

import structlog
from redis.asyncio import Connection, ConnectionPool
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import MasterNotFoundError, Sentinel
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError, ResponseError

from events import frame
from events.bus import LinkDown
from events.event import Event, gap
from events.frame import ORIGIN, Frame, MalformedFrame, Position

log = structlog.get_logger("events.redis")

_SCRIPT: Final = files("events").joinpath("publish.lua").read_text()
_KEEP: Final = files("events").joinpath("keep.lua").read_text()
AWAY: Final = (RedisError, OSError, TimeoutError)
"""What a connection says when Redis is not there, or not as it should be."""
ANSWER_S: Final = 2.0
"""How long Redis may take to connect, or to answer a batch or a page."""
STORED_S: Final = 86_400
"""How long Redis remembers the last sequence of a publisher that is silent."""
KEEP_TRIES: Final = 3
"""How often it is tried to keep the whole of a payload, which a slow way to Redis may be too slow for."""
PAGE: Final = 500
"""Journal entries read in one round trip at most ..."""
PAGE_BYTES: Final = 1024 * 1024
"""... and what they come to, more or less: what does not arrive within ANSWER_S would be asked for anew for ever."""
FIRST_PAGE: Final = 32
"""Entries of the first page, by which the size of the others is guessed."""
_OPTIONS: Final[dict[str, Any]] = {
    "retry": Retry(NoBackoff(), 0),
    "socket_timeout": ANSWER_S,
    "socket_connect_timeout": ANSWER_S,
    "protocol": 2,
    "client_name": "a2a-gateway",
}


class JournalUnavailable(LookupError):
    """The journal could not be read."""


class Servers:
    """Where Redis is: at one URL, or wherever its sentinels say that the primary is now.

    `redis+sentinel://[user:password@]host:port[,host:port...]/name[?db=0]` asks sentinels; any other URL is Redis's.
    Raises ValueError for a malformed one.
    """

    def __init__(self, url: str) -> None:
        self._sentinel: Sentinel | None = None
        self._pool: ConnectionPool | None = None
        if url.startswith("redis+sentinel://"):
            self._sentinel, self._name, self._options = _sentinel(url)
        else:
            self._pool = ConnectionPool.from_url(url, **_OPTIONS)

    async def connect(self) -> Any:
        """Return a new connection to the primary; raises RedisError, OSError or TimeoutError."""
        connection = await self._make()
        try:
            async with asyncio.timeout(ANSWER_S):
                await connection.connect()
                await connection.send_command("ROLE")
                role = await connection.read_response(timeout=math.inf)
            if role[0] != b"master":
                raise MasterNotFoundError(f"a server that says it is a {role[0]!r}")
        except BaseException:
            await connection.disconnect(nowait=True)
            raise
        return connection

    async def _make(self) -> Any:
        if self._sentinel is None:
            assert self._pool is not None
            return self._pool.make_connection()  # type: ignore[no-untyped-call]
        async with asyncio.timeout(ANSWER_S):
            host, port = await self._sentinel.discover_master(self._name)
        return Connection(host=host, port=port, **self._options)

    async def close(self) -> None:
        """Let go of what was opened to ask."""
        for asked in self._sentinel.sentinels if self._sentinel is not None else ():
            await asked.aclose()
        if self._pool is not None:
            await self._pool.disconnect()


def _sentinel(url: str) -> tuple[Sentinel, str, dict[str, Any]]:
    parts = urlsplit(url)
    name = parts.path.strip("/")
    credentials, _, hosts = parts.netloc.rpartition("@")
    addresses = []
    for host in hosts.split(","):
        left, _, port = host.rpartition(":")
        if not left or not port.isdecimal():
            raise ValueError("redis+sentinel:// needs HOST:PORT[,HOST:PORT...]/NAME")
        addresses.append((left.strip("[]"), int(port)))
    if not name:
        raise ValueError("redis+sentinel:// needs the name of the primary as its path")
    query = dict(parse_qsl(parts.query))
    user, _, password = credentials.partition(":")
    options = {**_OPTIONS, "db": int(query.get("db", 0))}
    if credentials:
        options |= {"username": user or None, "password": password}
    sentinel = Sentinel(addresses, sentinel_kwargs=dict(_OPTIONS))  # type: ignore[no-untyped-call]
    return sentinel, name, options


class Ear:
    """A connection on which frames are heard."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    async def hear(self) -> bytes:
        """Return the next frame's bytes; raises LinkDown when the connection is lost."""
        try:
            _, _, raw = await self._connection.read_response(timeout=math.inf)
        except AWAY as error:
            raise LinkDown from error
        heard: bytes = raw
        return heard

    def cut(self) -> None:
        """Break the connection, so that `hear` ends: the read itself is never cancelled."""
        writer = self._connection._writer
        if writer is not None:
            writer.transport.abort()


class RedisBus:
    """One Redis with one journal, under `prefix`; `journal_length` entries are kept, roughly.

    What is too large for the journal is kept beside it for `whole_s`, and at most `whole_bytes` in all.
    """

    def __init__(self, servers: Servers, *, prefix: str, journal_length: int, whole_s: float, whole_bytes: int) -> None:
        self._servers = servers
        self._prefix = prefix
        self._whole_s = math.ceil(whole_s)
        self._whole_bytes = whole_bytes
        self._tried: dict[str, int] = {}
        self._journal = f"{prefix}:journal"
        self._channel = f"{prefix}:events"
        self._publishers = f"{prefix}:publisher"
        self.publisher = secrets.token_hex(8)
        self._keys = (self._journal, f"{self._publishers}:{self.publisher}", f"{prefix}:server")
        self._journal_length = journal_length
        self._known = ORIGIN
        self._tried_last = 0
        self._is_stored = False
        self._publishing: Any = None
        self._run_id = b""
        self._sha = b""
        self._reading: Any = None
        self._read_turn = asyncio.Lock()

    def know(self, place: Position) -> None:
        """Note how far the journal has come: if it ends before this when something is published, entries are gone."""
        self._known = max(self._known, place)

    # -- out

    async def send(self, events: Sequence[Event], first_sequence: int) -> None:
        """Publish these in order, in one round trip; safe to repeat with the same numbers. Raises LinkDown.

        What may have been heard of a batch before Redis lost all that it knew of it is not published again.
        """
        try:
            async with asyncio.timeout(ANSWER_S):
                if self._publishing is None:
                    await self._connect()
            for event in events:
                if event.whole is not None:  # before the event: whoever hears that finds this
                    await self._keep(event.reference or "", event.whole)
            async with asyncio.timeout(ANSWER_S):
                await self._publish(events, first_sequence)
                self._tried.clear()
        except BaseException as error:
            await self._let_go()
            if isinstance(error, AWAY):
                raise LinkDown from error
            raise

    async def _connect(self) -> None:
        """Connect, learn which server this is, and teach it the script; at first, leave word who publishes."""
        self._publishing = await self._servers.connect()
        self._run_id = _run_id(await ask(self._publishing, "INFO", "server"))
        self._sha = await ask(self._publishing, "SCRIPT", "LOAD", _SCRIPT)
        if not self._is_stored:  # later it is not there only if it was lost
            await ask(self._publishing, "SET", self._keys[1], 0, "EX", STORED_S)
            self._is_stored = True

    async def _publish(self, events: Sequence[Event], first_sequence: int) -> None:
        gaps = (frame.body(gap("server_changed")), frame.body(gap("taken_back")))
        arguments: list[str | int | bytes] = [self._channel, self._journal_length, self._run_id, *gaps]
        arguments += (frame.show(self._known), first_sequence + 1, self._tried_last)
        if _is_over(self._publishing):
            raise ConnectionError("Redis has hung up")
        self._tried_last = first_sequence + len(events)
        for event in events:
            arguments += (1 if event.journalled else 0, frame.body(event))
        try:
            last = await ask(self._publishing, "EVALSHA", self._sha, len(self._keys), *self._keys, *arguments)
        except NoScriptError:
            last = await ask(self._publishing, "EVAL", _SCRIPT, len(self._keys), *self._keys, *arguments)
        self._tried_last = 0
        self.know(frame.find_position(last.decode()) or ORIGIN)

    async def _keep(self, reference: str, whole: bytes) -> None:
        """Keep the whole of a payload for a while; what Redis does not take in KEEP_TRIES is missed by its readers."""
        if self._tried.get(reference, 0) >= KEEP_TRIES:
            return
        self._tried[reference] = self._tried.get(reference, 0) + 1
        keys = (self._whole(reference), f"{self._prefix}:wholes", f"{self._prefix}:wholes:bytes")
        try:
            async with asyncio.timeout(ANSWER_S):
                await ask(self._publishing, "EVAL", _KEEP, len(keys), *keys, whole, self._whole_s, self._whole_bytes)
        except ResponseError as error:
            log.warning("body_not_kept", error=str(error)[:80], bytes=len(whole))

    def _whole(self, reference: str) -> str:
        return f"{self._prefix}:whole:{reference}"

    async def _let_go(self) -> None:
        connection, self._publishing = self._publishing, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    # -- back

    async def read(self, since: Position | None) -> AsyncIterator[Frame]:
        """Yield the journal's entries after this place (None: all), oldest first. Raises JournalUnavailable."""
        count = min(FIRST_PAGE, PAGE)
        while True:
            start = "-" if since is None else f"({frame.show(since)}"
            entries = await self._query("XRANGE", self._journal, start, "+", "COUNT", count)
            size = sum(len(word) for _, fields in entries for word in fields)
            for id_, fields in entries:
                since = frame.find_position(id_.decode())
                named = dict(zip(fields[::2], fields[1::2], strict=True))
                try:
                    heard = frame.entry(id_, named[b"p"], named[b"f"])
                except (KeyError, MalformedFrame):  # not ours, or of a version to come
                    log.warning("journal_malformed_entry", id=id_.decode())
                    continue
                yield heard
            if len(entries) < count:
                return
            count = max(1, min(PAGE, PAGE_BYTES * count // (size + 1)))

    async def newest(self) -> Position:
        """Return the journal's last place. Raises JournalUnavailable."""
        entries = await self._query("XREVRANGE", self._journal, "+", "-", "COUNT", 1)
        return (frame.find_position(entries[0][0].decode()) or ORIGIN) if entries else ORIGIN

    async def whole(self, reference: str) -> bytes | None:
        """Return all of a payload that is kept beside the journal, None if it is not. Raises JournalUnavailable."""
        found: bytes | None = await self._query("GET", self._whole(reference))
        return found

    async def has_taken(self, publisher: str, count: int) -> bool:
        """Return whether the server has had so many events of this publisher. Raises LinkDown."""
        try:
            return int(await self._query("GET", f"{self._publishers}:{publisher}") or 0) >= count
        except JournalUnavailable as error:
            raise LinkDown from error

    async def now_ms(self) -> int:
        """Return the server's time, by which it gives ids: Unix milliseconds. Raises JournalUnavailable."""
        seconds, microseconds = await self._query("TIME")
        return int(seconds) * 1000 + int(microseconds) // 1000

    async def length(self) -> int:
        """Return how many entries the journal has. Raises JournalUnavailable."""
        return int(await self._query("XLEN", self._journal))

    async def eviction(self) -> str | None:
        """Return the policy by which Redis evicts keys when its memory is full, None if it does not tell.

        The journal needs `noeviction`. Raises JournalUnavailable.
        """
        try:
            found = await self._query("CONFIG", "GET", "maxmemory-policy")
        except JournalUnavailable as error:
            if isinstance(error.__cause__, ResponseError):
                return None
            raise
        return found[1].decode() if found else None

    async def _query(self, *command: str | int) -> Any:
        async with self._read_turn:
            try:
                async with asyncio.timeout(ANSWER_S):
                    if self._reading is None:
                        self._reading = await self._servers.connect()
                    return await ask(self._reading, *command)
            except BaseException as error:
                await self._stop_reading()
                if isinstance(error, AWAY):
                    raise JournalUnavailable from error
                raise

    async def _stop_reading(self) -> None:
        connection, self._reading = self._reading, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[Ear]:
        """Subscribe, on a new connection that lasts as long as the block. Raises LinkDown.

        What is read from now on is read from the same server: the one before may not know yet that it is none any more.
        """
        await self._stop_reading()
        try:
            connection = await self._servers.connect()
        except AWAY as error:
            raise LinkDown from error
        try:
            try:
                await connection.send_command("SUBSCRIBE", self._channel)
                await connection.read_response()
            except AWAY as error:
                raise LinkDown from error
            yield Ear(connection)
        finally:
            await connection.disconnect(nowait=True)

    async def close(self) -> None:
        """Close what is open."""
        await self._let_go()
        await self._stop_reading()


def _is_over(connection: Any) -> bool:
    """Whether the other end is known to have hung up: what is sent now reaches nobody."""
    reader: asyncio.StreamReader | None = connection._reader
    return reader is None or reader.at_eof() or reader.exception() is not None


async def ask(connection: Any, *command: str | int | bytes) -> Any:
    """Return the answer to one command; raises RedisError, OSError or TimeoutError."""
    await connection.send_command(*command)
    return await connection.read_response(timeout=math.inf)


def _run_id(info: bytes) -> bytes:
    for line in info.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name == b"run_id":
            return value
    return b"unknown"


def check_url(url: str) -> None:
    """Raise ValueError for a URL that is no Redis's."""
    Servers(url)


@asynccontextmanager
async def opened(
    url: str, *, prefix: str, journal_length: int, whole_s: float = 900.0, whole_bytes: int = 256 * 1024 * 1024
) -> AsyncIterator[RedisBus]:
    """Prepare the ways to this URL. Redis need not answer yet; a malformed URL raises ValueError."""
    servers = Servers(url)
    link = RedisBus(servers, prefix=prefix, journal_length=journal_length, whole_s=whole_s, whole_bytes=whole_bytes)
    try:
        yield link
    finally:
        await link.close()
        await servers.close()
