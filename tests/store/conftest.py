"""What the tests of the store share: a database of their own, somebody who watches it, and a bad network."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

import psycopg2
import pytest
import uvloop

from gateway.embedded.servers import Urls
from gateway.services.tasks import Tasks
from gateway.store import db

Opener = Callable[..., AbstractAsyncContextManager[db.Database]]


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What touches sockets is tested on both loops."""
    if item.path.stem.startswith(("test_db", "test_database")):
        return {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}
    return {"asyncio": asyncio.new_event_loop}


class Watcher:
    """A session beside the pool's, which sees what the server sees of the sessions called `name`."""

    def __init__(self, url: str, name: str) -> None:
        self._name = name
        self._session = psycopg2.connect(url)
        self._session.autocommit = True

    def ask(self, query: str, *params: object) -> Any:
        with self._session.cursor() as cursor:
            cursor.execute(query, params or None)
            return cursor.fetchall() if cursor.description else None

    def pids(self, condition: str = "true") -> set[int]:
        query = f"SELECT pid FROM pg_stat_activity WHERE application_name = '{self._name}' AND {condition}"
        return {pid for (pid,) in self.ask(query)}

    def running(self) -> set[int]:
        return self.pids("state = 'active' AND query NOT LIKE '%pg_cancel_backend%'")

    def terminate(self, *pids: int) -> None:
        for pid in pids:
            self.ask("SELECT pg_terminate_backend(%s, 5000)", pid)

    def close(self) -> None:
        self._session.close()


@pytest.fixture(scope="session")
def server(servers: Urls) -> Iterator[Watcher]:
    watcher = Watcher(servers.database_url, "")
    yield watcher
    watcher.close()


@pytest.fixture
def name(server: Watcher) -> Iterator[str]:
    """An empty schema that goes with the test, called like the test's sessions."""
    name = f"test_{uuid.uuid4().hex}"
    server.ask(f"CREATE SCHEMA {name}")
    yield name
    server.ask(f"DROP SCHEMA {name} CASCADE")


@pytest.fixture
def database_url(servers: Urls, name: str) -> str:
    """The server, and in it the test's schema."""
    return f"{servers.database_url}&options=-c%20search_path%3D{name}"


@pytest.fixture
def empty_database_url(servers: Urls, server: Watcher) -> Iterator[str]:
    """A whole database that goes with the test, for those who migrate."""
    name = f"test_{uuid.uuid4().hex}"
    server.ask(f"CREATE DATABASE {name}")
    yield urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
    server.ask(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def watcher(database_url: str, name: str) -> Iterator[Watcher]:
    watcher = Watcher(database_url, name)
    yield watcher
    watcher.close()


@pytest.fixture
async def open_database(database_url: str, name: str) -> AsyncIterator[Opener]:
    """`db.opened` on the test's schema, with small numbers unless told otherwise."""
    async with Tasks() as tasks:

        def opened(url: str = database_url, **settings: Any) -> AbstractAsyncContextManager[db.Database]:
            few = {"pool_size": 4, "statement_timeout_s": 10.0, "application_name": name, "spawn": tasks.spawn}
            return db.opened(url, **{**few, **settings})

        yield opened
    assert tasks.deaths == 0


@pytest.fixture
async def database(open_database: Opener) -> AsyncIterator[db.Database]:
    async with open_database() as database:
        yield database


@pytest.fixture
async def migrated(open_database: Opener, migrated_database_url: str) -> AsyncIterator[db.Database]:
    """A database that goes with the test, with the schema in it."""
    async with open_database(migrated_database_url) as database:
        yield database


@pytest.fixture
def eventually() -> Callable[[Callable[[], object]], Awaitable[None]]:
    """Wait until a condition holds; it is asked 100 times a second, for ten seconds at most."""

    async def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline, "it never came true"
            await asyncio.sleep(0.01)

    return wait


class Network:
    """A TCP way to the server that can go bad.

    `frozen` carries nothing at all, `deaf` nothing for connections that are new, `refuses_tls` breaks off handshakes.
    """

    def __init__(self, socket_path: str) -> None:
        self._socket_path = socket_path
        self._flows = asyncio.Event()
        self._flows.set()
        self._writers: set[asyncio.StreamWriter] = set()
        self.deaf = False
        self.refuses_tls = False
        self.connections = 0

    @property
    def frozen(self) -> bool:
        return not self._flows.is_set()

    @frozen.setter
    def frozen(self, frozen: bool) -> None:
        (self._flows.clear if frozen else self._flows.set)()

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            first = await reader.readexactly(8)
            if self.deaf:
                await reader.read()
            elif self.refuses_tls and first[4:] == (80877103).to_bytes(4, "big"):  # SSLRequest
                writer.write(b"S")
                await writer.drain()
                await reader.read(1)
            else:
                await self._join(first, reader, writer)
        writer.close()

    async def _join(self, first: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._flows.wait()
        upstream, to_server = await asyncio.open_unix_connection(self._socket_path)
        self._writers.add(to_server)
        to_server.write(first)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pour(reader, to_server))
            group.create_task(self._pour(upstream, writer))

    async def _pour(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await self._flows.wait()
                sink.write(data)
                await sink.drain()
        sink.close()

    def cut(self) -> None:
        for writer in self._writers:
            writer.close()


@pytest.fixture
async def network(database_url: str) -> AsyncIterator[tuple[Network, str]]:
    """A `Network` in front of the server, and the database's URL by way of it."""
    parts = urlsplit(database_url)
    folder = parse_qs(parts.query)["host"][0]
    network = Network(f"{folder}/.s.PGSQL.5432")

    @asynccontextmanager
    async def listening() -> AsyncIterator[int]:
        server = await asyncio.start_server(network.carry, "127.0.0.1", 0)
        try:
            yield server.sockets[0].getsockname()[1]
        finally:
            server.close()
            network.frozen = False
            network.cut()
            await server.wait_closed()

    async with listening() as port:
        yield network, f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}?{parts.query}&host=127.0.0.1"
