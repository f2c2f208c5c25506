"""The queue of a busy agent, through the front door: every call that was promised to wait comes to one end."""

import asyncio
from collections.abc import Mapping
from typing import Any

import orjson
from aiohttp import web

from tests.harness.agent import result
from tests.harness.world import Workspace, World, eventually, until

QUICK = {
    "GATEWAY_QUEUE_RETRY_SECONDS": "0.05",
    "GATEWAY_QUEUE_EVERY_SECONDS": "0.1",
    "GATEWAY_EXPIRY_EVERY_SECONDS": "0.1",
    "GATEWAY_QUEUE_LEASE_SECONDS": "1.5",
    "GATEWAY_CACHE_TTL_SECONDS": "1",
}
SLOW = {**QUICK, "GATEWAY_QUEUE_RETRY_SECONDS": "1000"}
"""Here only what an agent says of itself sends what waits."""
Answer = tuple[int, Any, Mapping[str, str]]


class BusyAgent:
    """Works on so many calls at once, or on none while it is `shut`; says 429 to all others, and knows what it took."""

    def __init__(self, *, places: int = 1, work_s: float = 0.0) -> None:
        self.places = places
        self.work_s = work_s
        self.shut = False
        self.taken: list[str] = []
        self.refused = 0
        self.at_work = 0
        self.most = 0

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if self.shut or self.at_work >= self.places:
            self.refused += 1
            return web.json_response({"error": "busy"}, status=429)
        self.at_work += 1
        self.most = max(self.most, self.at_work)
        self.taken.append(orjson.loads(body)["params"]["message"]["parts"][0]["text"])
        try:
            await asyncio.sleep(self.work_s)
        finally:
            self.at_work -= 1
        return web.json_response(result(body, text=self.taken[-1]))


async def busy(world: World, **fields: Any) -> tuple[Workspace, BusyAgent]:
    """A workspace whose agent does not take calls yet."""
    behave = BusyAgent()
    behave.shut = True
    agent = await world.agent(behave)
    return await world.workspace(agent.url, **fields), behave


async def status(world: World, of: Workspace, id_: str, **options: Any) -> Answer:
    return await world.request("GET", f"/workspaces/{of.id}/a2a/queue/{id_}", **options)


async def ended(world: World, of: Workspace, id_: str, within_s: float = 20.0) -> Any:
    """The call's status once it has come to its end."""
    final = {"completed", "failed", "cancelled", "interrupted", "expired"}

    async def ask() -> Any:
        code, said, _ = await status(world, of, id_)
        return {"status": "expired", **said} if code == 410 else said

    return await until(ask, lambda said: said["status"] in final, within_s)


async def test_a_call_to_a_busy_agent_waits_and_is_answered_later_on_any_replica(world: World):
    await world.start(**QUICK)
    other = await world.start(**QUICK)
    target, agent = await busy(world)
    caller = await world.workspace()
    async with world.reading(target) as reader:
        code, said, headers = await world.call(target, "hello", headers=caller.bearer)
        assert code == 202
        id_ = said.pop("queue_id")
        assert (said.pop("queued"), said.pop("queue_depth"), list(said)) == (True, 1, ["message"])
        assert headers["Location"] == f"/workspaces/{target.id}/a2a/queue/{id_}"
        assert headers["X-A2A-Call-ID"] == id_
        options = {"gateway": other, "headers": caller.bearer}
        _, said, _ = await until(lambda: status(world, target, id_, **options), lambda got: got[1]["position"] == 1)
        assert (said["status"], said["last_error"], said["ending"]) == ("queued", "agent_busy", None)
        assert "response_body" not in said
        agent.shut = False
        done = await ended(world, target, id_)
        await eventually(lambda: reader.of("CALL_ENDED"))
    assert (done["status"], done["ending"], done["position"], done["attempts"]) == ("completed", "completed", None, 1)
    assert done["response_body"]["result"]["parts"][0]["text"] == "hello"
    assert agent.taken == ["hello"]
    ends = reader.of("CALL_ENDED")
    assert [(one["call_id"], one["ending"], one["status"]) for one in ends] == [(id_, "completed", 200)]
    rows = await world.sql("select activity_type, status, workspace_id from activity where call_id = %s", id_)
    assert sorted(rows) == sorted([("a2a_receive", "ok", target.id), ("a2a_send", "ok", caller.id)])
    assert await world.sql("select sum(calls) from usage") == [(1,)]
