"""Streams of agents through the gateway: as they come, whole, and ended honestly."""

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import orjson
from aiohttp import ClientResponse, web

from tests.harness.agent import ScriptedAgent
from tests.harness.process import GatewayProcess
from tests.harness.world import ADMIN_TOKEN, Workspace, World, until

OPERATOR = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
HEADERS = {"Content-Type": "text/event-stream"}
Script = Callable[[web.StreamResponse, bytes], Awaitable[None]]


def update(number: int, *, final: bool = False, rpc_id: Any = "1", **fields: Any) -> bytes:
    """An event of a task."""
    result = {
        "kind": "status-update",
        "taskId": "task-1",
        "contextId": "c",
        "status": {"state": "completed" if final else "working"},
        "final": final,
        "metadata": {"n": number, **fields},
    }
    return b"data: " + orjson.dumps({"jsonrpc": "2.0", "id": rpc_id, "result": result}) + b"\n\n"


def streaming(script: Script) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    """An agent that answers with a stream."""

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        await script(response, body)
        return response

    return behave


async def agent_of(world: World, script: Script) -> tuple[Workspace, ScriptedAgent]:
    agent = await world.agent(streaming(script))
    return await world.workspace(agent.url), agent


def asked(text: str = "hi", *, rpc_id: Any = "1", message_id: str | None = None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "user", "parts": [{"kind": "text", "text": text}]}
    if message_id is not None:
        message["messageId"] = message_id
    return {"jsonrpc": "2.0", "id": rpc_id, "method": "message/stream", "params": {"message": message}}


@asynccontextmanager
async def open_stream(
    world: World, target: Workspace, *, gateway: GatewayProcess | None = None, body: Any = None, headers: Any = None
) -> AsyncIterator[ClientResponse]:
    url = f"{(gateway or world.gateways[0]).url}/workspaces/{target.id}/a2a"
    async with world.session.post(url, json=body or asked(), headers={**OPERATOR, **(headers or {})}) as response:
        yield response


def events(raw: bytes) -> list[tuple[str | None, Any]]:
    """Id and data of each event, as a strict client sees them."""
    found = []
    for block in re.split(rb"\r\n\r\n|\n\n|\r\r", raw):
        lines = [line for line in re.split(rb"\r\n|\n|\r", block) if line]
        data = [line[5:].strip() for line in lines if line.startswith(b"data:")]
        ids = [line[3:].strip().decode() for line in lines if line.startswith(b"id:")]
        if lines and not all(line.startswith(b":") for line in lines):
            found.append((ids[0] if ids else None, orjson.loads(b"\n".join(data))))
    return found


async def test_a_stream_is_relayed_as_it_comes_with_ids_of_ours(world: World):
    await world.start()
    go = asyncio.Event()

    async def script(response: web.StreamResponse, _: bytes) -> None:
        await response.write(b"id: theirs-1\n" + update(1))
        await go.wait()
        await response.write(b": still here\n\n" + update(2, final=True))

    target, _ = await agent_of(world, script)
    async with open_stream(world, target) as response:
        assert response.status == 200
        assert response.headers["Content-Type"] == "text/event-stream"
        assert response.headers["X-Accel-Buffering"] == "no"
        call_id = response.headers["X-A2A-Call-ID"]
        async with asyncio.timeout(5):
            first = await response.content.readuntil(b"\n\n")
        assert first == f"id: {call_id}-1\n".encode() + update(1)
        go.set()
        rest = await response.content.read()
    assert rest == b": still here\n" + f"id: {call_id}-2\n".encode() + update(2, final=True)
    _, row, _ = await until(
        lambda: world.request("GET", f"/workspaces/{target.id}/a2a/calls/{call_id}"),
        lambda got: got[0] == 200 and got[1]["state"] == "completed",
    )
    assert row["ending"] == "completed"


async def test_an_end_without_a_last_event_is_told_in_band(world: World):
    await world.start()

    async def script(response: web.StreamResponse, _: bytes) -> None:
        await response.write(update(1) + update(2)[:40])

    target, _ = await agent_of(world, script)
    async with open_stream(world, target, body=asked(rpc_id=7)) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        (_, first), (id_, last) = events(await response.read())
    assert first["result"]["metadata"]["n"] == 1
    assert (id_, last["id"]) == (f"{call_id}-2", 7)
    assert last["error"]["data"] == {
        "code": "truncated", "http_status": 502, "retriable": False, "call_id": call_id,
        "last_event_id": f"{call_id}-1", "delivery_confirmed": True,
    }  # fmt: skip


async def test_what_keeps_a_call_from_being_sent_is_told_in_band_too(world: World):
    await world.start()
    nowhere = await world.workspace()
    async with open_stream(world, nowhere, body=asked(rpc_id="x")) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert response.headers["Retry-After"] == "15"
        [(_, said)] = events(await response.read())
        call_id = response.headers["X-A2A-Call-ID"]
    assert (said["id"], said["error"]["message"]) == ("x", "workspace has no URL")
    assert said["error"]["data"] == {
        "code": "no_url", "http_status": 503, "retriable": True, "call_id": call_id, "last_event_id": None,
        "status": "awaiting_agent",
    }  # fmt: skip
    for body in (asked() | {"method": "message/send"}, None):
        async with open_stream(
            world, nowhere, body=body, headers={} if body else {"Authorization": "Bearer no"}
        ) as response:
            assert response.content_type == "application/json"
            assert response.status == (503 if body else 401)


async def test_a_stream_is_resumed_on_another_replica_while_it_goes_on_and_after_its_end(world: World):
    one, other = await asyncio.gather(world.start(), world.start())
    go = asyncio.Event()

    async def script(response: web.StreamResponse, _: bytes) -> None:
        for n in range(1, 6):
            await response.write(update(n))
        await go.wait()
        for n in range(6, 11):
            await response.write(update(n, final=n == 10))

    target, _ = await agent_of(world, script)
    async with open_stream(world, target, gateway=one) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        head = b"".join([await response.content.readuntil(b"\n\n") for _ in range(3)])
    url = f"/workspaces/{target.id}/a2a/calls/{call_id}/stream"
    headers = {**OPERATOR, "Last-Event-ID": f"{call_id}-3"}
    async with world.session.get(other.url + url, headers=headers) as response:
        assert response.status == 200
        await response.content.readuntil(b"\n\n")
        go.set()
        await response.read()
    for gateway in (one, other):
        async with world.session.get(gateway.url + url, headers=headers) as response:
            rest = await response.read()
        seen = events(head + rest)
        assert [id_ for id_, _ in seen] == [f"{call_id}-{n}" for n in range(1, 11)]
        assert [data["result"]["metadata"]["n"] for _, data in seen] == list(range(1, 11))
        async with world.session.get(
            gateway.url + url, headers={**headers, "Last-Event-ID": f"{call_id}-10"}
        ) as response:
            assert response.status == 204
