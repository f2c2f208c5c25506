"""An agent of the outside world, on loopback, that does what the test tells it to."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
from aiohttp import web

from tests.harness.listening import ACCEPTED_TURNS

Behaviour = Callable[[web.Request], Awaitable[web.StreamResponse]]


def result(body: bytes, text: str = "echo") -> dict[str, Any]:
    """A JSON-RPC answer to the request in this body: one message with one text."""
    asked = orjson.loads(body or b"{}")
    message = {"kind": "message", "role": "agent", "messageId": "m-reply", "parts": [{"kind": "text", "text": text}]}
    return {"jsonrpc": "2.0", "id": asked.get("id"), "result": message}


async def echo(request: web.Request) -> web.StreamResponse:
    return web.json_response(result(await request.read()))


def silent_for(seconds: float) -> Behaviour:
    """Answers, but only after this long without a byte."""

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        await asyncio.sleep(seconds)
        return web.json_response(result(body))

    return behave


def redirecting(to: str) -> Behaviour:
    """Sends whoever asks elsewhere, method and body included."""

    async def behave(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=307, headers={"Location": to})

    return behave


@dataclass
class ScriptedAgent:
    """What it was sent, and what it does next."""

    url: str
    behave: Behaviour = echo
    bodies: list[bytes] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)
    open_connections: int = 0
    closed_early: int = 0
    """Requests whose connection was gone before they were answered."""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.bodies.append(await request.read())
        self.headers.append(dict(request.headers))
        self.open_connections += 1
        try:
            return await self.behave(request)
        except asyncio.CancelledError:
            self.closed_early += 1
            raise
        finally:
            self.open_connections -= 1


@asynccontextmanager
async def running(behave: Behaviour = echo) -> AsyncIterator[ScriptedAgent]:
    agent = ScriptedAgent(url="", behave=behave)
    app = web.Application(client_max_size=64 * 1024 * 1024)
    app.router.add_route("*", "/{path:.*}", agent.handle)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, backlog=4096)
    await site.start()
    agent.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    server = runner.server
    assert server is not None
    try:
        yield agent
    finally:
        await runner.cleanup()
        for _ in range(ACCEPTED_TURNS):
            await asyncio.sleep(0)
        for handler in server.connections:  # that was being accepted
            if handler.transport is not None:
                handler.transport.abort()
        await asyncio.sleep(0)
