"""Clients and agents that send without end, too slowly or too much, or take nothing: all of them are bounded."""

import asyncio
import gzip
import struct
import time
import zlib
from collections.abc import Callable
from contextlib import AsyncExitStack
from typing import Final

import psutil
import pytest
from aiohttp import web

from gateway.services.tasks import Tasks
from gateway.web import protocol
from gateway.web.parse import SETTLE_S
from tests.harness.agent import Behaviour, silent_for
from tests.harness.client import RawClient, connected, head
from tests.harness.process import GatewayProcess
from tests.harness.world import ADMIN_TOKEN, Workspace, World, eventually

MB: Final = 1024 * 1024
PATIENCE_S: Final = 10.0
UPGRADE: Final = (
    "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13",
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==",
)  # fmt: skip


def answering(body: bytes, **headers: str) -> Behaviour:
    async def behave(_: web.Request) -> web.StreamResponse:
        return web.Response(body=body, headers={name.replace("_", "-"): value for name, value in headers.items()})

    return behave


def call(to: Workspace, body: bytes = b'{"method":"tasks/get"}', *lines: str) -> bytes:
    return head("POST", f"/workspaces/{to.id}/a2a", f"Content-Length: {len(body)}", *lines) + body


def memory_mb(gateway: GatewayProcess) -> float:
    return psutil.Process(gateway.pid).memory_info().rss / MB


async def held_bytes(world: World, gateway: GatewayProcess) -> int:
    """What the process counts of bodies."""
    _, text, _ = await world.request("GET", "/metrics", gateway=gateway)
    [line] = [line for line in text.decode().splitlines() if line.startswith("gateway_body_bytes ")]
    return int(float(line.split()[1]))


async def holds(world: World, gateway: GatewayProcess, is_right: Callable[[int], bool]) -> None:
    """Wait until what it counts is right."""
    async with asyncio.timeout(PATIENCE_S):
        while not is_right(await held_bytes(world, gateway)):
            pass


def answers(gateway: GatewayProcess) -> None:
    """Nothing broke meanwhile."""
    assert [line for line in gateway.log().splitlines() if '"level": "error"' in line] == []


# -- what comes in


async def trickle(one: RawClient, bytes_: Callable[[int], bytes], every_s: float) -> None:
    """Send piece after piece until nobody takes them."""
    for number in range(10_000):
        if one.writer.is_closing():
            return
        await one.send(bytes_(number))
        await asyncio.sleep(every_s)


async def test_a_body_that_trickles_is_given_up_long_before_its_deadline(world: World):
    gateway = await world.start(GATEWAY_BODY_TIMEOUT_SECONDS="60", GATEWAY_MIN_BYTES_PER_SECOND="1000")
    target = await world.workspace((await world.agent()).url)
    path = f"/workspaces/{target.id}/a2a"
    async with Tasks() as tasks, connected(gateway.url) as slow, connected(gateway.url) as quick:
        await slow.send(head("POST", path, "Content-Length: 100000"))
        await quick.send(head("POST", path, "Content-Length: 50000"))
        tasks.spawn(trickle(slow, lambda _: b" ", 0.05), "slow")
        tasks.spawn(trickle(quick, lambda number: b" " * 500 if number < 100 else b"", 0.05), "quick")
        began = time.monotonic()
        assert (await slow.until(b"}", 20)).startswith(b"HTTP/1.1 408")
        assert SETTLE_S <= time.monotonic() - began < 30
        # ten thousand bytes a second are no trickle: all of it is taken, and found to be no JSON
        assert (await quick.until(b"\r\n", 20)).startswith(b"HTTP/1.1 400")
    answers(gateway)


async def test_a_body_has_a_deadline_however_steadily_it_comes(world: World):
    gateway = await world.start(GATEWAY_BODY_TIMEOUT_SECONDS="1", GATEWAY_MIN_BYTES_PER_SECOND="1")
    async with Tasks() as tasks, connected(gateway.url) as one:
        await one.send(head("POST", "/workspaces", "Content-Length: 1000000"))
        tasks.spawn(trickle(one, lambda _: b" " * 100, 0.05), "steady")
        assert (await one.until(b"}", 5)).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize(
    ("what", "first", "more"),
    [
        ("a request line without end", b"GET /", lambda _: b"a" * 1000),
        ("a header line without end", b"GET / HTTP/1.1\r\nHost: a\r\nX-Long: ", lambda _: b"a" * 1000),
        ("headers without end", b"GET / HTTP/1.1\r\nHost: a\r\n", lambda number: b"X-%d: a\r\n" % number),
        ("long headers", b"GET / HTTP/1.1\r\nHost: a\r\n", lambda number: b"X-%d: %b\r\n" % (number, b"a" * 4000)),
    ],
)
@pytest.mark.parametrize("first_on_its_connection", [True, False])
async def test_a_head_without_end_is_refused(
    world: World, what: str, first: bytes, more: Callable[[int], bytes], first_on_its_connection: bool
):
    gateway = await world.start(GATEWAY_HEADER_TIMEOUT_SECONDS="60")
    came = b""
    for _ in range(5):  # what is on its way when the gateway closes makes a reset, which takes the answer along
        async with connected(gateway.url) as one:
            if not first_on_its_connection:
                await one.send(head("GET", "/healthz"))
                await one.until(b"}")
            await one.send(first)
            sent = 0
            while sent < MB and not one.has_heard:
                piece = more(sent)
                await one.send(piece)
                sent += len(piece)
                await asyncio.sleep(0.0005)  # or the buffers between the two would take it all at once
            assert sent < 4 * protocol.HEAD_BYTES
            came = await one.rest()
        if came:
            break
    assert b" 400 " in came.split(b"\r\n")[0]
    assert b"the request is malformed" in came
    answers(gateway)


@pytest.mark.parametrize("coding", ["gzip", "deflate", "br", "zstd", "gzip, gzip"])
async def test_a_compressed_bomb_is_no_more_than_a_body_that_is_too_large(world: World, coding: str):
    gateway = await world.start()
    before = memory_mb(gateway)
    zeros = b"0" * (200 * MB)
    bomb = zlib.compress(zeros, 9) if coding == "deflate" else gzip.compress(zeros, 9)
    if coding == "gzip, gzip":
        bomb = gzip.compress(bomb, 9)
    del zeros
    status, body, _ = await world.request(
        "POST", "/workspaces", data=bomb, headers={"Content-Encoding": coding}, skip_auto_headers=("Content-Encoding",)
    )
    known = coding in ("gzip", "deflate")
    assert (status, body["code"]) == ((413, "too_large") if known else (415, "unknown_coding"))
    assert memory_mb(gateway) < before + 30
    answers(gateway)


STRANGERS: Final = {
    "a route that is open": ("GET", "/healthz"),
    "a path that leads nowhere": ("POST", "/nosuch"),
    "a heartbeat without a token": ("POST", "/registry/heartbeat"),
    "a call without a token": ("POST", "/workspaces/00000000-0000-4000-8000-000000000404/a2a"),
}


@pytest.mark.parametrize("what", STRANGERS)
async def test_nothing_is_unfolded_for_whoever_shows_no_credential(world: World, what: str):
    gateway = await world.start()
    process = psutil.Process(gateway.pid)
    stream = zlib.compressobj(9, wbits=31)
    bomb = b"".join(stream.compress(bytes(MB)) for _ in range(200)) + stream.flush()
    began = time.process_time()
    unfolding = zlib.decompressobj(31)
    rest = bomb
    while not unfolding.eof:
        unfolding.decompress(rest, MB)
        rest = unfolding.unconsumed_tail
    once_s = time.process_time() - began
    method, path = STRANGERS[what]
    lines = f"{method} {path} HTTP/1.1", "Host: a", "Content-Encoding: gzip", f"Content-Length: {len(bomb)}"
    before = process.cpu_times()
    for _ in range(10):
        async with connected(gateway.url) as one:
            await one.send("\r\n".join(lines).encode() + b"\r\n\r\n" + bomb)
            await one.until(b"}")
            await one.send(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            await one.ended(PATIENCE_S)  # all of it has been read by now, or the connection is gone
    after = process.cpu_times()
    assert after.user + after.system - before.user - before.system < 10 * once_s / 4
    answers(gateway)


async def test_bodies_of_requests_are_bounded_in_sum_and_give_their_room_back(world: World):
    gateway = await world.start(GATEWAY_BUFFER_BYTES=str(4 * MB), GATEWAY_BODY_TIMEOUT_SECONDS="60")
    target = await world.workspace((await world.agent(silent_for(60))).url)
    body = b'{"method":"tasks/get","params":"%b"}' % (b"x" * (MB - 100))
    async with AsyncExitStack() as stack:
        callers = [await stack.enter_async_context(connected(gateway.url)) for _ in range(6)]
        for one in callers[:2]:  # two megabytes are in flight, which is what requests may take
            await one.send(call(target, body, "X-Timeout: 5"))
        await holds(world, gateway, lambda count: count >= 2 * MB - 1000)
        for one in callers[2:]:
            await one.send(call(target, body))
            said = await one.until(b"}")
            assert said.startswith(b"HTTP/1.1 503")
            assert b"Retry-After: 2" in said
            assert b'"code":"overloaded"' in said
        assert (await callers[0].until(b"}")).startswith(b"HTTP/1.1 504")
        assert (await callers[1].until(b"}")).startswith(b"HTTP/1.1 504")
        await holds(world, gateway, lambda count: count == 0)
    status, _, _ = await world.call(target, headers={"X-Timeout": "0.1"})
    assert status == 504
    answers(gateway)


@pytest.mark.parametrize("token", [None, "no-such-token"], ids=["no token", "a bad one"])
async def test_strangers_bodies_take_no_room_from_those_who_have_a_credential(world: World, token: str | None):
    gateway = await world.start(GATEWAY_BUFFER_BYTES=str(16 * MB), GATEWAY_RATE_FAILURES="1000/60")
    target = await world.workspace((await world.agent()).url)
    shown = [] if token is None else [f"Authorization: Bearer {token}"]
    async with AsyncExitStack() as stack:
        strangers = [await stack.enter_async_context(connected(gateway.url)) for _ in range(130)]
        for number, one in enumerate(strangers):
            path = "/registry/" + ("register", "heartbeat", "update-card")[number % 3]
            length = "Content-Length: 1000000" if number % 2 else "Transfer-Encoding: chunked"
            lines = f"POST {path} HTTP/1.1", "Host: a", length, *shown
            piece = b" " * 200_000 if number % 2 else b"30d40\r\n" + b" " * 200_000 + b"\r\n"
            await one.send("\r\n".join(lines).encode() + b"\r\n\r\n" + piece)
        said = await asyncio.gather(*(one.until(b"}") for one in strangers))
        assert {one.partition(b"\r\n")[0] for one in said} == {b"HTTP/1.1 401 Unauthorized"}
        assert await held_bytes(world, gateway) == 0
        assert await world.beat(target) == 200
        assert (await world.call(target))[0] == 200
    answers(gateway)


async def test_a_stranger_has_little_time_for_its_small_body(world: World):
    gateway = await world.start(GATEWAY_BODY_TIMEOUT_SECONDS="60", GATEWAY_MIN_BYTES_PER_SECOND="1")
    lines = b"POST /registry/heartbeat HTTP/1.1\r\nHost: a\r\n"
    async with connected(gateway.url) as one, connected(gateway.url) as zipped, connected(gateway.url) as login:
        began = time.monotonic()
        await one.send(lines + b"Content-Length: 4000\r\n\r\n{")
        await zipped.send(lines + b"Content-Encoding: gzip\r\nContent-Length: 4000\r\n\r\n")
        await login.send(b"POST /session HTTP/1.1\r\nHost: a\r\nContent-Length: 9000\r\n\r\n")
        assert (await zipped.until(b"}")).startswith(b"HTTP/1.1 401")
        assert (await login.until(b"}")).startswith(b"HTTP/1.1 413")
        assert time.monotonic() - began < SETTLE_S
        assert (await one.until(b"}")).startswith(b"HTTP/1.1 401")
        assert SETTLE_S <= time.monotonic() - began < 30
    answers(gateway)


async def test_a_removed_workspace_still_learns_that_it_is_from_a_small_beat(world: World):
    await world.start()
    target = await world.workspace((await world.agent()).url)
    assert (await world.request("DELETE", f"/workspaces/{target.id}"))[0] == 200
    assert await world.beat(target) == 410
    assert await world.beat(target, current_task="x" * 5000) == 401


async def test_a_caller_that_goes_away_leaves_nothing_held_once_its_call_has_ended(world: World):
    gateway = await world.start()
    may_answer = asyncio.Event()

    async def behave(_: web.Request) -> web.StreamResponse:
        await may_answer.wait()
        return web.Response(body=b"x" * MB)

    agent = await world.agent(behave)
    target = await world.workspace(agent.url)
    async with connected(gateway.url) as caller:
        await caller.send(call(target, b'{"method":"tasks/get","params":"%b"}' % (b"x" * 500_000)))
        await eventually(lambda: len(agent.bodies) == 1)
    assert await held_bytes(world, gateway) >= 500_000  # the call goes on, and with it what it says
    may_answer.set()
    await holds(world, gateway, lambda count: count == 0)
    answers(gateway)


# -- what goes out


async def test_answers_are_bounded_in_sum_and_what_does_not_fit_is_said_to_have_been_delivered(world: World):
    gateway = await world.start(GATEWAY_BUFFER_BYTES=str(20 * MB), GATEWAY_WRITE_TIMEOUT_SECONDS="3")
    may_answer = {"first": asyncio.Event(), "last": asyncio.Event()}

    async def behave(request: web.Request) -> web.StreamResponse:
        await may_answer[request.path[1:]].wait()
        return web.Response(body=b"x" * (9 * MB))

    agent = await world.agent(behave)
    target, late = await world.workspace(agent.url + "first"), await world.workspace(agent.url + "last")
    async with AsyncExitStack() as stack:
        deaf = [await stack.enter_async_context(connected(gateway.url, narrow=True)) for _ in range(2)]
        for one in deaf:
            await one.send(call(target))
        last = await stack.enter_async_context(connected(gateway.url))
        await last.send(call(late))
        await eventually(lambda: len(agent.bodies) == 3)
        may_answer["first"].set()
        await holds(world, gateway, lambda count: count >= 18 * MB)
        before = memory_mb(gateway)
        may_answer["last"].set()
        said = await last.until(b"}")
        assert said.startswith(b"HTTP/1.1 503")
        assert b"\r\nRetry-After: 2\r\n" in said
        assert b'"code":"overloaded","delivery_confirmed":true' in said
        status, body, _ = await world.call(late)  # what is asked for now is not even sent
        assert (status, body["code"], "delivery_confirmed" in body) == (503, "overloaded", False)
        assert len(agent.bodies) == 3
        await holds(world, gateway, lambda count: count == 0)  # those who take nothing have been cut off
        assert memory_mb(gateway) < before
        assert all(await asyncio.gather(*(one.ended(PATIENCE_S) for one in deaf)))
    status, body, _ = await world.call(target)
    assert (status, len(body)) == (200, 9 * MB)
    assert gateway.log().count("answer_not_taken") == 2
    answers(gateway)


async def test_a_small_answer_that_nobody_reads_is_held_no_longer_either(world: World):
    """It fits into the buffers of the transport and the kernel, so nothing in the process waits for it."""
    gateway = await world.start(GATEWAY_WRITE_TIMEOUT_SECONDS="1")
    process = psutil.Process(gateway.pid)
    async with connected(gateway.url, narrow=True) as deaf:
        port = deaf.writer.get_extra_info("sockname")[1]
        await deaf.send(head("GET", "/openapi.json"))
        await deaf.reader.readexactly(1)  # it comes, and is more than the buffers on this side take
        await eventually(lambda: port not in ports(process), within_s=20)
    answers(gateway)


async def test_answers_that_pile_up_before_a_client_are_not_held_either(world: World):
    gateway = await world.start(GATEWAY_WRITE_TIMEOUT_SECONDS="1")
    process = psutil.Process(gateway.pid)
    async with connected(gateway.url, narrow=True) as deaf:
        port = deaf.writer.get_extra_info("sockname")[1]
        for _ in range(3000):  # pipelined: more than all buffers between the two can take
            deaf.writer.write(head("GET", "/openapi.json"))
        await eventually(lambda: port not in ports(process), within_s=20)
    answers(gateway)


def ports(process: psutil.Process) -> set[int]:
    """The clients that a process has connections to."""
    return {one.raddr.port for one in process.net_connections("tcp") if one.raddr and one.status != "CLOSE_WAIT"}


async def test_a_caller_that_reads_steadily_gets_its_answer_however_large(world: World):
    gateway = await world.start(GATEWAY_WRITE_TIMEOUT_SECONDS="5")
    target = await world.workspace((await world.agent(answering(b"x" * (9 * MB)))).url)
    async with connected(gateway.url, narrow=True) as slow:
        await slow.send(call(target, b'{"method":"tasks/get"}', "Connection: close"))
        assert len(await slow.rest(20)) > 9 * MB


@pytest.mark.parametrize(
    ("coding", "bomb", "code"),
    [
        ("gzip", gzip.compress(b"0" * (64 * MB), 9), "response_too_large"),
        ("deflate", zlib.compress(b"0" * (64 * MB), 9), "response_too_large"),
        ("gzip", b"no such thing", "truncated"),
        ("br", b"no such thing", "agent_reset"),
    ],
    ids=["gzip", "deflate", "no gzip", "br"],
)
async def test_an_agents_compressed_answer_is_bounded_by_what_it_becomes(
    world: World, coding: str, bomb: bytes, code: str
):
    gateway = await world.start()
    head_ = b"HTTP/1.1 200 OK\r\nContent-Encoding: %b\r\nContent-Length: %d\r\n\r\n" % (coding.encode(), len(bomb))
    target = await world.workspace(await world.raw_agent(head_ + bomb))
    before = memory_mb(gateway)
    _, body, _ = await world.call(target)
    assert body["code"] == code
    assert memory_mb(gateway) < before + 40
    answers(gateway)


# -- sockets


def frame(payload: bytes, *, opcode: int = 1, last: bool = True, announced: int | None = None) -> bytes:
    """A client's frame (RFC 6455, 5.2), masked with zeros."""
    length = len(payload) if announced is None else announced
    size = bytes((0x80 | 126,)) + struct.pack("!H", length) if length < 65536 else b"\xff" + struct.pack("!Q", length)
    return bytes(((0x80 if last else 0) | opcode,)) + size + bytes(4) + payload


GOOD: Final = b'{"subscribe": []}'
FRAMES: Final = {
    "a frame that announces more than it may": frame(b"", announced=2**40),
    "a frame as large as a message may not be": frame(GOOD.ljust(65_537)),
    "fragments that come to more": frame(GOOD.ljust(40_000), last=False) + frame(b" " * 40_000, opcode=0),
    "fragments without end": frame(b"x", last=False) + frame(b"x", opcode=0, last=False) * 70_000,
    "a ping too long": frame(b"x" * 200, opcode=9),
    "a fragment of a ping": frame(b"x", opcode=9, last=False),
    "an opcode that is none": frame(b"x", opcode=5),
    "a continuation of nothing": frame(b"x", opcode=0),
    "text that is no UTF-8": frame(b"\xff\xfe"),
    "bytes": frame(b"{}", opcode=2),
}


@pytest.mark.parametrize("what", FRAMES)
async def test_a_frame_that_may_not_be_ends_its_socket_and_no_other(world: World, what: str):
    gateway = await world.start()
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    before = memory_mb(gateway)
    async with connected(gateway.url) as one, world.session.ws_connect(f"{gateway.url}/ws", headers=headers) as other:
        await one.send(head("GET", "/ws", *UPGRADE))
        await one.until(b"\r\n\r\n")
        await one.send(FRAMES[what])
        assert await one.ended(PATIENCE_S)
        await other.ping()
        await other.send_str('{"subscribe": []}')
        target = await world.workspace()
        assert await world.beat(target, current_task="still here") == 200
        while "still here" not in (await other.receive(timeout=PATIENCE_S)).data:
            pass
    assert memory_mb(gateway) < before + 20
    answers(gateway)


async def test_pings_whose_answers_nobody_reads_end_their_socket(world: World):
    gateway = await world.start(GATEWAY_WRITE_TIMEOUT_SECONDS="1", GATEWAY_READER_DRAIN_SECONDS="60")
    before = memory_mb(gateway)
    async with connected(gateway.url, narrow=True) as one, Tasks() as tasks:
        await one.send(head("GET", "/ws", *UPGRADE))
        await one.until(b"\r\n\r\n")
        tasks.spawn(trickle(one, lambda _: frame(b"x" * 125, opcode=9) * 500, 0.0), "pings")
        port = one.writer.get_extra_info("sockname")[1]
        process = psutil.Process(gateway.pid)
        await eventually(lambda: port not in ports(process), within_s=30)
        assert memory_mb(gateway) < before + 20
