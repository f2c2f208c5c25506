"""A call that is sent to its agent is explained and called off on any replica, and ends once."""

import asyncio
import json
import signal
from typing import Any, Final

import pytest
from aiohttp import web

from tests.e2e.test_joining import joined, once, send
from tests.e2e.test_limits import two
from tests.harness import valkey as valkeys
from tests.harness.agent import ScriptedAgent, echo, result
from tests.harness.world import Workspace, World, eventually, until

NOBODY: Final = "00000000-0000-4000-8000-00000000000f"


def where(to: Workspace, call_id: str) -> str:
    return f"/workspaces/{to.id}/a2a/calls/{call_id}"


async def explain(world: World, to: Workspace, call_id: str, **asked: Any) -> tuple[int, Any]:
    status, body, _ = await world.request("GET", where(to, call_id), **asked)
    return status, body


async def cancel(world: World, to: Workspace, call_id: str, **asked: Any) -> tuple[int, Any]:
    status, body, _ = await world.request("POST", f"{where(to, call_id)}/cancel", **asked)
    return status, body


async def sent(agent: ScriptedAgent, count: int = 1) -> str:
    """Wait until the agent has so many calls, and return the id of the last."""
    await eventually(lambda: len(agent.headers) == count)
    return agent.headers[-1]["X-A2A-Call-ID"]


async def written(world: World, call_id: str) -> tuple[Any, ...]:
    """The call's row, as soon as it is there."""
    query = "select kind, state, ending, caller_id::text, attempts from calls where id = %s"
    [row] = await until(lambda: world.sql(query, call_id), len)
    return row


async def histories(world: World, call_id: str) -> list[tuple[Any, ...]]:
    """The rows of a call in everybody's history."""
    query = "select activity_type, status, error_detail from activity where call_id = %s order by activity_type"
    return await world.sql(query, call_id)


async def silent(request: web.Request) -> web.StreamResponse:
    await request.read()
    await asyncio.Event().wait()
    raise AssertionError("it is never let to")


async def test_a_call_is_called_off_on_another_replica_and_everybody_who_waits_is_told(world: World) -> None:
    holds, other = await two(world)
    agent = await world.agent(silent)
    target, caller = await world.workspace(agent.url), await world.workspace()
    async with world.reading(target, gateway=other) as reader, asyncio.TaskGroup() as group:
        first = group.create_task(send(world, target, gateway=holds, headers=caller.bearer))
        call_id = await sent(agent)
        waiting = [group.create_task(send(world, target, gateway=one, headers=caller.bearer)) for one in (holds, other)]
        await joined(world, 2)
        said = await cancel(world, target, call_id, gateway=other, headers=caller.bearer)
        assert said == (200, {"status": "cancelled", "state": "cancelled"})
        await eventually(lambda: agent.open_connections == 0)
        for status, body, headers in [await first, *[await one for one in waiting]]:
            assert (status, body["code"], body["outcome"]) == (409, "cancelled", "unknown")
            assert headers["X-A2A-Call-ID"] == call_id
        await eventually(lambda: [one for one in reader.events if one["type"] == "CALL_ENDED"])
    ends = [one["data"] for one in reader.events if one["type"] == "CALL_ENDED"]
    assert [(end["call_id"], end["ending"], end["status"]) for end in ends] == [(call_id, "cancelled", 409)]
    assert await written(world, call_id) == ("push", "cancelled", "cancelled", caller.id, 1)
    assert await histories(world, call_id) == [
        ("a2a_receive", "error", "cancelled"),
        ("a2a_send", "error", "cancelled"),
    ]
    assert agent.closed_early == 1
    for gateway in (holds, other):
        assert (await cancel(world, target, call_id, gateway=gateway))[0] == 200, "twice is once"
        status, body, _ = await send(world, target, gateway=gateway, headers=caller.bearer)
        assert (status, body["code"], body["outcome"]) == (409, "cancelled", "unknown")
    assert len(agent.bodies) == 1, "nobody knows how far it came, so the same message is not sent again"
    [line] = [line for line in holds.log().splitlines() if "call_ended" in line]
    told = json.loads(line)
    assert (told["ending"], told["status"]) == ("cancelled", 409)


@pytest.mark.parametrize("here", [True, False], ids=["here", "elsewhere"])
async def test_the_caller_the_target_and_the_organisation_may_and_for_a_stranger_there_is_no_call(
    world: World, here: bool
) -> None:
    gateways = await two(world)
    asked = gateways[0 if here else 1]
    agent = await world.agent(silent)
    target, caller, stranger = await world.workspace(agent.url), await world.workspace(), await world.workspace()
    _, token, _ = await world.request("POST", "/org/tokens", json={"name": "one"})
    organisation = {"Authorization": f"Bearer {token['auth_token']}"}
    parties = [caller.bearer, target.bearer, organisation]
    for number, who in enumerate(parties, 1):
        async with asyncio.TaskGroup() as group:
            call = group.create_task(world.call(target, gateway=gateways[0], headers=caller.bearer))
            call_id = await sent(agent, number)
            for ask in (explain, cancel):
                status, body = await ask(world, target, call_id, gateway=asked, headers=stranger.bearer)
                assert (status, body["code"]) == (404, "not_found")
                status, body = await ask(world, caller, call_id, gateway=asked)
                assert (status, body["code"]) == (404, "not_found"), "it is no call to that one"
            for looks in parties:
                assert (await explain(world, target, call_id, gateway=asked, headers=looks))[0] == 200
            assert (await cancel(world, target, call_id, gateway=asked, headers=who))[0] == 200
        assert call.result()[0] == 409
    assert (await cancel(world, target, NOBODY, gateway=asked))[0] == 404


async def test_a_call_is_explained_while_it_is_under_way_and_after_it_on_both_replicas(world: World) -> None:
    holds, other = await two(world, GATEWAY_WRITE_EVERY_SECONDS="3")
    opened, begun = asyncio.Event(), asyncio.Event()

    async def halting(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)
        await response.write(b" " * 100)
        begun.set()
        await opened.wait()
        await response.write(web.json_response(result(body)).body)
        return response

    agent = await world.agent(halting)
    target, caller = await world.workspace(agent.url), await world.workspace()
    async with asyncio.TaskGroup() as group:
        call = group.create_task(
            world.call(target, gateway=holds, headers={**caller.bearer, "X-Timeout": "60", "A2A-Version": "0.3"})
        )
        call_id = await sent(agent)
        await begun.wait()
        _, here = await until(
            lambda: explain(world, target, call_id, gateway=holds), lambda said: received(said) == 100
        )
        _, there = await explain(world, target, call_id, gateway=other)
        for said in (here, there):
            assert (said["id"], said["kind"], said["state"], said["ending"]) == (call_id, "push", "dispatched", None)
            assert (said["caller_id"], said["method"], said["attempts"]) == (caller.id, "message/send", 1)
            assert (said["ended_at"], said["duration_ms"], said["journey"]["status"]) == (None, None, None)
            assert said["journey"]["bytes"]["sent"] == len(agent.bodies[0])
            assert said["journey"]["clocks"]["limit"] == "deadline"
            assert said["journey"]["clocks"]["limit_seconds"] == pytest.approx(60, abs=1)
        assert here["journey"]["replica"] == there["journey"]["replica"]
        assert here["journey"]["clocks"]["reset_by"] == "answer"
        assert here["journey"]["first_byte_ms"] is not None
        assert there["journey"]["bytes"]["received"] is None, "that is known to the other one alone"
        assert await world.beat(target, gateway=other) == 200
        for gateway in (holds, other):
            _, said = await until(
                lambda gateway=gateway: explain(world, target, call_id, gateway=gateway),
                lambda said: said[1]["journey"]["clocks"]["reset_by"] == "workspace",
            )
            assert said["journey"]["clocks"]["reset_at"] >= here["journey"]["clocks"]["reset_at"]
        opened.set()
    assert call.result()[0] == 200
    assert await world.sql("select count(*) from calls") == [(0,)], "its row is not there yet"
    first = await explain(world, target, call_id, gateway=holds)
    _, second = await until(lambda: explain(world, target, call_id, gateway=other), lambda said: said[1]["ending"])
    assert await written(world, call_id) == ("push", "completed", "completed", caller.id, 1)
    for _, said in (first, (200, second), await explain(world, target, call_id, gateway=other)):
        assert (said["state"], said["ending"], said["journey"]["status"]) == ("completed", "completed", 200)
        assert said["journey"]["bytes"]["received"] > 100
        assert said["journey"]["clocks"]["reset_by"] == "answer"
        assert said["duration_ms"] == first[1]["duration_ms"]
        assert "response_body" not in said, "who wants the answer once more sends the message once more"
    status, body = await cancel(world, target, call_id, gateway=other)
    assert (status, body["code"], body["state"], body["ending"]) == (409, "call_ended", "completed", "completed")


def received(said: tuple[int, Any]) -> int:
    count: int = said[1]["journey"]["bytes"]["received"]
    return count


async def test_a_call_of_a_killed_replica_is_explained_as_interrupted(world: World) -> None:
    dying, staying = await two(world)
    agent = await world.agent(silent)
    target = await world.workspace(agent.url)

    async def call() -> None:
        with pytest.raises(Exception, match=r"disconnected|reset"):
            await world.call(target, gateway=dying)

    async with asyncio.TaskGroup() as group:
        group.create_task(call())
        call_id = await sent(agent)
        dying.send(signal.SIGKILL)
        world.gateways.remove(dying)
    status, body = await explain(world, target, call_id)
    assert (status, body["state"]) == (200, "dispatched"), "nobody knows yet"
    status, body = await cancel(world, target, call_id)
    assert (status, body) == (202, {"status": "cancelling", "state": "dispatched"}), "nobody is there to end it"
    _, said = await until(lambda: explain(world, target, call_id), lambda said: said[1]["ending"], within_s=30)
    assert (said["state"], said["ending"], said["journey"]["status"]) == ("interrupted", "interrupted", 503)
    assert (await written(world, call_id))[:3] == ("push", "interrupted", "interrupted")
    status, body = await cancel(world, target, call_id, gateway=staying)
    assert (status, body["ending"]) == (409, "interrupted")


async def test_without_redis_there_is_what_the_database_and_the_replica_itself_know(world: World) -> None:
    async with valkeys.running() as broker:
        gateways = [await world.start(GATEWAY_REDIS_URL=broker.url, GATEWAY_ADMISSION_SECONDS="0.2") for _ in range(2)]
        holds, other = gateways
        agent = await world.agent(echo)
        target = await world.workspace(agent.url)
        status, _, headers = await world.call(target)
        assert status == 200
        ended = headers["X-A2A-Call-ID"]
        await written(world, ended)
        agent.behave = silent
        async with asyncio.TaskGroup() as group:
            call = group.create_task(world.call(target, gateway=holds))
            call_id = await sent(agent, 2)
            broker.stall()
            for gateway in gateways:
                assert (await explain(world, target, ended, gateway=gateway))[1]["ending"] == "completed"
            assert (await explain(world, target, call_id, gateway=holds))[1]["state"] == "dispatched"
            for ask in (explain, cancel):
                status, body = await ask(world, target, call_id, gateway=other)
                assert (status, body["code"]) == (503, "platform_unavailable"), "it may be anywhere"
            assert (await cancel(world, target, call_id, gateway=holds))[0] == 200
        assert call.result()[0] == 409
        assert (await written(world, call_id))[:3] == ("push", "cancelled", "cancelled")
        broker.go_on()


async def test_a_word_that_the_bus_does_not_carry_arrives_by_the_list_of_changes(world: World) -> None:
    holds, other = await two(world)
    agent = await world.agent(once(asyncio.Event()))
    target = await world.workspace(agent.url)
    async with asyncio.TaskGroup() as group:
        call = group.create_task(world.call(target, gateway=holds))
        call_id = await sent(agent)
        await world.sql("insert into changes (kind, key) values ('call', %s)", call_id)
        assert (await call)[1]["code"] == "cancelled"
    _, said = await until(lambda: explain(world, target, call_id, gateway=other), lambda said: said[1]["ending"])
    assert said["ending"] == "cancelled"


async def test_a_message_that_lies_in_an_inbox_is_called_off_by_whoever_has_a_part_in_it(world: World) -> None:
    one, other = await two(world)
    target, caller, stranger = (
        await world.workspace(delivery_mode="poll"),
        await world.workspace(),
        await world.workspace(),
    )
    _, parked, _ = await world.call(target, gateway=one, headers=caller.bearer)
    assert (await cancel(world, target, parked["id"], headers=stranger.bearer))[0] == 404
    for gateway in (other, one):
        said = await cancel(world, target, parked["id"], gateway=gateway, headers=caller.bearer)
        assert said == (200, {"status": "cancelled", "state": "cancelled"})
    _, taken, _ = await world.request("GET", f"/workspaces/{target.id}/inbox?wait=0", headers=target.bearer)
    assert taken["messages"] == []
    _, body = await explain(world, target, parked["id"])
    assert (body["kind"], body["ending"]) == ("parked", "cancelled")
    assert "journey" not in body
