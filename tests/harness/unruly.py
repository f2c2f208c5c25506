"""Agents that are busy, slow, down, or that break off, by chance; and what each message has met at them."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Final

import orjson
from aiohttp import web

from tests.harness.agent import result

MOODS: Final = ("prompt", "slow", "busy", "resets", "fails")
WEIGHTS: Final = (50, 15, 20, 8, 7)


class Unruly:
    """One agent. `taken` counts how often it has begun to work on a message, by its text, `done` how often it has
    answered one. What it refuses as busy it has not taken; once it is `calm` it answers at once."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._app = web.Application()
        self._app.router.add_post("/", self._handle)
        self._runner = web.AppRunner(self._app, handler_cancellation=True, shutdown_timeout=0.1, access_log=None)
        self._site: web.TCPSite | None = None
        self._port = 0
        self.calm = False
        self.taken: Counter[str] = Counter()
        self.done: Counter[str] = Counter()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}/"

    async def come_up(self) -> None:
        """Listen, always on the same port."""
        self._site = web.TCPSite(self._runner, "127.0.0.1", self._port, backlog=1024, reuse_address=True)
        await self._site.start()
        self._port = self._runner.addresses[0][1]

    async def go_down(self) -> None:
        """Take no connections; those that are open stay."""
        assert self._site is not None
        await self._site.stop()

    async def _handle(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        text = orjson.loads(body)["params"]["message"]["parts"][0]["text"]
        [mood] = ["prompt"] if self.calm else self._random.choices(MOODS, WEIGHTS)
        if mood == "busy":
            return web.json_response({"error": "busy"}, status=429)
        self.taken[text] += 1
        if mood == "slow":
            await asyncio.sleep(self._random.uniform(0.05, 0.5))
        if mood == "resets":
            assert request.transport is not None
            request.transport.abort()
        self.done[text] += 1
        if mood == "fails":
            return web.json_response({"error": "no"}, status=500)
        return web.json_response(result(body, text=text))


@asynccontextmanager
async def running(random: Random) -> AsyncIterator[Unruly]:
    agent = Unruly(random)
    await agent._runner.setup()
    try:
        await agent.come_up()
        yield agent
    finally:
        await agent._runner.cleanup()
