"""What a gateway writes to its log, its output and Redis while much is said to it: no token and no password there."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import aiohttp
import orjson
import pytest

from gateway.services.tasks import Tasks
from gateway.store import vault
from tests.harness import folders, process
from tests.harness import valkey as valkeys
from tests.harness.process import GatewayProcess
from tests.harness.stage import DATABASE_WORD, PLANTED, REDIS_WORD, Stage, an_unheard_of_row, angry, no_database
from tests.harness.valkey import Valkey
from tests.harness.world import ADMIN_TOKEN, Workspace, World, eventually

AGENT_AUTH: Final = "Bearer secret-of-the-agent-itself"
NOBODYS: Final = "a-token-that-is-nobodys-but-might-be"
TASK: Final = f"{PLANTED}-in-a-body"
GARBAGE: Final = (
    f"GET / HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {NOBODYS}\x01\r\n\r\n",
    f"POST /session HTTP/1.1\r\nHost: a\r\nContent-Length: {len(NOBODYS)}\r\nConnection: close\r\n\r\n{NOBODYS}",
    f"{NOBODYS}\r\n\r\n",
)


class Secrets:
    """All that must not be written down."""

    def __init__(self) -> None:
        self.known = {ADMIN_TOKEN, DATABASE_WORD, REDIS_WORD, NOBODYS, TASK, AGENT_AUTH.split()[1]}

    def keep(self, *secrets: str) -> None:
        self.known.update(secret for secret in secrets if secret)

    def found_in(self, text: str) -> list[str]:
        return [secret for secret in self.known if secret in text]


async def go_through(world: World, secrets: Secrets, target: Workspace) -> str:
    """Do all that a runtime, a browser, an operator and somebody with a wrong token do; return a session's cookie."""
    for path, body in (
        ("/registry/register", {"id": target.id, "url": "http://127.0.0.1:8001/", "agent_card": {"name": TASK}}),
        ("/registry/heartbeat", {"workspace_id": target.id, "current_task": TASK, "sample_error": TASK}),
    ):
        status, said, _ = await world.request("POST", path, json=body, headers=target.bearer)
        assert status == 200, said
        secrets.keep(said.get("platform_inbound_secret", ""))
    status, said, _ = await world.request("POST", "/org/tokens", json={"name": "o"})
    secrets.keep(said["auth_token"])
    status, said, headers = await world.request("POST", "/session", json={"token": said["auth_token"]})
    assert status == 201
    cookie: str = headers["Set-Cookie"].split(";")[0].partition("=")[2]
    secrets.keep(cookie)
    wrong = {"Authorization": f"Bearer {NOBODYS}"}
    for method, path, options in (
        ("POST", "/session", {"json": {"token": NOBODYS}}),
        ("POST", "/session", {"json": {"code": NOBODYS}}),
        ("POST", "/session", {"data": f"token={NOBODYS}".encode()}),
        ("GET", f"/login?code={NOBODYS}", {}),
        ("GET", "/workspaces", {"headers": wrong}),
        ("POST", "/registry/heartbeat", {"headers": wrong, "json": {"workspace_id": target.id}}),
        ("POST", f"/workspaces/{target.id}/a2a", {"headers": wrong, "json": {"method": TASK}}),
        ("POST", f"/workspaces/{target.id}/a2a", {"headers": {"X-Workspace-ID": f"system:{NOBODYS}"}}),
        ("GET", f"/{NOBODYS}?token={NOBODYS}", {"headers": {"Cookie": f"a2a_session={NOBODYS}"}}),
        ("POST", "/workspaces", {"data": f'{{"name": "{TASK}'.encode()}),
    ):
        _: Any
        status, _, _ = await world.request(method, path, **options)
        assert status in (200, 400, 401, 403, 404), path
    for text in (TASK, orjson.dumps({"resume": TASK}).decode()):
        async with world.session.ws_connect(f"{world.url}/ws", headers=target.bearer) as socket:
            await socket.send_str(text)
            await socket.receive()
    return cookie


@pytest.fixture
def folder() -> Iterator[str]:
    """A folder that the servers' unprivileged user may reach, which pytest's own are not."""
    path = str(folders.fresh("a2a-logs-"))
    yield path
    shutil.rmtree(path)


@asynccontextmanager
async def staged(world: World, folder: str, secrets: Secrets) -> AsyncIterator[Stage]:
    """A gateway that knows every kind of secret."""
    key, key_file = vault.new_key(), Path(folder) / "key"
    key_file.touch(mode=0o600)
    key_file.write_text(key)
    secrets.keep(key)
    async with valkeys.running() as broker:
        world.env["GATEWAY_DATABASE_URL"] += f"&password={DATABASE_WORD}"
        gateway = await world.start(
            GATEWAY_REDIS_URL=broker.url.replace("unix://", f"unix://default:{REDIS_WORD}@"),
            GATEWAY_CACHE_TTL_SECONDS="0.05",
            GATEWAY_ENABLE_TEST_TOKENS="1",
            GATEWAY_SECRETS_KEY_FILE=str(key_file),
            GATEWAY_LOG_FORMAT="text",
        )
        agent = await world.agent()
        target = await world.workspace(agent.url, agent_auth=AGENT_AUTH)
        secrets.keep(target.token)
        cookie = await go_through(world, secrets, target)
        yield Stage(world=world, gateway=gateway, agent=agent, target=target, broker=broker, session=cookie)


async def all_of(gateway: GatewayProcess) -> str:
    """Stop it, and return all that it has written."""
    assert await gateway.stop() == 0
    return gateway.log() + await gateway.rest()


async def test_serve_writes_no_secret_down(world: World, folder: str) -> None:
    secrets = Secrets()
    async with staged(world, folder, secrets) as stage:
        code = (await process.run("login", env=world.env)).partition("code=")[2].strip()
        secrets.keep(code)
        await world.request("POST", "/session", json={"code": code}, headers={"Authorization": None})
        for garbage in GARBAGE:
            await stage.send(garbage.encode())
        for fault in (no_database, angry("tokens"), angry("liveness"), angry("activity"), an_unheard_of_row):
            async with fault(stage):
                await stage.ask_every_route()
                await world.beat(stage.target, current_task=TASK)
                await world.call(stage.target, TASK)
        said = await all_of(stage.gateway)
    for happened in ("Traceback", "request_broke", "request_malformed", "error"):
        assert happened in said, "that is what this log is about"
    assert secrets.found_in(said) == []


async def test_dev_writes_no_secret_down(folder: str) -> None:
    secrets = Secrets()
    env = {"ADMIN_TOKEN": ADMIN_TOKEN, "GATEWAY_LOG_FORMAT": "json"}
    async with (
        process.started("dev", "--port", "0", "--data-dir", folder, env=env) as gateway,
        aiohttp.ClientSession() as session,
    ):
        world = World(stack=None, session=session, env={})  # type: ignore[arg-type] # nothing else is started
        world.gateways.append(gateway)
        target = await world.workspace()
        secrets.keep(target.token)
        await go_through(world, secrets, target)
        said = await all_of(gateway)
    assert secrets.found_in(said) == []


async def listen(broker: Valkey, said: bytearray) -> None:
    """Keep all that is said to a Redis."""
    reader, writer = await asyncio.open_unix_connection(unquote(urlsplit(broker.url).path))
    try:
        writer.write(b"MONITOR\r\n")
        while chunk := await reader.read(65536):
            said += chunk
    finally:
        writer.transport.abort()


async def test_no_credential_is_ever_written_to_redis(world: World, folder: str) -> None:
    secrets, said = Secrets(), bytearray()
    async with staged(world, folder, secrets) as stage, Tasks() as tasks:
        tasks.spawn(listen(stage.broker, said), "monitor")
        await eventually(lambda: b"OK" in said)
        await go_through(world, secrets, stage.target)
        await stage.ask_every_route()
        await world.call(stage.target, "a text that agents and browsers may read")
        await eventually(lambda: b"a text that agents" in said)
        await eventually(lambda: TASK.encode() in said)
    assert secrets.found_in(said.decode("utf-8", "replace")) == [TASK], "what an agent does is no secret"
