"""Words planted wherever internal text lives, and every way to fail: none reaches a client, an event or a row."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Final
from uuid import uuid4

import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from gateway.services.tasks import Tasks
from tests.harness import valkey as valkeys
from tests.harness.source import ROOT
from tests.harness.stage import (
    DATABASE_WORD,
    PLANTED,
    REDIS_WORD,
    Fault,
    Stage,
    an_unheard_of_row,
    angry,
    no_database,
    no_redis,
    nothing,
    read_socket,
    read_stream,
)
from tests.harness.valkey import free_port
from tests.harness.world import ADMIN_TOKEN, World, eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")

INTERNAL: Final = (
    PLANTED, ADMIN_TOKEN, str(ROOT), "site-packages", "traceback", 'file "', ".py", "psycopg", "aiohttp", "aiopg",
    "uvloop", "orjson", "python/", "select ", "sqlstate", "relation ", " at 0x", "169.254.", ".s.pgsql", "valkey.sock",
)  # fmt: skip
"""What nobody outside may read."""
MENDED_S: Final = 20.0
TENANT_ROWS: Final = (
    "SELECT to_jsonb(activity) - 'request_body' FROM activity",
    "SELECT to_jsonb(workspaces) - '{url,agent_card,agent_auth,inbound_secret}'::text[] FROM workspaces",
    "SELECT to_jsonb(liveness) FROM liveness",
    "SELECT to_jsonb(tokens) - 'hash' FROM tokens",
)
"""All that a tenant is ever shown of the database, but for what it wrote there itself."""


# -- what is done meanwhile


def answered(raw: bytes, *, reset: bool = False) -> Callable[[Stage], Awaitable[None]]:
    """Call an agent that answers with these bytes."""

    async def act(stage: Stage) -> None:
        await stage.call(await stage.world.workspace(await stage.world.raw_agent(raw, reset=reset)))

    return act


def said(status: int, body: bytes, kind: str = "text/html") -> bytes:
    head = f"HTTP/1.1 {status} {PLANTED}\r\nServer: {PLANTED}\r\nX-Debug: {PLANTED}\r\nSet-Cookie: a={PLANTED}\r\n"
    return (
        f"{head}Location: http://{PLANTED}/\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        + body
    )


WORD: Final = PLANTED.encode()
JSON: Final = "application/json"
OK: Final = b"HTTP/1.1 200 OK\r\n%b\r\n\r\n"
ZIPPED: Final = b"Content-Encoding: gzip\r\nContent-Length: 12"
UNSAFE: Final = (f"http://169.254.169.254/{PLANTED}", f"http://{PLANTED}@a:1/", PLANTED)


def at(*urls: str, discover: bool = False) -> Callable[[Stage], Awaitable[None]]:
    """Call, and look for, agents that are at these addresses by now, whatever was checked when they were made."""

    async def act(stage: Stage) -> None:
        for url in urls:
            one = await stage.world.workspace(stage.agent.url)
            await stage.world.sql("UPDATE workspaces SET url = %s WHERE id = %s", url, one.id)
            await stage.world.sql("SELECT pg_sleep(0.1)")  # the cache of workspaces is older than that
            await stage.call(one)
            if discover:
                await stage.ask("GET", f"/registry/discover/{one.id}")

    return act


def sent(*raws: bytes) -> Callable[[Stage], Awaitable[None]]:
    async def act(stage: Stage) -> None:
        for raw in raws:
            await stage.send(raw)

    return act


async def misled(stage: Stage) -> None:
    """Bad input of every kind, everywhere, with the word in it: no answer repeats it."""
    word = PLANTED
    for method, path in (
        ("GET", f"/{word}"),
        ("GET", f"/workspaces/{word}"),
        ("PUT", f"/workspaces?{word}"),
        (word.upper(), "/workspaces"),
        ("GET", f"/events/stream?workspace={word}"),
        ("GET", f"/events/stream?type={word}"),
        ("GET", f"/ws?type={word}"),
        ("GET", f"/registry/{stage.target.id}/peers?q={word}%00"),
        ("DELETE", f"/workspaces/{stage.target.id}?confirm={word}"),
    ):
        await stage.ask(method, path)
    for body in (word, f'"{word}"', f'{{"{word}', f'["{word}"]'):
        for path in ("/workspaces", "/registry/register", f"/workspaces/{stage.target.id}/a2a", "/session"):
            await stage.ask("POST", path, body.encode())
    for field_name, value in (
        ("name", [word]), ("url", f"http://{word}:5432/"), ("url", f"ftp://{word}/"), ("parent_id", word),
        ("tier", word), ("runtime", {word: word}), ("delivery_mode", word), ("budget_limit", word),
    ):  # fmt: skip
        await stage.ask("POST", "/workspaces", orjson.dumps({"name": "a name", field_name: value}))
    message = {"message": {"role": word, "content": {word: word}}}
    await stage.ask("POST", f"/workspaces/{stage.target.id}/a2a", orjson.dumps({"method": word, "params": message}))
    for path in ("/workspaces", f"/workspaces/{stage.target.id}/a2a", "/events/stream", "/org/tokens"):
        await stage.ask("GET" if path == "/events/stream" else "POST", path, shows=f"Authorization: Bearer {word}")


async def over_a_socket(stage: Stage) -> None:
    """Garbage after the upgrade, as frames and as none."""
    hello = (
        f"GET /ws HTTP/1.1\r\nHost: gateway\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\n"
        f"Authorization: Bearer {ADMIN_TOKEN}\r\n\r\n"
    ).encode()
    await stage.send(hello + WORD * 10)
    for text in (PLANTED, f'{{"resume": ["{PLANTED}"]}}', f'{{"subscribe": ["{PLANTED}"]}}', f'["{PLANTED}"]'):
        frame = bytes((0x81, 0x80 | len(text))) + bytes(4) + text.encode()
        await stage.send(hello + frame)
    await stage.send(hello.replace(b"Version: 13", b"Version: " + WORD), until=b"}")
    await stage.send(hello.replace(b"Host: gateway", b"Host: gateway\r\nOrigin: http://" + WORD), until=b"}")


@dataclass(frozen=True, kw_only=True)
class Case:
    """What is wrong, what is done then, and a status that shows that it was indeed wrong."""

    what: str
    status: int
    act: Callable[[Stage], Awaitable[None]]
    fault: Fault = nothing


EVERYTHING: Final = Stage.ask_every_route
CASES: Final = (
    Case(what="the database is away", status=503, fault=no_database, act=EVERYTHING),
    Case(what="Redis is away", status=200, fault=no_redis, act=EVERYTHING),
    *(
        Case(what=f"statements on {table} fail", status=status, fault=angry(table), act=EVERYTHING)
        for table, status in (
            ("workspaces", 503), ("tokens", 503), ("sessions", 503), ("activity", 200), ("usage", 503),
            ("liveness", 503), ("changes", 503),
        )
    ),
    Case(what="a row breaks its reader", status=500, fault=an_unheard_of_row, act=EVERYTHING),
    Case(what="the agent resets", status=503, act=answered(b"", reset=True)),
    Case(what="the agent answers garbage", status=503, act=answered(WORD + b"\r\n\r\n" + WORD)),
    Case(what="the agent fails with a page", status=500, act=answered(said(500, WORD))),
    Case(what="the agent is missing, with a page", status=404, act=answered(said(404, b"<pre>" + WORD))),
    Case(what="the agent fails in JSON", status=500, act=answered(said(500, b'{"detail":"%b"}' % WORD, JSON))),
    Case(what="the agent fails with an object", status=502, act=answered(said(502, b'{"error":{"a":"%b"}}' % WORD))),
    Case(what="the agent fails with a list", status=500, act=answered(said(500, b'["%b"]' % WORD, JSON))),
    Case(what="the agent redirects", status=302, act=answered(said(302, WORD))),
    Case(what="the agent is busy", status=202, act=answered(said(429, WORD))),
    Case(what="the agent breaks off", status=502, act=answered(said(200, WORD + b"." * 99)[:-9])),
    Case(what="the agent says how long, wrongly", status=503, act=answered(OK % b"Transfer-Encoding: chunked" + WORD)),
    Case(what="the agent claims to compress", status=502, act=answered(OK % ZIPPED + WORD)),
    Case(what="the agent's status is none", status=502, act=answered(said(999, WORD))),
    Case(what="the agent is nowhere", status=502, act=at(f"http://127.0.0.1:{free_port()}/{PLANTED}")),
    Case(what="the agent's url is unsafe", status=502, act=at(*UNSAFE, discover=True)),
    Case(what="bad input", status=400, act=misled),
    Case(what="a request that is none", status=400, act=sent(
        WORD + b"\r\n\r\n", b"GET / HTTP/9.9\r\nHost: " + WORD + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + WORD + b"\x00: a\r\n\r\n", b"GET /" + WORD * 1000 + b" HTTP/1.1\r\n\r\n",
        b"POST /workspaces HTTP/1.1\r\nHost: a\r\nContent-Length: " + WORD + b"\r\n\r\n",
        b"POST /workspaces HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + WORD + b"\r\n",
    )),
    Case(what="garbage on a WebSocket", status=101, act=over_a_socket),
)  # fmt: skip


# -- and what is looked for


def found_in(said: bytes) -> list[str]:
    """The internal words in this, each with what stands around it."""
    text = said.decode("utf-8", "replace")
    lower = text.lower()
    return [
        f"{word!r} in {text[max(0, lower.index(word.lower()) - 200) : lower.index(word.lower()) + 80]!r}"
        for word in INTERNAL
        if word.lower() in lower
    ]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stage(shared_world: World) -> AsyncIterator[Stage]:
    world = shared_world
    async with valkeys.running() as broker, Tasks() as tasks:
        world.env["GATEWAY_DATABASE_URL"] += f"&password={DATABASE_WORD}"
        gateway = await world.start(
            GATEWAY_REDIS_URL=broker.url.replace("unix://", f"unix://default:{REDIS_WORD}@"),
            GATEWAY_CACHE_TTL_SECONDS="0.05",
            GATEWAY_ENABLE_TEST_TOKENS="1",
        )
        agent = await world.agent(lambda request: _result(request))
        _, _, headers = await world.request(
            "POST", "/session", json={"token": ADMIN_TOKEN}, headers={"Authorization": None}
        )
        one = Stage(
            world=world,
            gateway=gateway,
            agent=agent,
            target=await world.workspace(agent.url),
            broker=broker,
            session=headers["Set-Cookie"].split(";")[0].partition("=")[2],
        )
        tasks.spawn(read_stream(gateway.url, one.said), "stream")
        tasks.spawn(read_socket(world, one.said), "socket")
        yield one
        assert tasks.deaths == 0


async def _result(request: web.Request) -> web.StreamResponse:
    return web.json_response({"jsonrpc": "2.0", "id": 1, "result": {}})


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.what)
async def test_no_internal_word_gets_out(stage: Stage, case: Case):
    stage.said.clear()
    stage.statuses.clear()
    async with case.fault(stage):
        await case.act(stage)
    assert case.status in stage.statuses, "what was to go wrong did"
    beacon = f"after {uuid4().hex}"
    await eventually_beats(stage, beacon)
    await eventually(lambda: stage.said.count(beacon.encode()) >= 2)  # the stream and the socket have come to it
    rows = [await stage.world.sql(query) for query in TENANT_ROWS]
    assert found_in(bytes(stage.said) + orjson.dumps(rows)) == []


async def eventually_beats(stage: Stage, task: str) -> None:
    """Heartbeat until one is taken: what was broken has been mended a moment ago."""
    async with asyncio.timeout(MENDED_S):
        while await stage.world.beat(stage.target, current_task=task) != 200:
            pass


async def test_the_words_are_found_where_they_are():
    for word in INTERNAL:
        assert found_in(b"what " + word.upper().encode() + b" is") != []
