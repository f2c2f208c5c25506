"""Every way in which an agent can answer, or fail to: what its caller gets, and what is told and kept of it."""

import asyncio
import gzip
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import orjson
from aiohttp import web

from tests.harness.agent import Behaviour, silent_for
from tests.harness.world import Workspace, World, eventually

JSON = {"Content-Type": "application/json"}
TEXT = {"Content-Type": "text/html"}
LIMIT_BYTES = 2000
ANSWER = {"jsonrpc": "2.0", "id": "1", "result": {"kind": "message", "parts": []}}
ERROR = {"jsonrpc": "2.0", "id": "1", "error": {"code": -32603, "message": "no"}}
BUSY = {"busy": True, "retry_after": 30}
UNKNOWN = BUSY | {"outcome": "unknown", "delivery_confirmed": None}


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a call must end. `body` is all of the answer's, `fields` some of it; `kept` what its history says."""

    ending: str
    status: int
    body: Any = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    headers: Mapping[str, str | None] = field(default_factory=dict)
    kept: str = "error"


def answering(status: int, body: object = b"", headers: Mapping[str, str] = JSON) -> Behaviour:
    """Always this; a body that is not bytes goes as JSON."""
    raw = body if isinstance(body, bytes) else orjson.dumps(body)

    async def behave(_: web.Request) -> web.StreamResponse:
        return web.Response(status=status, body=raw, headers=headers)

    return behave


def completed(status: int, body: object, headers: Mapping[str, str | None] = MappingProxyType({})) -> Ended:
    return Ended(ending="completed", status=status, body=body, headers=headers, kept="ok")


def refused(status: int, body: object, headers: Mapping[str, str | None] = MappingProxyType({})) -> Ended:
    """An error of the agent; a text becomes our own form of an error."""
    shown = {"error": body, "code": "agent_error"} if isinstance(body, str) else body
    return Ended(ending="agent_error", status=status, body=shown, headers=headers)


async def check(world: World, target: Workspace, expected: Ended) -> None:
    """Make a call, and look at it from all sides."""
    status, body, headers = await world.call(target)
    assert status == expected.status, body
    assert body == expected.body or body["code"] == expected.ending
    assert expected.body is None or body == expected.body
    assert {name: body[name] for name in expected.fields} == expected.fields
    assert {name: headers.get(name) for name in expected.headers} == expected.headers
    async with world.reading(target, since="0-0") as reader:
        await eventually(lambda: reader.of("CALL_ENDED"))
        (told,) = reader.of("CALL_ENDED")
        assert bool(reader.of("A2A_RESPONSE")) == (expected.ending == "completed")
    assert (told["call_id"], told["ending"]) == (headers["X-A2A-Call-ID"], expected.ending)
    assert told["status"] == expected.status
    assert await kept(world, told["call_id"]) == (expected.kept, None if expected.kept == "ok" else expected.ending)


async def kept(world: World, call_id: str) -> tuple[str, str | None]:
    """Return status and error of the call's row, once it is written."""
    async with asyncio.timeout(10):
        while True:
            rows = await world.sql("SELECT status, error_detail FROM activity WHERE call_id = %s", call_id)
            if rows:
                (row,) = rows
                return row
            await asyncio.sleep(0.02)


async def check_all(world: World, cases: Mapping[str, tuple[Behaviour, Ended]]) -> None:
    """Make a call for each case to a workspace of its own."""

    async def behave(request: web.Request) -> web.StreamResponse:
        return await cases[request.path.strip("/")][0](request)

    agent = await world.agent(behave)
    targets = [await world.workspace(f"{agent.url}{name}") for name in cases]
    await asyncio.gather(
        *(check(world, *pair) for pair in zip(targets, (case[1] for case in cases.values()), strict=True))
    )
    assert len(agent.bodies) == len(cases), "no call is sent twice, and no redirect followed"


async def test_an_answer_comes_back_as_the_agent_gave_it(world: World) -> None:
    await world.start(A2A_MAX_RESPONSE_BYTES=str(LIMIT_BYTES))
    a2a = {"Content-Type": "application/a2a+json; charset=utf-8", "A2A-Version": "0.3", "X-A2A-Extensions": "urn:x"}
    private = {"Set-Cookie": "a=b", "Server": "agent/1", "X-Internal": "1"}
    huge = b'{"jsonrpc":"2.0","id":123456789012345678901234567890,"result":1.0}'
    await check_all(world, {
        "json": (answering(200, ANSWER), completed(200, ANSWER)),
        "bytes": (answering(200, huge, TEXT), completed(200, huge)),
        "created": (answering(201, ANSWER), completed(201, ANSWER)),
        "empty": (answering(202), completed(202, b"")),
        "error-object": (answering(200, ERROR), completed(200, ERROR)),
        "limit": (answering(200, b"x" * LIMIT_BYTES, TEXT), completed(200, b"x" * LIMIT_BYTES)),
        "headers": (
            answering(200, b"?", a2a | private),
            completed(200, b"?", a2a | {"Set-Cookie": None, "X-Internal": None}),
        ),
        "gzip": (
            answering(200, gzip.compress(orjson.dumps(ANSWER)), JSON | {"Content-Encoding": "gzip"}),
            completed(200, ANSWER, {"Content-Encoding": None}),
        ),
    })  # fmt: skip


async def test_an_error_of_the_agent_keeps_its_status_and_its_json_rpc_body(world: World) -> None:
    await world.start()
    await check_all(world, {
        "json-rpc": (answering(500, ERROR), refused(500, ERROR)),
        "string": (answering(400, {"error": "say please"}), refused(400, "say please")),
        "page": (answering(500, b"<h1>at /srv/agent.py</h1>", TEXT), refused(500, "Internal Server Error")),
        "unheard-of": (answering(599, b"", TEXT), refused(599, "status 599")),
        "unavailable": (answering(503, b"", TEXT), refused(503, "Service Unavailable")),
        "challenge": (
            answering(401, b"", {"WWW-Authenticate": "Bearer"}),
            refused(401, "Unauthorized", {"WWW-Authenticate": "Bearer"}),
        ),
        "redirect": (answering(302, b"", {"Location": "/json-rpc"}), refused(302, "Found", {"Location": None})),
        "later": (answering(500, ERROR, JSON | {"Retry-After": "7"}), refused(500, ERROR, {"Retry-After": "7"})),
    })  # fmt: skip


async def test_a_busy_agent_is_told_from_a_broken_one(world: World) -> None:
    await world.start()
    busy = Ended(ending="agent_busy", status=503, fields=BUSY | {"native_session": True}, headers={"Retry-After": "30"})
    for says in (answering(429, ERROR), answering(503, ERROR, JSON | {"Retry-After": "7"})):
        target = await world.workspace((await world.agent(says)).url)
        assert (await world.call(target))[0] == 202, "it waits"
        patient = await world.workspace((await world.agent(says)).url)
        assert await world.beat(patient, runtime_metadata={"capabilities": {"session": True}}) == 200
        await check(world, patient, busy)


async def test_an_agent_that_cannot_be_reached_has_heard_nothing(world: World) -> None:
    await world.start()
    away = Ended(ending="agent_unreachable", status=502, fields={"error": "failed to reach workspace agent"})
    with socket.socket() as unheard:
        unheard.bind(("127.0.0.1", 0))
        port = unheard.getsockname()[1]
        refusing, nameless = [await world.workspace(f"http://{host}:{port}/") for host in ("127.0.0.1", "name.invalid")]
        await asyncio.gather(check(world, refusing, away), check(world, nameless, away))


async def test_a_connection_that_is_lost_says_how_far_it_came(world: World) -> None:
    await world.start(A2A_MAX_RESPONSE_BYTES=str(LIMIT_BYTES))
    short = b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
    chunks = b"Transfer-Encoding: chunked\r\n\r\n"
    reset = Ended(ending="agent_reset", status=503, fields=UNKNOWN, headers={"Retry-After": "30"})
    taken = Ended(ending="truncated", status=502, fields={"delivery_confirmed": True}, kept="ok")
    failed = Ended(ending="truncated", status=502, fields={"delivery_confirmed": False})
    large = Ended(ending="response_too_large", status=502, fields={"delivery_confirmed": True}, kept="ok")
    cases = [
        (b"", False, reset),
        (b"", True, reset),
        (b"HTTP/1.1 200 OK\r\nContent-Ty", False, reset),
        (b"this is not HTTP\r\n\r\n", False, reset),
        (b"HTTP/1.1 200 OK\r\n" + short, False, taken),
        (b"HTTP/1.1 200 OK\r\n" + short, True, taken),
        (b"HTTP/1.1 200 OK\r\n" + chunks + b"5\r\n{\"id\"\r\n", False, taken),
        (b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 8\r\n\r\nnot gzip", False, taken),
        (b"HTTP/1.1 500 Oh\r\n" + short, False, failed),
        (b"HTTP/1.1 500 Oh\r\n" + chunks + b"5\r\n", True, failed),
        (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % (LIMIT_BYTES + 1) + b"x" * (LIMIT_BYTES + 1), False, large),
        (b"HTTP/1.1 200 OK\r\n" + chunks + b"400\r\n" + (b"x" * 1024 + b"\r\n400\r\n") * 9, False, large),
    ]  # fmt: skip
    targets = [await world.workspace(await world.raw_agent(answer, reset=cut)) for answer, cut, _ in cases]
    await asyncio.gather(*(check(world, to, case[2]) for to, case in zip(targets, cases, strict=True)))


async def test_a_caller_that_hangs_up_does_not_stop_its_call(world: World) -> None:
    await world.start()
    agent = await world.agent(silent_for(0.5))
    target = await world.workspace(agent.url)
    async with world.reading(target) as reader:
        async with asyncio.TaskGroup() as group:
            call = group.create_task(world.call(target))
            await eventually(lambda: agent.open_connections == 1)
            call.cancel()
        assert call.cancelled()
        assert agent.open_connections == 1
        await eventually(lambda: reader.of("CALL_ENDED"))
        (told,) = reader.of("CALL_ENDED")
        assert len(reader.of("A2A_RESPONSE")) == 1, "a browser gets its late reply this way"
    assert told["ending"] == "completed"
    assert agent.closed_early == 0
    assert await kept(world, told["call_id"]) == ("ok", None)
