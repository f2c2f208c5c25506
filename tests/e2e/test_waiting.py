"""An agent that serves a call by calling another one says nothing meanwhile, and is not silent."""

import asyncio

import pytest
from aiohttp import web

from tests.harness.agent import Behaviour, result, silent_for
from tests.harness.world import Workspace, World

IDLE = {"A2A_IDLE_TIMEOUT_SECONDS": "1", "GATEWAY_PROBE_SECONDS": "0.2"}


def asking(world: World, me: list[Workspace], child: Workspace, gateway: int) -> Behaviour:
    """Serves a call by calling `child` through a gateway; `me` is who asks, known once it is created."""

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        status, said, _ = await world.call(child, gateway=world.gateways[gateway], headers=me[0].bearer)
        return web.json_response(result(body, text=f"{status} {said.get('code', 'ok')}"))

    return behave


@pytest.mark.parametrize("gateway", [0, 1], ids=["the same replica", "another replica"])
async def test_a_workspace_that_waits_for_a_call_of_its_own_is_kept_alive_by_it(world: World, gateway: int) -> None:
    await asyncio.gather(world.start(**IDLE), world.start(**IDLE))
    child_agent = await world.agent(silent_for(2.5))
    child = await world.workspace(child_agent.url)
    me: list[Workspace] = []
    parent_agent = await world.agent(asking(world, me, child, gateway))
    me.append(await world.workspace(parent_agent.url))
    async with world.beating(child, 0.2):
        status, body, _ = await world.call(me[0])
    assert (status, body.get("result", body)) == (200, result(b"{}", text="200 ok")["result"])


async def test_when_the_one_it_waits_for_is_silent_both_calls_end_one_after_the_other(world: World) -> None:
    await world.start(**IDLE)
    child = await world.workspace((await world.agent(silent_for(30))).url)
    me: list[Workspace] = []

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        _, said, _ = await world.call(child, headers=me[0].bearer)
        assert said["code"] == "idle_timeout"
        await asyncio.sleep(30)
        return web.json_response(result(body))

    me.append(await world.workspace((await world.agent(behave)).url))
    status, body, _ = await world.call(me[0])
    assert (status, body["code"]) == (503, "idle_timeout")
