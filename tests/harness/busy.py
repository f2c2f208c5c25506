"""An agent that has time for so many calls at once and says to all others that it is busy, and its callers."""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

import orjson
from aiohttp import web

from tests.harness.agent import ScriptedAgent, result
from tests.harness.world import Workspace, World, until

QUICK: Final = {
    "GATEWAY_QUEUE_RETRY_SECONDS": "0.05",
    "GATEWAY_QUEUE_EVERY_SECONDS": "0.1",
    "GATEWAY_EXPIRY_EVERY_SECONDS": "0.1",
    "GATEWAY_QUEUE_LEASE_SECONDS": "1.5",
    "GATEWAY_CACHE_TTL_SECONDS": "1",
}
SLOW: Final = {**QUICK, "GATEWAY_QUEUE_RETRY_SECONDS": "1000"}
"""Here only what an agent shows of itself sends what waits."""
FINAL: Final = frozenset({"completed", "failed", "cancelled", "interrupted", "expired"})


class BusyAgent:
    """Works on `places` calls at once, on none while it is `shut`; `taken` are the texts it has accepted, in order."""

    def __init__(self, *, places: int = 1, work_s: float = 0.0) -> None:
        self.places = places
        self.work_s = work_s
        self.shut = True
        self.taken: list[str] = []
        self.refused = 0
        self.at_work = 0
        self.most = 0
        self.server = ScriptedAgent(url="")

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.shut or self.at_work >= self.places:
            self.refused += 1
            return web.json_response({"error": "busy"}, status=429)
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        text = orjson.loads(body)["params"]["message"]["parts"][0]["text"]
        self.taken.append(text)
        try:
            await asyncio.sleep(self.work_s)
        finally:
            self.at_work -= 1
        return web.json_response(result(body, text=text))


async def busy(world: World, agent: BusyAgent | None = None, **fields: Any) -> tuple[Workspace, BusyAgent]:
    """A workspace whose agent does not take calls yet."""
    agent = agent or BusyAgent()
    agent.server = await world.agent(agent)
    return await world.workspace(agent.server.url, **fields), agent


async def queued(world: World, of: Workspace, text: str = "hi", **options: Any) -> str:
    """Call a busy agent, and return the call's id."""
    code, said, _ = await world.call(of, text, **options)
    assert code == 202, said
    id_: str = said["queue_id"]
    return id_


async def status(world: World, of: Workspace, id_: str, **options: Any) -> tuple[int, Any, Mapping[str, str]]:
    return await world.request("GET", f"/workspaces/{of.id}/a2a/queue/{id_}", **options)


async def ended(world: World, of: Workspace, id_: str, within_s: float = 20.0, **options: Any) -> Any:
    """The call's status once it has come to its end."""

    async def ask() -> Any:
        code, said, _ = await status(world, of, id_, **options)
        return {"status": "expired", **said} if code == 410 else said

    return await until(ask, lambda said: said["status"] in FINAL, within_s)
