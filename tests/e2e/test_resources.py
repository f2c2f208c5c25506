"""What a gateway holds while much goes on, and that it lets go of all of it."""

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import aiohttp
import psutil
import pytest

from tests.harness.agent import ScriptedAgent, silent_for
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, eventually

READERS = 2000
CALLS = 500
BEYOND_SELECT = 1024
"""The first file descriptor that select() cannot take."""
NEEDED_FILES = READERS + 2 * BEYOND_SELECT


@pytest.fixture(autouse=True)
def many_files() -> Iterator[None]:
    """Let this process, and those it starts, open as many files as these tests need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < NEEDED_FILES:
        pytest.skip(f"only {hard} files may be open here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, NEEDED_FILES), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class RawReader:
    """An event stream that costs this process little: a socket, and what came last."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, gateway: GatewayProcess, of: Workspace) -> "RawReader":
        host, port = gateway.url.removeprefix("http://").split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        path = f"/workspaces/{of.id}/events/stream"
        writer.write(f"GET {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {of.token}\r\n\r\n".encode())
        opened = cls(reader, writer)
        await opened.hear(b": ok\n\n")
        return opened

    async def hear(self, what: bytes) -> None:
        """Read until this comes."""
        await self._reader.readuntil(what)

    def close(self) -> None:
        self._writer.close()


@asynccontextmanager
async def reading(gateway: GatewayProcess, of: Workspace, readers: int) -> AsyncIterator[list[RawReader]]:
    """Open streams, at most a hundred at once."""
    opened: list[RawReader] = []
    try:
        while len(opened) < readers:
            opened += await asyncio.gather(
                *(RawReader.open(gateway, of) for _ in range(min(100, readers - len(opened))))
            )
        yield opened
    finally:
        for reader in opened:
            reader.close()


class Held:
    """What a process holds: its file descriptors, and its connections to an agent."""

    def __init__(self, gateway: GatewayProcess, agent: ScriptedAgent) -> None:
        self._process = psutil.Process(gateway.pid)
        self._port = int(agent.url.rstrip("/").rpartition(":")[2])

    def files(self) -> int:
        return self._process.num_fds()

    def to_agent(self) -> int:
        return sum(1 for one in self._process.net_connections("tcp") if one.raddr and one.raddr.port == self._port)


async def test_a_failing_statement_is_an_answer_and_no_more_beside_thousands_of_readers(world: World) -> None:
    gateway = await world.start(first_file=BEYOND_SELECT)
    target = await world.workspace()
    async with reading(gateway, target, READERS) as readers:
        assert psutil.Process(gateway.pid).num_fds() > BEYOND_SELECT + READERS
        await world.sql("ALTER TABLE usage RENAME TO usage_away")
        async with asyncio.timeout(10):
            failed = await asyncio.gather(
                *(world.request("GET", f"/workspaces/{target.id}/metrics") for _ in range(20))
            )
        assert {status for status, _, _ in failed} == {503}
        assert all("usage" not in body["error"] for _, body, _ in failed)
        await world.sql("ALTER TABLE usage_away RENAME TO usage")
        status, usage, _ = await world.request("GET", f"/workspaces/{target.id}/metrics")
        assert status == 200, usage

        assert await world.beat(target, current_task="still here") == 200
        async with asyncio.timeout(30):
            for reader in readers:
                await reader.hear(b'"current_task":"still here"')
    await eventually(lambda: psutil.Process(gateway.pid).num_fds() < BEYOND_SELECT + READERS // 10, within_s=30)
    assert await gateway.stop() == 0


async def test_calls_that_stall_leave_nothing_behind(world: World) -> None:
    gateway = await world.start(A2A_IDLE_TIMEOUT_SECONDS="3")
    agent = await world.agent(silent_for(60))
    target = await world.workspace(agent.url)
    held = Held(gateway, agent)
    status, _, _ = await world.call(target, headers={"X-Timeout": "0.1"})
    assert status == 504
    await eventually(lambda: held.to_agent() == 0)
    before = held.files()

    async def call(session: aiohttp.ClientSession) -> int:
        url = f"{gateway.url}/workspaces/{target.id}/a2a"
        async with session.post(url, json={"method": "tasks/get"}, headers=target.bearer) as response:
            return response.status

    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as group:
        patient = [group.create_task(call(session)) for _ in range(CALLS // 2)]
        impatient = [group.create_task(call(session)) for _ in range(CALLS // 2)]
        await eventually(lambda: len(agent.bodies) == CALLS + 1)
        assert held.to_agent() == CALLS
        assert held.files() >= before + 2 * CALLS
        for waiting in impatient:
            waiting.cancel()
    assert {answered.result() for answered in patient} == {503}
    assert all(waiting.cancelled() for waiting in impatient)
    await eventually(lambda: agent.closed_early == CALLS + 1)
    await eventually(lambda: held.to_agent() == 0)
    await eventually(lambda: held.files() <= before)
    assert await gateway.stop() == 0
    assert '"calls": 0' in gateway.log(), "none was in flight any more"
