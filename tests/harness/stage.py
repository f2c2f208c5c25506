"""A gateway that is asked for everything while something is wrong, and all that clients and readers hear of it."""

import asyncio
import re
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from dataclasses import dataclass, field
from typing import Final
from urllib.parse import urlsplit
from uuid import uuid4

import aiohttp
import orjson
import psycopg2

from gateway.web.parse import SESSION_COOKIE
from gateway.web.routes import ROUTES
from tests.harness.agent import ScriptedAgent
from tests.harness.cast import GOOD, OPERATIONS, Cast
from tests.harness.process import GatewayProcess
from tests.harness.raw import exchange
from tests.harness.valkey import Valkey
from tests.harness.world import ADMIN_TOKEN, Workspace, World

PLANTED: Final = "planted-word"
"""What all planted words begin with, whatever the case."""
DATABASE_WORD: Final = f"{PLANTED}-of-the-database"
REDIS_WORD: Final = f"{PLANTED}-of-redis"
UNKNOWN: Final = "00000000-0000-4000-8000-000000000404"
Fault = Callable[["Stage"], AbstractAsyncContextManager[None]]


@dataclass
class Stage:
    """A gateway whose every neighbour knows a word that is not to be passed on, and all that it has said."""

    world: World
    gateway: GatewayProcess
    agent: ScriptedAgent
    target: Workspace
    broker: Valkey
    session: str
    said: bytearray = field(default_factory=bytearray)
    statuses: set[int] = field(default_factory=set)

    async def send(self, raw: bytes, *, until: bytes | None = None) -> None:
        """Send bytes as they are, and keep what comes back."""
        came = await exchange(self.gateway.url, raw, until=until)
        self.said += came
        found = re.match(rb"HTTP/1.[01] ([0-9]{3}) ", came)
        if found is not None:
            self.statuses.add(int(found[1]))

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        shows: str = f"Authorization: Bearer {ADMIN_TOKEN}",
        until: bytes | None = None,
    ) -> None:
        """Ask as whoever shows this header."""
        lines = [
            f"{method} {path} HTTP/1.1",
            "Host: gateway",
            "Connection: close",
            shows,
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        await self.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body, until=until)

    async def ask_every_route(self) -> None:
        """Ask for everything that there is, as the operator, as the workspace, and by session; nothing is removed."""
        cast = Cast(world=self.world, gateway=self.gateway, agent=self.agent, target=self.target, stranger=self.target)
        for route in ROUTES:
            make = GOOD[f"{route.method} {route.path}"]
            body = orjson.dumps(make(cast)) if make is not None else b""
            of = UNKNOWN if route.method == "DELETE" else self.target.id
            path = route.path.format(
                workspace_id=of,
                token_id=UNKNOWN,
                call_id=UNKNOWN,
                delegation_id=UNKNOWN,
                operation=OPERATIONS.get(route.method, ""),
            )
            if "wait" in route.query:
                path += "?wait=0"
            for shows in (
                f"Authorization: Bearer {ADMIN_TOKEN}",
                f"Authorization: Bearer {self.target.token}",
                f"Cookie: {SESSION_COOKIE}={self.session}",
            ):
                await self.ask(route.method, path, body, shows=shows, until=b": ok" if route.stream else None)

    async def call(self, to: Workspace) -> None:
        message = {"role": "user", "messageId": uuid4().hex, "parts": [{"kind": "text", "text": "hi"}]}
        body = {"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": {"message": message}}
        await self.ask("POST", f"/workspaces/{to.id}/a2a", orjson.dumps(body))

    async def administer(self, *commands: str) -> None:
        """Do something to the database from outside it."""
        url = self.world.env["GATEWAY_DATABASE_URL"]

        def do() -> None:
            with closing(psycopg2.connect(url, dbname="postgres")) as session:
                session.autocommit = True
                with session.cursor() as cursor:
                    for command in commands:
                        cursor.execute(command, {"name": urlsplit(url).path[1:]})

        await asyncio.to_thread(do)


# -- what goes wrong


@asynccontextmanager
async def nothing(_: Stage) -> AsyncIterator[None]:
    yield


@asynccontextmanager
async def no_database(stage: Stage) -> AsyncIterator[None]:
    """It is there, and lets nobody in: it says its name and ours when it refuses."""
    name = urlsplit(stage.world.env["GATEWAY_DATABASE_URL"]).path[1:]
    await stage.administer(
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %(name)s",
    )
    try:
        yield
    finally:
        await stage.administer(f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@asynccontextmanager
async def no_redis(stage: Stage) -> AsyncIterator[None]:
    stage.broker.kill()
    try:
        yield
    finally:
        await stage.broker.start()


def angry(table: str) -> Fault:
    """Every statement that meets this table fails with words of the database's."""

    @asynccontextmanager
    async def fault(stage: Stage) -> AsyncIterator[None]:
        await stage.world.sql(
            "CREATE FUNCTION rage() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN"
            f" RAISE EXCEPTION '{PLANTED} of SQL' USING DETAIL = '{PLANTED} of a row', HINT = '{PLANTED} of a hint';"
            " END $$;"
            f" ALTER TABLE {table} RENAME TO {table}_away;"
            f" CREATE VIEW {table} AS SELECT * FROM {table}_away WHERE rage() LIMIT 99"
        )
        try:
            yield
        finally:
            await stage.world.sql(
                f"DROP VIEW {table}; ALTER TABLE {table}_away RENAME TO {table}; DROP FUNCTION rage()"
            )

    return fault


@asynccontextmanager
async def an_unheard_of_row(stage: Stage) -> AsyncIterator[None]:
    """A status that no code knows: whoever reads the row breaks with an exception that quotes it."""
    await stage.world.sql(
        "ALTER TABLE workspaces DROP CONSTRAINT workspaces_status_check;"
        f" UPDATE workspaces SET status = '{PLANTED}-of-a-row' WHERE id = '{stage.target.id}'"
    )
    try:
        yield
    finally:
        await stage.world.sql(f"UPDATE workspaces SET status = 'online' WHERE id = '{stage.target.id}'")


# -- who watches


async def read_stream(url: str, said: bytearray) -> None:
    """Read all events as bytes, for ever."""
    head = (
        f"GET /events/stream HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nLast-Event-ID: 0-0\r\n\r\n"
    )
    parts = urlsplit(url)
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            with closing(writer):
                writer.write(head.encode())
                while chunk := await reader.read(65536):
                    said += chunk
        await asyncio.sleep(0.05)


async def read_socket(world: World, said: bytearray) -> None:
    """Read all events over a WebSocket, for ever."""
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    while True:
        with suppress(aiohttp.ClientError):
            async with world.session.ws_connect(f"{world.url}/ws?last_event_id=0-0", headers=headers) as socket:
                async for message in socket:
                    said += message.data.encode()
        await asyncio.sleep(0.05)
