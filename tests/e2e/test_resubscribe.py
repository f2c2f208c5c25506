"""The rest of a task's stream, asked for in the words of A2A: the agent is asked, and the gateway where it cannot."""

import asyncio
from typing import Any

import orjson
import pytest
from aiohttp import web

from tests.e2e.test_streams import OPERATOR, asked, events, open_stream, streaming, update
from tests.harness import agent as agents
from tests.harness.agent import Behaviour
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, until


def resubscribe(task_id: str = "task-1", *, rpc_id: Any = "again", v1: bool = False) -> dict[str, Any]:
    method = "SubscribeToTask" if v1 else "tasks/resubscribe"
    return {"jsonrpc": "2.0", "id": rpc_id, "method": method, "params": {"id": task_id}}


async def ten(response: web.StreamResponse, _: bytes) -> None:
    for n in range(1, 11):
        await response.write(update(n, final=n == 10))


def otherwise(behave: Behaviour) -> Behaviour:
    """Streams a task, and does this when it is asked for the rest of it."""

    async def both(request: web.Request) -> web.StreamResponse:
        method = orjson.loads(await request.read())["method"]
        if method in ("message/stream", "SendStreamingMessage"):
            return await streaming(ten)(request)
        return await behave(request)

    return both


def error(code: int, *, status: int = 200) -> Behaviour:
    async def behave(request: web.Request) -> web.StreamResponse:
        rpc_id = orjson.loads(await request.read())["id"]
        return web.json_response(
            {"jsonrpc": "2.0", "id": rpc_id, "error": {"code": code, "message": "no"}}, status=status
        )

    return behave


def streamed_error(code: int) -> Behaviour:
    async def script(response: web.StreamResponse, body: bytes) -> None:
        said = {"jsonrpc": "2.0", "id": orjson.loads(body)["id"], "error": {"code": code, "message": "no"}}
        await response.write(b"data: " + orjson.dumps(said) + b"\n\n")

    return streaming(script)


def plain(status: int) -> Behaviour:
    async def behave(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=status)

    return behave


async def silent(response: web.StreamResponse, _: bytes) -> None:
    """Begins a stream, and ends it without a word."""


async def streamed(world: World, target: Workspace, **options: Any) -> str:
    """Have the task streamed; return the call."""
    async with open_stream(world, target, **options) as response:
        call_id: str = response.headers["X-A2A-Call-ID"]
        assert len(events(await response.read())) == 10
    return call_id


async def again(
    world: World,
    target: Workspace,
    body: Any,
    *,
    gateway: GatewayProcess | None = None,
    headers: dict[str, str] | None = None,
) -> tuple[str | None, list[tuple[str | None, Any]], Any]:
    """The call whose stream it is, the events, and the status."""
    url = f"{(gateway or world.gateways[0]).url}/workspaces/{target.id}/a2a"
    async with world.session.post(url, json=body, headers=headers or OPERATOR) as response:
        return response.headers.get("X-A2A-Call-ID"), events(await response.read()), response.status


def numbers(seen: list[tuple[str | None, Any]]) -> list[int]:
    return [one["result"]["metadata"]["n"] for _, one in seen]


CANNOT = {
    "-32601": error(-32601),
    "-32001 with 404": error(-32001, status=404),
    "-32004 in its stream": streamed_error(-32004),
    "404": plain(404),
    "405": plain(405),
    "501": plain(501),
    "an empty stream": streaming(silent),
}


@pytest.mark.parametrize("cannot", CANNOT)
async def test_what_an_agent_cannot_the_gateway_does(world: World, cannot: str) -> None:
    await world.start()
    agent = await world.agent(otherwise(CANNOT[cannot]))
    target = await world.workspace(agent.url)
    call_id = await streamed(world, target)
    found, seen, _ = await again(world, target, resubscribe(rpc_id=5))
    assert [orjson.loads(body)["method"] for body in agent.bodies] == ["message/stream", "tasks/resubscribe"]
    assert (found, numbers(seen)) == (call_id, list(range(1, 11)))
    assert [id_ for id_, _ in seen] == [f"{call_id}-{n}" for n in range(1, 11)]
    assert {one["id"] for _, one in seen} == {5}


async def test_an_agent_that_has_exited_is_not_missed_on_any_replica(world: World) -> None:
    one, other = await asyncio.gather(world.start(), world.start())
    async with agents.running(streaming(ten)) as agent:
        target = await world.workspace(agent.url)
        call_id = await streamed(world, target, gateway=one)
    for gateway in (one, other):
        found, seen, _ = await again(world, target, resubscribe(), gateway=gateway)
        assert (found, numbers(seen)) == (call_id, list(range(1, 11)))
        headers = {**OPERATOR, "Last-Event-ID": f"{call_id}-7"}
        assert numbers((await again(world, target, resubscribe(), gateway=gateway, headers=headers))[1]) == [8, 9, 10]
        headers = {**OPERATOR, "Last-Event-ID": "another-call-7"}
        assert len((await again(world, target, resubscribe(), gateway=gateway, headers=headers))[1]) == 10


async def test_a_stream_that_goes_on_is_followed_to_its_end(world: World) -> None:
    one, other = await asyncio.gather(world.start(), world.start())
    go = asyncio.Event()

    async def script(response: web.StreamResponse, _: bytes) -> None:
        for n in range(1, 6):
            await response.write(update(n))
        await go.wait()
        for n in range(6, 11):
            await response.write(update(n, final=n == 10))

    async def both(request: web.Request) -> web.StreamResponse:
        method = orjson.loads(await request.read())["method"]
        return await (streaming(script) if method == "message/stream" else error(-32601))(request)

    target = await world.workspace((await world.agent(both)).url)
    async with open_stream(world, target, gateway=one) as first:
        await first.content.readuntil(b"\n\n")
        async with open_stream(world, target, gateway=other, body=resubscribe()) as second:
            await second.content.readuntil(b"\n\n")
            go.set()
            seen = events(await second.read())
        await first.read()
    assert numbers(seen) == list(range(2, 11))


async def test_an_agent_that_can_is_believed_and_does_not_get_our_ids(world: World) -> None:
    await world.start()

    async def script(response: web.StreamResponse, body: bytes) -> None:
        await response.write(update(99, final=True, rpc_id=orjson.loads(body)["id"]))

    agent = await world.agent(otherwise(streaming(script)))
    target = await world.workspace(agent.url)
    call_id = await streamed(world, target)
    found, seen, _ = await again(world, target, resubscribe(), headers={**OPERATOR, "Last-Event-ID": f"{call_id}-7"})
    assert found != call_id
    assert numbers(seen) == [99]
    assert all("last-event-id" not in map(str.lower, headers) for headers in agent.headers)
    agent.behave = error(-32601)
    found, seen, _ = await again(world, target, resubscribe())
    assert (found, len(seen)) == (call_id, 10), "the rest of a stream is not taken for the whole"


async def test_an_agent_that_waits_for_its_next_event_is_not_given_up(world: World) -> None:
    await world.start()
    go = asyncio.Event()

    async def script(response: web.StreamResponse, body: bytes) -> None:
        await go.wait()
        await response.write(update(99, final=True, rpc_id=orjson.loads(body)["id"]))

    target = await world.workspace((await world.agent(otherwise(streaming(script)))).url)
    await streamed(world, target)
    async with open_stream(world, target, body=resubscribe()) as response:
        assert response.status == 200
        go.set()
        assert numbers(events(await response.read())) == [99]


async def test_who_may_not_see_the_call_gets_what_the_agent_says(world: World) -> None:
    await world.start()
    agent = await world.agent(otherwise(error(-32001)))
    target, caller, stranger = [await world.workspace(url) for url in (agent.url, None, None)]
    body = asked()
    async with open_stream(world, target, body=body, headers=caller.bearer) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        await response.read()
    await until(lambda: world.request("GET", f"/workspaces/{target.id}/a2a/calls/{call_id}"), lambda got: got[0] == 200)
    for who, may in ((caller, True), (target, True), (stranger, False)):
        url = f"{world.url}/workspaces/{target.id}/a2a"
        async with world.session.post(url, json=resubscribe(), headers=who.bearer) as response:
            said = await response.read()
        if may:
            assert len(events(said)) == 10
        else:
            assert orjson.loads(said)["error"]["code"] == -32001


async def test_other_errors_other_tasks_and_other_languages_are_the_agents_own(world: World) -> None:
    await world.start()
    agent = await world.agent(otherwise(error(-32603)))
    target = await world.workspace(agent.url)
    await streamed(world, target)

    async def said(body: Any) -> Any:
        return (await world.request("POST", f"/workspaces/{target.id}/a2a", json=body))[1]["error"]["code"]

    assert await said(resubscribe()) == -32603
    agent.behave = error(-32601)
    assert await said(resubscribe("another-task")) == -32601
    assert await said(resubscribe(v1=True)) == -32601, "its events would not be of its version"


async def test_it_is_the_same_in_the_words_of_1_0(world: World) -> None:
    await world.start()
    status = {"taskId": "t-1", "contextId": "c", "status": {"state": "TASK_STATE_WORKING"}}

    async def script(response: web.StreamResponse, _: bytes) -> None:
        for state in ("TASK_STATE_WORKING", "TASK_STATE_COMPLETED"):
            result = {"statusUpdate": {**status, "status": {"state": state}}}
            await response.write(b"data: " + orjson.dumps({"jsonrpc": "2.0", "id": 1, "result": result}) + b"\n\n")

    async def both(request: web.Request) -> web.StreamResponse:
        method = orjson.loads(await request.read())["method"]
        return await (streaming(script) if method == "SendStreamingMessage" else error(-32004))(request)

    target = await world.workspace((await world.agent(both)).url)
    body = {**asked(), "method": "SendStreamingMessage"}
    async with open_stream(world, target, body=body, headers={"A2A-Version": "1.0"}) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        await response.read()
    found, seen, _ = await again(world, target, resubscribe("t-1", v1=True, rpc_id=9))
    assert found == call_id
    assert [(id_, one["id"]) for id_, one in seen] == [(f"{call_id}-1", 9), (f"{call_id}-2", 9)]


async def test_what_a_busy_agent_gives_later_is_not_taken_for_the_whole_either(world: World) -> None:
    await world.start(GATEWAY_QUEUE_RETRY_SECONDS="0.1", GATEWAY_QUEUE_EVERY_SECONDS="0.1")
    busy = True

    async def script(response: web.StreamResponse, body: bytes) -> None:
        await response.write(update(99, final=True, rpc_id=orjson.loads(body)["id"]))

    async def at_first_busy(request: web.Request) -> web.StreamResponse:
        nonlocal busy
        if busy:
            busy = False
            return await plain(429)(request)
        return await streaming(script)(request)

    agent = await world.agent(otherwise(at_first_busy))
    target = await world.workspace(agent.url)
    call_id = await streamed(world, target)
    async with asyncio.timeout(20):
        assert numbers((await again(world, target, resubscribe()))[1]) == [99]
    agent.behave = error(-32601)
    found, seen, _ = await again(world, target, resubscribe())
    assert (found, len(seen)) == (call_id, 10)
