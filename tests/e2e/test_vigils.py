"""Who calls a busy or polling agent with a streaming method stays in its stream until there is an answer."""

import asyncio
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.e2e.test_streams import asked, events, open_stream, streaming, update
from tests.harness.busy import QUICK, BusyAgent, busy
from tests.harness.world import Workspace, World, eventually, until


async def heard_of(response: Any, wanted: bytes) -> bytes:
    got = b""
    async with asyncio.timeout(15):
        while wanted not in got:
            got += await response.content.readany()
    return got


async def test_a_busy_agents_stream_reaches_the_caller_that_waited_on_another_replica(world: World):
    one, other = await asyncio.gather(world.start(**QUICK), world.start(**QUICK))
    shut, go = True, asyncio.Event()

    async def script(response: web.StreamResponse, _: bytes) -> None:
        await response.write(update(1))
        await go.wait()
        await response.write(update(2, final=True))

    async def behave(request: web.Request) -> web.StreamResponse:
        if shut:
            return web.json_response({}, status=429)
        return await streaming(script)(request)

    agent = await world.agent(behave)
    target = await world.workspace(agent.url)
    async with (
        open_stream(world, target, gateway=one, body=asked("1", rpc_id=1)) as first,
        open_stream(world, target, gateway=other, body=asked("2", rpc_id=2)) as second,
    ):
        assert (first.status, first.headers["Content-Type"]) == (200, "text/event-stream")
        await heard_of(first, b": place 1\n")
        await heard_of(second, b": place 2\n")
        shut = False
        begun = await heard_of(first, b"\n\n")
        await heard_of(second, b": place 1\n")
        go.set()
        got = begun + await first.read()
        rest = await second.read()
    assert [data["result"]["metadata"]["n"] for _, data in events(got)] == [1, 2]
    assert [data["result"]["metadata"]["n"] for _, data in events(rest)] == [1, 2]
    for response in (first, second):
        call_id = response.headers["X-A2A-Call-ID"]
        _, said, _ = await until(
            lambda call_id=call_id: world.request("GET", f"/workspaces/{target.id}/a2a/queue/{call_id}"),
            lambda got: got[1]["status"] == "completed",
        )
        assert said["response_body"]


async def test_a_busy_agent_that_has_said_all_and_goes_on_for_ever_has_completed(world: World):
    await world.start(**QUICK)
    shut = True

    async def script(response: web.StreamResponse, _: bytes) -> None:
        await response.write(update(1, final=True))
        while True:
            await response.write(b": still here\n\n")
            await asyncio.sleep(0.2)

    async def behave(request: web.Request) -> web.StreamResponse:
        return web.json_response({}, status=429) if shut else await streaming(script)(request)

    agent = await world.agent(behave)
    target = await world.workspace(agent.url)
    async with open_stream(world, target, headers={"X-Timeout": "3"}) as response, asyncio.timeout(10):
        await heard_of(response, b": place 1\n")
        shut = False
        [(_, said)] = events(await response.read())
    assert said["result"]["metadata"]["n"] == 1
    path = f"/workspaces/{target.id}/a2a/queue/{response.headers['X-A2A-Call-ID']}"
    await until(lambda: world.request("GET", path), lambda got: got[1]["status"] == "completed")


async def test_an_agent_that_polls_answers_a_streaming_caller(world: World):
    one, other = await asyncio.gather(world.start(), world.start())
    target = await world.workspace(delivery_mode="poll")
    async with open_stream(world, target, gateway=one, body=asked(rpc_id=2**60)) as response:
        assert response.status == 200
        _, inbox, _ = await world.request("GET", f"/workspaces/{target.id}/inbox", gateway=other, headers=target.bearer)
        [message] = inbox["messages"]
        assert message["id"] == response.headers["X-A2A-Call-ID"]
        await tell(world, target, message["id"], "begun")
        begun = await heard_of(response, b"\n\n")
        await keep(world, target, message["id"], {})  # a lease is renewed without a word
        await tell(world, target, message["id"], "nearly done")
        await reply(world, target, message["id"])
        got = events(begun + await response.read())
    assert [data["id"] for _, data in got] == [2**60] * 3
    assert [data["result"]["text"] for _, data in got] == ["begun", "nearly done", "done"]


async def tell(world: World, target: Workspace, id_: str, text: str) -> None:
    await keep(world, target, id_, {"kind": "status-update", "text": text})


async def keep(world: World, target: Workspace, id_: str, event: dict[str, Any]) -> None:
    status, said, _ = await world.request(
        "POST",
        f"/workspaces/{target.id}/inbox/{id_}/events",
        json={"event": event},
        headers=target.bearer,
    )
    assert (status, said["status"]) == (200, "kept"), said


async def reply(world: World, target: Workspace, id_: str) -> None:
    status, said, _ = await world.request(
        "POST",
        f"/workspaces/{target.id}/inbox/{id_}/reply",
        json={"body": {"result": {"kind": "message", "text": "done"}}},
        headers=target.bearer,
    )
    assert status == 200, said


async def test_a_call_that_ends_without_an_answer_says_so_in_its_stream(world: World):
    await world.start(GATEWAY_EXPIRY_EVERY_SECONDS="0.1")
    target = await world.workspace(delivery_mode="poll")
    body = asked()
    body["params"]["expires_in_seconds"] = 0.5
    async with open_stream(world, target, body=body) as response:
        [(_, data)] = events(await response.read())
    assert data["error"]["data"]["code"] == "expired"
    async with open_stream(world, target) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        await world.request("POST", f"/workspaces/{target.id}/a2a/calls/{call_id}/cancel")
        [(_, data)] = events(await response.read())
    assert data["error"]["data"]["code"] == "cancelled"


async def test_who_streams_to_an_inbox_leaves_at_its_deadline_and_the_message_waits_on(world: World):
    await world.start()
    target = await world.workspace(delivery_mode="poll")
    async with open_stream(world, target, headers={"X-Timeout": "0.5"}) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        [(_, data)] = events(await response.read())
    assert data["error"]["data"]["code"] == "deadline"
    _, said, _ = await world.request("GET", f"/workspaces/{target.id}/a2a/calls/{call_id}")
    assert said["state"] == "parked"


@pytest.mark.parametrize(("wish", "state"), [("cancel", "cancelled"), ("detach", "queued")])
async def test_who_leaves_while_its_call_waits_leaves_it_there_or_calls_it_off(world: World, wish: str, state: str):
    await world.start(**{**QUICK, "GATEWAY_QUEUE_RETRY_SECONDS": "1000"})
    target, _ = await busy(world, BusyAgent())
    async with open_stream(world, target, headers={"X-On-Disconnect": wish}) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        await heard_of(response, b": place 1\n")
    await until(
        lambda: world.request("GET", f"/workspaces/{target.id}/a2a/calls/{call_id}"),
        lambda got: got[1]["state"] == state,
    )


async def test_a_unary_answer_of_a_busy_agent_is_one_event(world: World):
    await world.start(**QUICK)
    target, agent = await busy(world, BusyAgent())
    async with open_stream(world, target, body=asked("later", rpc_id="mine")) as response:
        await heard_of(response, b": place 1\n")
        agent.shut = False
        [(_, data)] = events(await response.read())
    assert data["id"] == "mine"
    assert "later" in orjson.dumps(data).decode()


@pytest.mark.parametrize("polls", [False, True], ids=["busy", "polls"])
async def test_who_streams_stays_in_its_stream_whatever_it_prefers(world: World, polls: bool):
    await world.start(**{**QUICK, "GATEWAY_QUEUE_RETRY_SECONDS": "1000"})
    target = await world.workspace(delivery_mode="poll") if polls else (await busy(world, BusyAgent()))[0]
    async with asyncio.timeout(15), open_stream(world, target, headers={"Prefer": "wait=300"}) as response:
        assert (response.status, response.headers["Content-Type"]) == (200, "text/event-stream")
        if not polls:
            await heard_of(response, b": place 1\n")


async def test_an_agent_that_polls_and_only_acknowledges_leaves_a_streaming_caller_without_an_answer(world: World):
    await world.start()
    target = await world.workspace(delivery_mode="poll")
    async with open_stream(world, target) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        path = f"/workspaces/{target.id}/inbox"
        assert (await world.request("GET", path, headers=target.bearer))[1]["messages"]
        status, _, _ = await world.request("POST", f"{path}/{call_id}/ack", headers=target.bearer)
        assert status == 200
        [(id_, data)] = events(await response.read())
    assert (id_, data["error"]["data"]["code"]) == (None, "delivered_to_inbox")


async def test_who_lost_its_stream_while_its_call_waited_is_in_it_again_by_the_same_message(world: World):
    one, other = await asyncio.gather(world.start(**QUICK), world.start(**QUICK))
    target, agent = await busy(world, BusyAgent())
    body = asked("later", message_id="m-again")
    async with open_stream(world, target, gateway=one, body=body) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        await heard_of(response, b": place 1\n")
    path = f"/workspaces/{target.id}/a2a/calls/{call_id}/stream"
    status, said, _ = await world.request("GET", path, gateway=other)
    assert (status, said["code"]) == (409, "no_stream")
    async with open_stream(world, target, gateway=other, body=body) as response:
        assert response.headers["X-A2A-Call-ID"] == call_id
        await heard_of(response, b": place 1\n")
        agent.shut = False
        [(_, data)] = events(await response.read())
    assert "later" in orjson.dumps(data).decode()
    assert agent.taken == ["later"]


@pytest.mark.parametrize("v1", [False, True])
async def test_a_busy_agent_whose_stream_is_called_off_is_told(world: World, v1: bool):
    await world.start(**QUICK)
    shut, told = True, []

    async def script(response: web.StreamResponse, _: bytes) -> None:
        await response.write(update(1))
        await asyncio.Event().wait()

    async def behave(request: web.Request) -> web.StreamResponse:
        said = await request.json()
        if said["method"] in ("tasks/cancel", "CancelTask"):
            told.append((said["method"], said["params"]["id"]))
            return web.json_response({"jsonrpc": "2.0", "id": said["id"], "result": {}})
        return web.json_response({}, status=429) if shut else await streaming(script)(request)

    agent = await world.agent(behave)
    target = await world.workspace(agent.url)
    body = {**asked(), "method": "SendStreamingMessage"} if v1 else asked()
    async with open_stream(world, target, body=body) as response:
        await heard_of(response, b": place 1\n")
        shut = False
        await heard_of(response, b"\n\n")
        path = f"/workspaces/{target.id}/a2a/calls/{response.headers['X-A2A-Call-ID']}/cancel"
        status, said, _ = await world.request("POST", path)
        assert (status, said["status"]) == (200, "cancelled")
        assert events(await response.read())[-1][1]["error"]["data"]["code"] == "cancelled"
    await eventually(lambda: told == [("CancelTask" if v1 else "tasks/cancel", "task-1")])
