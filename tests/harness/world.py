"""A world for one test: a database and a bus of its own, gateways on them, agents, and clients."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import AsyncExitStack, asynccontextmanager, closing
from typing import Any, TypeVar
from uuid import uuid4

import aiohttp
import psycopg2

from gateway.services.tasks import Tasks
from tests.harness import agent, process, raw
from tests.harness.agent import Behaviour, ScriptedAgent
from tests.harness.process import GatewayProcess
from tests.harness.reader import Reader

ADMIN_TOKEN = "admin-token-of-the-tests"

T = TypeVar("T")


class Workspace:
    """A workspace as the test knows it."""

    def __init__(self, id_: str, token: str) -> None:
        self.id = id_
        self.token = token

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


class World:
    """What a test needs to act as an operator, a browser, a runtime and an agent at once."""

    def __init__(self, stack: AsyncExitStack, session: aiohttp.ClientSession, env: Mapping[str, str]) -> None:
        self._stack = stack
        self.session = session
        self.env = dict(env)
        self.gateways: list[GatewayProcess] = []

    @property
    def url(self) -> str:
        """The first gateway's address."""
        return self.gateways[0].url

    async def start(self, *, first_file: int = 0, **env: str) -> GatewayProcess:
        """Start one more gateway on the same datastores; `first_file` is the lowest file descriptor it can open."""
        one = await self._stack.enter_async_context(process.serving(env={**self.env, **env}, first_file=first_file))
        self.gateways.append(one)
        return one

    async def agent(self, behave: Behaviour = agent.echo) -> ScriptedAgent:
        return await self._stack.enter_async_context(agent.running(behave))

    async def raw_agent(self, answer: bytes, *, reset: bool = False) -> str:
        """Start an agent that writes these bytes, and return its url."""
        return await self._stack.enter_async_context(raw.running(answer, reset=reset))

    async def request(
        self, method: str, path: str, *, gateway: GatewayProcess | None = None, **options: Any
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Return status, body (JSON where it is) and headers; as the operator, unless headers say otherwise."""
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"} | options.pop("headers", {})
        headers = {name: value for name, value in headers.items() if value is not None}
        url = (gateway or self.gateways[0]).url + path
        async with self.session.request(method, url, headers=headers, **options) as response:
            body: Any = await response.read()
            if response.content_type == "application/json" and body:
                body = await response.json()
            return response.status, body, response.headers

    async def workspace(self, url: str | None = None, **fields: Any) -> Workspace:
        """Create an external workspace; with a url it is online at once."""
        wanted = {"name": f"agent {uuid4().hex[:8]}", "external": True, **fields}
        if url is not None:
            wanted["url"] = url
        status, body, _ = await self.request("POST", "/workspaces", json=wanted)
        assert status == 201, body
        return Workspace(body["id"], body["connection"]["auth_token"])

    async def call(
        self,
        to: Workspace,
        text: str = "hi",
        *,
        gateway: GatewayProcess | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Send a message to a workspace, as a browser of the operator unless headers say otherwise."""
        message = {"role": "user", "messageId": uuid4().hex, "parts": [{"kind": "text", "text": text}]}
        body = {"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": {"message": message}}
        return await self.request(
            "POST", f"/workspaces/{to.id}/a2a", gateway=gateway, json=body, headers=dict(headers or {})
        )

    async def beat(self, of: Workspace, *, gateway: GatewayProcess | None = None, **fields: Any) -> int:
        status, _, _ = await self.request(
            "POST", "/registry/heartbeat", gateway=gateway, json={"workspace_id": of.id, **fields}, headers=of.bearer
        )
        return status

    @asynccontextmanager
    async def beating(
        self, of: Workspace, every_s: float, *, gateway: GatewayProcess | None = None, **fields: Any
    ) -> AsyncIterator[None]:
        """Heartbeat for as long as the block lasts."""

        async def beat() -> None:
            while True:
                assert await self.beat(of, gateway=gateway, **fields) == 200
                await asyncio.sleep(every_s)

        async with _beside(beat()):
            yield

    @asynccontextmanager
    async def reading(
        self, of: Workspace, *, gateway: GatewayProcess | None = None, since: str | None = None
    ) -> AsyncIterator[Reader]:
        """Read a workspace's events while the block lasts; `since` is a Last-Event-ID, "0-0" for all there are."""
        url = f"{(gateway or self.gateways[0]).url}/workspaces/{of.id}/events/stream"
        headers = of.bearer if since is None else {**of.bearer, "Last-Event-ID": since}
        async with self.session.get(url, headers=headers, timeout=aiohttp.ClientTimeout()) as response:
            assert response.status == 200, await response.text()
            reader = Reader()
            async with _beside(reader.read(response.content)):
                await eventually(lambda: reader.opened)
                yield reader

    async def sql(self, query: str, *params: object) -> list[tuple[Any, ...]]:
        """Ask the gateways' database behind their backs."""

        def ask() -> list[tuple[Any, ...]]:
            with (
                closing(psycopg2.connect(self.env["GATEWAY_DATABASE_URL"])) as session,
                session,
                session.cursor() as one,
            ):
                one.execute(query, params or None)
                return one.fetchall() if one.description else []

        return await asyncio.to_thread(ask)


@asynccontextmanager
async def _beside(work: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Let this run while the block does; it must not fail."""
    async with Tasks() as tasks:
        tasks.spawn(work, "beside")
        yield
        assert tasks.deaths == 0


async def until(ask: Callable[[], Awaitable[T]], good: Callable[[T], object], within_s: float = 10.0) -> T:
    """Ask until the answer is good, and return it: what was done last may still be on its way."""
    async with asyncio.timeout(within_s):
        while True:
            answer = await ask()
            if good(answer):
                return answer
            await asyncio.sleep(0.005)


async def eventually(condition: Callable[[], object], within_s: float = 10.0) -> None:
    """Wait until a condition holds, asking a hundred times a second."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.01)
