"""Agents that lie on the wire: what they do to their own calls, and to nobody else's."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

import pytest

from tests.harness.agent import silent_for
from tests.harness.world import World, eventually, until

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter, int], object]


@asynccontextmanager
async def liar(serve: Serve) -> AsyncIterator[str]:
    """An agent that keeps its connections; `serve` is called for each request with its number on the connection."""

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = 0
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                [length] = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
                await reader.readexactly(int(length.split(b":")[1]))
                number += 1
                result = serve(reader, writer, number)
                if asyncio.iscoroutine(result):
                    await result
        writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        await server.wait_closed()


async def test_an_answer_that_nobody_asked_for_is_not_given_to_the_next_caller(world: World) -> None:
    """It comes a moment after the real one, on a connection that is kept for the next call, of whichever workspace."""
    sent = asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        body = b'{"jsonrpc":"2.0","id":"1","result":"mine"}'
        writer.write(OK % (len(body), body))
        await writer.drain()
        forged = b'{"jsonrpc":"2.0","id":"1","result":"forged"}'
        asyncio.get_running_loop().call_later(0.02, writer.write, OK % (len(forged), forged))
        asyncio.get_running_loop().call_later(0.1, sent.set)

    await world.start()
    async with liar(serve) as url:
        one, other = await world.workspace(url), await world.workspace(url)
        for target in (one, other, one):
            sent.clear()
            _, body, _ = await world.call(target)
            assert body["result"] == "mine"
            await sent.wait()


async def test_a_body_that_breaks_in_mid_stream_ends_its_call_at_once_though_heartbeats_go_on(world: World) -> None:
    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        asyncio.get_running_loop().call_later(0.1, writer.write, b"no length\r\n")

    await world.start(A2A_IDLE_TIMEOUT_SECONDS="1")
    async with liar(serve) as url:
        target = await world.workspace(url)
        async with world.beating(target, 0.2), asyncio.timeout(5):
            status, body, _ = await world.call(target)
    assert (status, body["code"], body["delivery_confirmed"]) == (502, "truncated", True)


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Type: a\x0bb\r\n", 200),
        (b"HTTP/1.1 099 No\r\nContent-Type: a/b\r\n", 502),
        (b"HTTP/1.1 999 No\r\nContent-Type: a/b\r\n", 502),
    ],
)
async def test_an_impossible_head_leaves_the_caller_with_an_answer(world: World, head: bytes, status: int) -> None:
    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        writer.write(head + b"Content-Length: 2\r\n\r\n{}")

    await world.start()
    async with liar(serve) as url:
        answered, _, _ = await world.call(await world.workspace(url))
    assert answered in (status, 503)  # 503: the parser gave up before there was a status


@pytest.mark.parametrize("interim", [b"HTTP/1.1 102 Wait\r\n\r\n", b"HTTP/1.1 103 Soon\r\nLink: </a>\r\n\r\n"])
async def test_an_agent_that_only_ever_promises_an_answer_is_given_up_and_holds_up_nobody(
    world: World, interim: bytes
) -> None:
    """Each costs us more than it costs the agent."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            writer.write(interim * 1000)
            await writer.drain()

    await world.start()
    async with liar(serve) as url:
        status, body, _ = await world.call(await world.workspace(url), headers={"X-Timeout": "20"})
    assert (status, body["code"]) == (503, "agent_reset")


async def test_an_answer_may_come_after_a_few_interim_ones(world: World) -> None:
    """On one connection, again and again: those before one answer are counted together, and no others."""

    def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        body = b'{"jsonrpc":"2.0","id":"1","result":%d}' % number
        writer.write(b"HTTP/1.1 102 Wait\r\n\r\n" * 20 + OK % (len(body), body))

    await world.start()
    async with liar(serve) as url:
        target = await world.workspace(url)
        answers = [await world.call(target) for _ in range(3)]
    assert [body["result"] for _, body, _ in answers] == [1, 2, 3]


async def test_stalled_calls_of_a_workspace_do_not_keep_calls_to_it_alive(world: World) -> None:
    """Their ends are the gateway's own doing. (While they last it waits, and that does.)"""
    await world.start(A2A_IDLE_TIMEOUT_SECONDS="1", GATEWAY_PROBE_SECONDS="0.2")
    caller = await world.workspace((await world.agent(silent_for(30))).url)
    callee = await world.workspace((await world.agent(silent_for(30))).url)
    async with world.reading(caller) as reader:
        # the call to `caller` is in flight when its own call to `callee` ends, and lasts no longer than one more second
        waiting = asyncio.gather(world.call(callee, headers=caller.bearer), world.call(caller))
        answers = await waiting
        await eventually(lambda: reader.of("CALL_ENDED"))
    assert [(status, body["code"]) for status, body, _ in answers] == [(503, "idle_timeout")] * 2
    [ended] = reader.of("CALL_ENDED")
    assert ended["duration_ms"] < 3000


async def test_an_agent_that_does_not_begin_in_time_is_given_up_though_it_heartbeats(world: World) -> None:
    await world.start(A2A_FIRST_BYTE_SECONDS="0.5")
    target = await world.workspace((await world.agent(silent_for(30))).url)
    async with world.beating(target, 0.1):
        status, body, _ = await world.call(target)
    assert (status, body["code"], body["outcome"]) == (503, "first_byte_timeout", "unknown")


async def test_the_first_heartbeat_that_tells_of_a_spent_budget_counts_on_every_replica(world: World) -> None:
    await asyncio.gather(world.start(), world.start())
    target = await world.workspace((await world.agent()).url, budget_limit=100)
    for gateway in world.gateways:
        assert (await world.call(target, gateway=gateway))[0] == 200
    assert await world.beat(target, monthly_spend=100) == 200

    for gateway in world.gateways:
        await until(lambda gateway=gateway: world.call(target, gateway=gateway), lambda got: got[0] == 402)
