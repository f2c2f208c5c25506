"""A2A by HTTP+JSON through the gateway: paths and bodies as they came, streams had again, errors as the binding's."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import orjson
import pytest
from aiohttp import web

from tests.e2e.test_streams import HEADERS, OPERATOR, events
from tests.harness.world import Workspace, World, eventually, until

WORKING, DONE = "TASK_STATE_WORKING", "TASK_STATE_COMPLETED"
SAYS = {"message": {"role": "ROLE_USER", "parts": [{"text": "hi"}]}}
NOT_FOUND = {
    "error": {
        "code": 404,
        "status": "NOT_FOUND",
        "message": "no such task",
        "details": [{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "TASK_NOT_FOUND"}],
    }
}


def update(number: int, *, final: bool = False) -> bytes:
    """An event of a task, as HTTP+JSON has it."""
    status = {"state": DONE if final else WORKING}
    return b"data: %b\n\n" % orjson.dumps(
        {"statusUpdate": {"taskId": "task 1", "status": status, "metadata": {"n": number}}}
    )


class Agent:
    """What it was asked for, and what it says: `events` of a stream, one when it may, or a task."""

    def __init__(self, count: int = 3, *, cut_after: int | None = None) -> None:
        self.asked: list[tuple[str, str, bytes]] = []
        self.headers: list[dict[str, str]] = []
        self.may = asyncio.Semaphore(0)
        self.gone = 0
        self._count = count
        self._cut_after = cut_after

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.raw_path, await request.read()))
        self.headers.append(dict(request.headers))
        if request.path.endswith(":subscribe"):
            return web.json_response(NOT_FOUND, status=404)
        if not request.path.endswith("message:stream"):
            return web.json_response({"task": {"id": "task 1", "metadata": {"usage": {"input_tokens": 7}}}})
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        try:
            for number in range(1, self._count + 1):
                await self.may.acquire()
                await response.write(update(number, final=number == self._count))
                if number == self._cut_after:
                    break
        except asyncio.CancelledError:
            self.gone += 1
            raise
        return response


@asynccontextmanager
async def open_path(
    world: World, target: Workspace, path: str, *, method: str = "POST", replica: int = 0, **options: Any
) -> AsyncIterator[Any]:
    headers = {**OPERATOR, **options.pop("headers", {})}
    url = f"{world.gateways[replica].url}/workspaces/{target.id}/{path}"
    async with world.session.request(method, url, headers=headers, **options) as response:
        yield response


async def test_a_request_reaches_the_agent_as_it_was_written(world: World):
    await world.start()
    behave = Agent()
    agent = await world.agent(behave)
    base = f"{agent.url}base/"
    card = {"supportedInterfaces": [{"url": base, "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"}]}
    target = await world.workspace(agent.url)
    caller = await world.workspace()
    status, _, _ = await world.request(
        "POST",
        "/registry/register",
        headers=target.bearer,
        json={"id": target.id, "url": agent.url, "agent_card": card},
    )
    assert status == 200
    body = b'{ "message": {"role": "ROLE_USER", "parts": [{"text": "\\u00e4"}]} }'
    path = f"/workspaces/{target.id}/a2a"
    headers = {**caller.bearer, "Content-Type": "application/a2a+json", "A2A-Version": "1.0", "Cookie": "a=b"}
    status, said, got = await world.request("POST", f"{path}/message:send", headers=headers, data=body)
    assert (status, said["task"]["id"]) == (200, "task 1")
    assert behave.asked == [("POST", "/base/message:send", body)]
    sent = behave.headers[0]
    assert (sent["X-Workspace-ID"], sent["A2A-Version"]) == (caller.id, "1.0")
    assert sent["Content-Type"] == "application/a2a+json"
    assert not {"Authorization", "Cookie"} & set(sent)
    call_id = got["X-A2A-Call-ID"]
    assert sent["X-A2A-Call-ID"] == call_id
    _, row, _ = await until(
        lambda: world.request("GET", f"{path}/calls/{call_id}"), lambda one: one[0] == 200 and one[1]["ending"]
    )
    assert (row["method"], row["ending"]) == ("message:send", "completed")
    _, used, _ = await until(
        lambda: world.request("GET", f"/workspaces/{target.id}/metrics"), lambda one: one[1]["input_tokens"]
    )
    assert used["input_tokens"] == 7, "though there is no result around the task"
    for method, written in (
        ("GET", "tasks/a%20b?historyLength=2&x=%2F"),
        ("GET", "tasks"),
        ("POST", "v1/tasks/1:cancel"),
        ("DELETE", "acme/tasks/1/pushNotificationConfigs/2"),
    ):
        address = urlsplit(world.url)
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        head = f"{method} {path}/{written} HTTP/1.1\r\nHost: x\r\nAuthorization: {OPERATOR['Authorization']}\r\n"
        writer.write(f"{head}Connection: close\r\n\r\n".encode())
        assert b" 200 " in await reader.readline(), written
        writer.close()
        assert behave.asked[-1] == (method, f"/base/{written}", b"")


async def test_what_is_no_path_of_a2a_does_not_reach_the_agent(world: World):
    await world.start()
    agent = await world.agent()
    target = await world.workspace(agent.url)
    address = urlsplit(world.url)
    for path in (
        "admin",
        "tasks/..",
        "tasks/%2e%2e",
        "%2e%2e/tasks",
        "tasks/a%2fb",
        "v1/card",
        "message:send/x",
        "queue/",
    ):
        reader, writer = await asyncio.open_connection(address.hostname, address.port)
        head = (
            f"GET /workspaces/{target.id}/a2a/{path} HTTP/1.1\r\nHost: x\r\nAuthorization: {OPERATOR['Authorization']}"
        )
        writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode())
        assert b" 404 " in await reader.readline(), path
        writer.close()
    status, said, headers = await world.request("GET", f"/workspaces/{target.id}/a2a/message:send")
    assert (status, said["code"], headers["Allow"]) == (405, "method_not_allowed", "POST")
    assert agent.bodies == []


async def test_a_stream_is_relayed_and_had_again_on_another_replica(world: World):
    await world.start()
    await world.start()
    behave = Agent()
    target = await world.workspace((await world.agent(behave)).url)
    behave.may.release()
    async with open_path(world, target, "a2a/v1/message:stream", json=SAYS) as response:
        assert response.headers["Content-Type"] == "text/event-stream"
        call_id = response.headers["X-A2A-Call-ID"]
        assert await response.content.readuntil(b"\n\n") == f"id: {call_id}-1\n".encode() + update(1)
    behave.may.release(), behave.may.release()
    follow = f"a2a/calls/{call_id}/stream"
    async with open_path(
        world, target, follow, method="GET", replica=1, headers={"Last-Event-ID": f"{call_id}-1"}
    ) as response:
        rest = await response.read()
    assert rest == b"".join(f"id: {call_id}-{n}\n".encode() + update(n, final=n == 3) for n in (2, 3))
    async with open_path(world, target, "a2a/v1/tasks/task%201:subscribe", method="GET", replica=1) as response:
        assert response.headers["X-A2A-Call-ID"] == call_id
        again = await response.read()
    assert [said for _, said in events(again)] == [orjson.loads(update(n, final=n == 3)[6:]) for n in (1, 2, 3)]
    async with open_path(world, target, "a2a/tasks/task%201:subscribe") as response:
        assert (response.status, await response.json()) == (404, NOT_FOUND), "it is not of this version"


async def test_a_stream_that_is_cut_says_so_as_the_binding_does(world: World):
    await world.start()
    behave = Agent(cut_after=1)
    target = await world.workspace((await world.agent(behave)).url)
    behave.may.release()
    async with open_path(world, target, "a2a/message:stream", json=SAYS) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        raw = await response.read()
    assert f"id: {call_id}-2\nevent: error\ndata: ".encode() in raw
    (_, _), (id_, said) = events(raw)
    error = said["error"]
    assert id_ == f"{call_id}-2"
    assert (error["code"], error["status"], error["message"]) == (
        502,
        "UNAVAILABLE",
        "agent ended its stream without a last event",
    )
    assert error["details"][0]["reason"] == "TRUNCATED"
    assert error["data"]["code"] == "truncated"
    assert error["data"]["last_event_id"] == f"{call_id}-1"
    async with open_path(world, target, f"a2a/calls/{call_id}/stream", method="GET") as response:
        assert events(await response.read()) == events(raw)


async def test_a_caller_that_wants_its_call_ended_when_it_leaves_has_its_task_called_off(world: World):
    await world.start()
    behave = Agent()
    target = await world.workspace((await world.agent(behave)).url)
    behave.may.release()
    cancel = {"X-On-Disconnect": "cancel"}
    async with open_path(world, target, "a2a/acme/message:stream", json=SAYS, headers=cancel) as response:
        await response.content.readuntil(b"\n\n")
        response.close()
    await eventually(lambda: behave.asked[-1] == ("POST", "/acme/tasks/task%201:cancel", b"{}"))
    assert behave.gone == 1


async def test_a_busy_agents_caller_is_told_to_come_again_and_a_polling_agent_is_not_called(world: World):
    await world.start()

    async def busy(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.Response(status=429, headers={"Retry-After": "7"})

    target = await world.workspace((await world.agent(busy)).url)
    for path in ("message:send", "message:stream"):
        status, said, headers = await world.request("POST", f"/workspaces/{target.id}/a2a/{path}", json=SAYS)
        assert (status, said["code"], headers["Retry-After"]) == (503, "agent_busy", "30"), path
    assert await world.sql("SELECT count(*) FROM calls WHERE kind = 'queued'") == [(0,)]
    poller = await world.workspace(delivery_mode="poll")
    status, said, _ = await world.request("POST", f"/workspaces/{poller.id}/a2a/message:send", json=SAYS)
    assert (status, said["code"]) == (400, "invalid_request")
    assert "polls" in said["error"]


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (NOT_FOUND, NOT_FOUND),
        ({"message": "no such task"}, {"message": "no such task"}),
        ({"type": "about:blank", "title": "no"}, {"type": "about:blank", "title": "no"}),
        ({"trace": "secret"}, {"error": "Not Found", "code": "agent_error"}),
    ],
)
async def test_an_agents_own_errors_are_its_callers(world: World, answer: Any, said: Any):
    await world.start()

    async def refuse(request: web.Request) -> web.StreamResponse:
        await request.read()
        return web.json_response(answer, status=404)

    target = await world.workspace((await world.agent(refuse)).url)
    status, got, _ = await world.request("GET", f"/workspaces/{target.id}/a2a/tasks/1")
    assert (status, got) == (404, said)


async def test_the_same_message_once_more_gets_the_bytes_of_the_same_stream(world: World):
    await world.start()
    said = b'data: {"task": {"id": "t", "status": {"state": "%b"}}, "jsonrpc": "2.0"}\n\n' % DONE.encode()

    async def behave(request: web.Request) -> web.StreamResponse:
        await request.read()
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        await response.write(said)
        return response

    target = await world.workspace((await world.agent(behave)).url)
    says = {"message": {**SAYS["message"], "messageId": "m-1"}}
    got = []
    for _ in range(2):
        async with open_path(world, target, "a2a/message:stream", json=says) as response:
            got.append(await response.read())
    assert got[0].endswith(said)
    assert got[0] == got[1]


async def test_the_same_message_is_one_call(world: World):
    await world.start()
    behave = Agent()
    target = await world.workspace((await world.agent(behave)).url)
    path = f"/workspaces/{target.id}/a2a/message:send"
    says = {"message": {**SAYS["message"], "messageId": "m-1"}}
    first = await world.request("POST", path, json=says)
    again = await world.request("POST", path, json=says)
    assert first[:2] == again[:2]
    assert first[2]["X-A2A-Call-ID"] == again[2]["X-A2A-Call-ID"]
    assert len(behave.asked) == 1
    status, said, _ = await world.request("POST", path, json={**says, "metadata": {}})
    assert (status, said["code"]) == (409, "message_id_reused")
