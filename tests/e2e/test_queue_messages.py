"""A message whose call waits for a busy agent is one call, whatever replica it comes to and whatever dies meanwhile."""

import asyncio
import signal
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

import aiohttp
import pytest
from aiohttp import web

from tests.e2e.test_joining import joined, send
from tests.e2e.test_limits import two
from tests.harness import valkey as valkeys
from tests.harness.agent import result, silent_for
from tests.harness.busy import QUICK, SLOW, BusyAgent, busy, ended
from tests.harness.locks import locked
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, eventually, until

OTHER: Final = "other words"
NO_MESSAGE: Final = {"jsonrpc": "2.0", "id": 1, "method": "anything/else"}
WAITS: Final = {"Prefer": "wait=30"}
INTERRUPTED: Final = "select id from activity where error_detail = 'interrupted' and workspace_id = %s"


async def waits(
    world: World, to: Workspace, gateway: GatewayProcess | None = None, headers: Mapping[str, str] | None = None
) -> tuple[str, int]:
    """Send the message; return the id of the call that waits, and its place."""
    status, body, got = await send(world, to, gateway=gateway, headers=headers)
    assert (status, body["queued"]) == (202, True), body
    assert got["X-A2A-Call-ID"] == body["queue_id"]
    assert got["Location"] == f"/workspaces/{to.id}/a2a/queue/{body['queue_id']}"
    return body["queue_id"], body["queue_depth"]


async def refused(world: World, to: Workspace, gateway: GatewayProcess, id_: str) -> None:
    """Other words under the same id are no call."""
    status, body, _ = await send(world, to, text=OTHER, gateway=gateway)
    assert (status, body["code"], body["call_id"]) == (409, "message_id_reused", id_)


async def calls(world: World) -> int:
    [(count,)] = await world.sql("select count(*) from calls where kind <> 'push'")
    return int(count)


async def ends(world: World, id_: str) -> list[tuple[Any, ...]]:
    """The rows of history of a call, in its target's."""
    return await world.sql(
        "select status, error_detail from activity where call_id = %s and activity_type = 'a2a_receive'", id_
    )


async def test_a_message_that_is_sent_again_while_its_call_waits_runs_and_has_ended_is_one_call(world: World) -> None:
    gateways = await two(world, **SLOW)
    opened, agent = asyncio.Event(), BusyAgent()

    async def behave(request: web.Request) -> web.StreamResponse:
        if not agent.shut:
            await opened.wait()
        return await agent(request)

    agent.server = await world.agent(behave)
    target = await world.workspace(agent.server.url)
    id_, depth = await waits(world, target, gateways[0])
    assert depth == 1
    for gateway in gateways * 2:
        assert await waits(world, target, gateway) == (id_, 1)
        await refused(world, target, gateway, id_)
    assert len(agent.server.bodies) == 1, "the agent is not asked again"

    agent.shut = False
    async with world.beating(target, 0.1):
        await eventually(lambda: len(agent.server.bodies) == 2)
    for gateway in gateways:
        assert await waits(world, target, gateway) == (id_, 0), "it is under way"
        await refused(world, target, gateway, id_)
    async with asyncio.TaskGroup() as group:
        staying = [
            group.create_task(send(world, target, id_=number, gateway=gateway, headers=WAITS))
            for number, gateway in enumerate(gateways)
        ]
        opened.set()
    assert (await ended(world, target, id_))["status"] == "completed"
    for number, gateway in enumerate(gateways):
        again = await send(world, target, id_=number, gateway=gateway)
        for status, body, headers in (staying[number].result(), again):
            assert (status, body["id"], body["result"]["parts"][0]["text"]) == (200, number, "hi")
            assert headers["X-A2A-Call-ID"] == id_
        await refused(world, target, gateway, id_)
    assert (agent.taken, await calls(world), await ends(world, id_)) == (["hi"], 1, [("ok", None)])


async def test_those_that_joined_a_call_whose_agent_turns_out_to_be_busy_are_told_of_one_place_or_stay(
    world: World,
) -> None:
    gateways = await two(world, **SLOW)
    opened = asyncio.Event()
    shut = True

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        await opened.wait()
        return web.json_response({}, status=429) if shut else web.json_response(result(body, text="done"))

    agent = await world.agent(behave)
    target = await world.workspace(agent.url)
    async with asyncio.TaskGroup() as group:
        told = [group.create_task(send(world, target, gateway=gateway)) for gateway in gateways * 2]
        staying = [
            group.create_task(send(world, target, id_=number, gateway=gateway, headers=WAITS))
            for number, gateway in enumerate(gateways)
        ]
        await joined(world, 5)
        opened.set()
        await eventually(lambda: all(one.done() for one in told))
        shut = False
        async with world.beating(target, 0.1):
            await eventually(lambda: all(one.done() for one in staying))
    ids = {one.result()[1]["queue_id"] for one in told} | {one.result()[2]["X-A2A-Call-ID"] for one in staying}
    assert {one.result()[0] for one in told} == {202}
    assert [(one.result()[0], one.result()[1]["id"]) for one in staying] == [(200, 0), (200, 1)]
    assert (len(ids), await calls(world), len(agent.bodies)) == (1, 1, 2)


@pytest.mark.parametrize("ending", ["cancelled", "expired", "rejected", "agent_unreachable"])
async def test_a_call_that_no_agent_has_taken_leaves_its_message_to_a_new_one(world: World, ending: str) -> None:
    gateways = await two(world, **(QUICK if ending == "agent_unreachable" else SLOW))
    target, agent = await busy(world)
    caller = await world.workspace()
    id_, _ = await waits(world, target, gateways[0], caller.bearer)
    match ending:
        case "cancelled":
            path = f"/workspaces/{target.id}/a2a/calls/{id_}/cancel"
            assert (await world.request("POST", path, gateway=gateways[1]))[0] == 200
        case "expired":
            await world.sql("update calls set expires_at = now()")
        case "rejected":
            await world.request("PATCH", f"/workspaces/{target.id}/budget", json={"budget_limit": 0})
            await world.sql("update calls set not_before = now()")
        case "agent_unreachable":
            await world.sql("update workspaces set url = 'http://127.0.0.1:1025/' where id = %s", target.id)
    await until(lambda: world.sql("select ending from calls"), lambda rows: rows == [(ending,)])
    agent.shut = False
    await world.request("PATCH", f"/workspaces/{target.id}/budget", json={"budget_limit": None})
    await world.request("PATCH", f"/workspaces/{target.id}", json={"url": agent.server.url})

    async def again() -> tuple[int, Any, Mapping[str, str]]:
        return await send(world, target, text=OTHER, gateway=gateways[1], headers=caller.bearer)

    status, _, headers = await until(again, lambda said: said[0] not in (402, 502))
    assert (status, headers["X-A2A-Call-ID"] != id_, agent.taken) == (200, True, [OTHER])
    status, _, got = await send(world, target, text=OTHER, gateway=gateways[0], headers=caller.bearer)
    assert (status, got["X-A2A-Call-ID"]) == (200, headers["X-A2A-Call-ID"])


async def test_a_call_whose_replica_dies_after_it_was_sent_is_interrupted_once_and_not_sent_again(world: World) -> None:
    env = {**SLOW, "GATEWAY_PROBE_SECONDS": "0.2", "GATEWAY_QUEUE_LEASE_SECONDS": "1"}
    dying = await world.start(**env)
    target, agent = await busy(world, BusyAgent(work_s=60.0))
    id_, _ = await waits(world, target, dying)
    agent.shut = False
    silent = await world.agent(silent_for(60))
    other = await world.workspace(silent.url)

    async def call_other() -> None:
        with suppress(aiohttp.ClientError):
            await world.call(other, gateway=dying)

    async with world.beating(target, 0.1):
        await eventually(lambda: agent.taken)
    staying = await world.start(**env)  # only now, or it might be the one that sends what waits
    async with world.reading(target, gateway=staying) as reader, asyncio.TaskGroup() as group:
        group.create_task(call_other())
        await eventually(lambda: silent.open_connections == 1)
        dying.send(signal.SIGKILL)
        world.gateways.remove(dying)
        assert (await ended(world, target, id_))["status"] == "interrupted"
        await until(lambda: world.sql(INTERRUPTED, other.id), len, 20)  # the dead one's calls have been gone through
        await eventually(lambda: reader.of("CALL_ENDED"))
        status, body, headers = await send(world, target, gateway=staying)
        assert (status, body["code"], body["outcome"]) == (503, "interrupted", "unknown")
        assert headers["X-A2A-Call-ID"] == id_
    assert [event["ending"] for event in reader.of("CALL_ENDED")] == ["interrupted"]
    assert (await ends(world, id_), agent.taken) == ([("error", "interrupted")], ["hi"])


async def test_a_call_whose_replica_dies_before_it_was_sent_waits_on_and_is_sent_once(world: World) -> None:
    env = {**SLOW, "GATEWAY_PROBE_SECONDS": "0.2", "GATEWAY_QUEUE_LEASE_SECONDS": "1"}
    dying, staying = await two(world, **env)
    target, agent = await busy(world)
    id_, _ = await waits(world, target, dying)
    agent.shut = False
    # as one leaves it that has claimed it and dies before it writes that it is about to send it
    dying.send(signal.SIGKILL)
    world.gateways.remove(dying)
    await world.sql(
        "update calls set state = 'dispatched', claim = gen_random_uuid(), lease_until = now() + interval '1 second'"
    )
    assert await waits(world, target, staying) == (id_, 0)
    async with world.beating(target, 0.1, gateway=staying):
        assert (await ended(world, target, id_))["status"] == "completed"
    status, _, headers = await send(world, target, gateway=staying)
    assert (status, headers["X-A2A-Call-ID"], agent.taken, await ends(world, id_)) == (200, id_, ["hi"], [("ok", None)])


async def test_while_redis_is_away_a_message_whose_call_waits_is_not_sent(world: World) -> None:
    async with valkeys.running() as broker:
        gateway = await world.start(**SLOW, GATEWAY_REDIS_URL=broker.url, GATEWAY_ADMISSION_SECONDS="0.2")
        target, agent = await busy(world)
        id_, _ = await waits(world, target, gateway)
        agent.shut = False
        broker.stall()
        for _ in range(3):
            assert await waits(world, target, gateway) == (id_, 1)
        await refused(world, target, gateway, id_)
        broker.go_on()
        assert agent.taken == []


@pytest.mark.parametrize("told", [True, False])
async def test_a_redis_that_has_lost_its_memory_does_not_make_a_second_call(world: World, told: bool) -> None:
    """It is told what waits when it is back; and until then the ledger is asked."""
    async with valkeys.running() as broker:
        env = SLOW if told else {**SLOW, "GATEWAY_QUEUE_EVERY_SECONDS": "1000"}
        gateway = await world.start(**env, GATEWAY_REDIS_URL=broker.url)
        target, agent = await busy(world)
        other = await world.workspace((await world.agent()).url)
        id_, _ = await waits(world, target, gateway)
        agent.shut = False
        broker.kill()
        broker.forget()
        await broker.start()
        if told:
            await until(lambda: broker.do("KEYS", "*:message:*"), bool)

        async def entered() -> object:
            assert (await world.request("POST", f"/workspaces/{other.id}/a2a", json=NO_MESSAGE))[0] == 200
            return await broker.do("KEYS", "*:call:*")

        await until(entered, bool)  # it takes part again
        for _ in range(2):
            assert await waits(world, target, gateway) == (id_, 1)
        await refused(world, target, gateway, id_)
        assert (agent.taken, await calls(world)) == ([], 1)


async def test_while_the_ledger_is_away_a_message_whose_call_waits_is_not_sent(world: World) -> None:
    gateway = await world.start(**SLOW, GATEWAY_STATEMENT_TIMEOUT_SECONDS="0.5")
    target, agent = await busy(world)
    id_, _ = await waits(world, target, gateway)
    agent.shut = False
    with locked(world, "calls"):
        status, body, _ = await send(world, target)
    assert (status, body["code"], agent.taken) == (503, "platform_unavailable", [])
    assert await waits(world, target) == (id_, 1)
