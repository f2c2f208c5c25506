"""The world around an agent: a gateway that can refuse, fall ill and go away, and processes started for real."""

import asyncio
import os
import sys
from contextlib import asynccontextmanager
from dataclasses import replace

import orjson
import pytest
from aiohttp import web

from runtime.agent import Agent
from runtime.message import Incoming
from runtime.spawn import Tasks
from runtime.store import TaskStore
from runtime.turns import Turns

DEADLINE_S = 10.0


async def until(condition, *, deadline_s=DEADLINE_S):
    """Wait for a condition to hold; a TimeoutError is a failed test."""
    async with asyncio.timeout(deadline_s):
        while not (value := condition()):  # noqa: ASYNC110 - what another process did sets no event here
            await asyncio.sleep(0.005)
    return value


class FakeGateway:
    """A gateway on loopback that keeps every request and answers as `on_register` and `on_heartbeat` say.

    Those who fetch get what is in `inbox`; what they say about it is answered from `on_settle`, by verb, and well then.

    An answer is (status, object or text, headers). It can go away and come back on the same port.
    """

    def __init__(self):
        self.on_register = (200, {"status": "registered", "auth_token": "minted", "platform_inbound_secret": "s3"}, {})
        self.on_heartbeat = (200, {"status": "ok"}, {})
        self.inbox = []
        self.on_take = None
        self.on_settle = {}
        self.takes = []
        self.settled = []
        self.lease_s = 60.0
        self.known_tokens = None
        self.registrations = []
        self.heartbeats = []
        self.port = 0
        self._runner = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    async def come(self):
        app = web.Application()
        app.add_routes([
            web.post("/registry/register", self._register),
            web.post("/registry/heartbeat", self._heartbeat),
            web.post("/moved/registry/register", self._redirect),
            web.get("/workspaces/{id}/inbox", self._take),
            web.post("/workspaces/{id}/inbox/{call}/{verb}", self._settle),
        ])  # fmt: skip
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def go(self):
        if self._runner is not None:
            await self._runner.cleanup()
        self._runner = None

    async def _register(self, request):
        return await self._answer(request, self.registrations, self.on_register)

    async def _heartbeat(self, request):
        return await self._answer(request, self.heartbeats, self.on_heartbeat)

    async def _take(self, request):
        self.takes.append((request.path, dict(request.query), request.headers.get("Authorization")))
        if self.on_take is not None:
            status, body, headers = self.on_take
            return web.json_response(body, status=status, headers=headers)
        async with asyncio.timeout(float(request.query["wait"])):
            while not self.inbox:  # noqa: ASYNC110 - the test writes into it
                await asyncio.sleep(0.005)
        limit = int(request.query["limit"])
        taken, self.inbox[:limit] = self.inbox[:limit], []
        return web.json_response({"messages": taken, "lease_seconds": self.lease_s})

    async def _settle(self, request):
        call, verb = request.match_info["call"], request.match_info["verb"]
        self.settled.append((call, verb, orjson.loads(await request.read())))
        answers = self.on_settle.get(verb, [])
        status, body = answers.pop(0) if answers else (200, {"status": "done"})
        return web.json_response(body, status=status)

    async def _redirect(self, request):
        raise web.HTTPTemporaryRedirect("/registry/register")

    async def _answer(self, request, seen, answer):
        token = request.headers.get("Authorization")
        seen.append({**orjson.loads(await request.read()), "authorization": token})
        if self.known_tokens is not None and token not in self.known_tokens:
            answer = (401, {"error": "unknown token"}, {})
        status, body, headers = answer
        content = body.encode() if isinstance(body, str) else orjson.dumps(body)
        return web.Response(status=status, body=content, headers=headers)


@pytest.fixture
def wait_until():
    return until


@pytest.fixture
async def gateway():
    fake = FakeGateway()
    await fake.come()
    yield fake
    await fake.go()


@pytest.fixture
def incoming():
    """Make the message that a user sends."""

    def make(text, *, blocking=True, task_id=None):
        message = {"role": "user", "messageId": "m1", "contextId": "c1", "parts": [{"kind": "text", "text": text}]}
        return replace(Incoming.from_params({"message": message}), blocking=blocking, task_id=task_id)

    return make


@pytest.fixture
async def take_turns():
    """Make Turns for an answer function; their tasks end with the test."""
    async with Tasks() as tasks:

        def make(answer, *, max_active=10, changes=None):
            agent = Agent(name="t", description="t", answer=answer, max_active=max_active)
            on_change = (lambda: None) if changes is None else (lambda: changes.append(turns.vitals()))
            turns = Turns(agent, spawn=tasks.spawn, store=TaskStore(), on_change=on_change)
            return turns

        yield make


class Running:
    """A process under test with its output so far."""

    def __init__(self, process):
        self.process = process
        self.out = ""
        self.err = ""

    @property
    def url(self):
        return next((line.split()[1] for line in self.out.splitlines() if line.startswith("ready ")), None)

    async def ends(self):
        async with asyncio.timeout(DEADLINE_S):
            return await self.process.wait()


@pytest.fixture
def start_process(gateway, tmp_path):
    """Start a Python program as an agent of the fake gateway: `async with start_process("-m", "runtime.demo")`."""

    @asynccontextmanager
    async def start(*arguments, stdin=None, **environment):
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            *arguments,
            stdin=stdin,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            env={
                **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
                "HOME": str(tmp_path),
                "GATEWAY_URL": gateway.url,
                "A2A_STATE_DIR": str(tmp_path / "state"),
                "A2A_HEARTBEAT_SECONDS": "0.05",
                **environment,
            },
        )
        running = Running(process)

        async def keep(stream, name):
            while line := await stream.readline():
                setattr(running, name, getattr(running, name) + line.decode())

        async with Tasks() as tasks:
            readers = [
                tasks.spawn(keep(process.stdout, "out"), name="out"),
                tasks.spawn(keep(process.stderr, "err"), name="err"),
            ]
            try:
                yield running
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()
                await asyncio.wait(readers, timeout=DEADLINE_S)

    return start


@pytest.fixture
async def tasks():
    """The owner of what a test starts beside itself."""
    async with Tasks() as owner:
        yield owner
