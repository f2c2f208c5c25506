"""Streams cut, packed and written in every way that the standard allows, and some that it does not."""

import asyncio
import re
import time
import zlib
from collections.abc import Callable
from urllib.parse import urlsplit

import orjson
import psutil
import pytest

from tests.e2e.test_streams import OPERATOR, asked, events, open_stream
from tests.harness import faces
from tests.harness.faces import CHUNKED, HEAD, LAST_CHUNK, UNTIL_CLOSED, Behave, Peer, chunk, event
from tests.harness.world import World, until

DEADLINE_S = 2.0
SEEN_S = 1.0
"""How late a client sees it that shares the machine with others."""
GROWN_BYTES = 96 * 1024 * 1024
MIB = 1024 * 1024
UMLAUTS = "grüße, 世界, 🜂"


def said(number: int, text: str, *, final: bool = False) -> bytes:
    """An event in several lines of data, with text that is more than ASCII."""
    fields = orjson.loads(event(number, final=final).removeprefix(b"data: "))
    fields["result"]["metadata"]["text"] = text
    lines = orjson.dumps(fields, option=orjson.OPT_INDENT_2).splitlines()
    return (
        b": before it\n\nevent: message\nid: theirs\nretry: 10\n"
        + b"".join(b"data: %b\n" % one for one in lines)
        + b"\n"
    )


WHOLE = said(1, UMLAUTS) + event(2) + said(3, UMLAUTS, final=True)


def cut(text: bytes, size: int) -> list[bytes]:
    return [text[start : start + size] for start in range(0, len(text), size)]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"], ids=["LF", "CRLF", "CR"])
@pytest.mark.parametrize("size", [1, 7, 10**6])
async def test_however_a_stream_is_cut_and_its_lines_end_its_events_are_the_same(world: World, end: bytes, size: int):
    await world.start()
    text = WHOLE.replace(b"\n", end)

    async def behave(peer: Peer) -> None:
        await peer.say(CHUNKED, *(chunk(piece) for piece in cut(text, size)), LAST_CHUNK)

    async with faces.running(behave) as agent:
        target = await world.workspace(agent.url)
        async with open_stream(world, target) as response:
            call_id, got = response.headers["X-A2A-Call-ID"], await response.read()
    seen = events(got)
    assert [id_ for id_, _ in seen] == [f"{call_id}-{n}" for n in (1, 2, 3)]
    assert [one["result"]["metadata"]["n"] for _, one in seen] == [1, 2, 3]
    assert [one["result"]["metadata"].get("text") for _, one in seen] == [UMLAUTS, None, UMLAUTS]
    assert b"theirs" not in got
    kept = re.sub(rb"id: %b-\d+\n" % call_id.encode(), b"", got)
    wanted = text.replace(b"id: theirs" + end, b"").replace(b": before it" + end + end, b": before it" + end)
    assert kept == wanted, "but for ids, and what follows a comment, its bytes are its own"


@pytest.mark.parametrize("size", [4000, 10**6 + 1, 10**8])
async def test_events_of_a_megabyte_in_one_line_are_whole(world: World, size: int):
    await world.start()
    text = b"".join(event(n, final=n == 4, pad=MIB) for n in range(1, 5))

    async def behave(peer: Peer) -> None:
        await peer.say(HEAD + b"Content-Length: %d\r\n\r\n" % len(text), *cut(text, size))

    async with faces.running(behave) as agent:
        target = await world.workspace(agent.url)
        async with open_stream(world, target) as response:
            seen = events(await response.read())
    assert [one["result"]["metadata"]["n"] for _, one in seen] == [1, 2, 3, 4]
    assert {len(one["result"]["metadata"]["pad"]) for _, one in seen} == {MIB}


PACKERS: dict[str, Callable[[], "zlib._Compress"]] = {
    "gzip": lambda: zlib.compressobj(wbits=31),
    "deflate": lambda: zlib.compressobj(wbits=15),
    "raw deflate": lambda: zlib.compressobj(wbits=-15),
}


@pytest.mark.parametrize("name", PACKERS)
async def test_agents_that_compress_though_they_were_asked_not_to_are_read_as_they_speak(world: World, name: str):
    await world.start()
    go = asyncio.Event()

    async def behave(peer: Peer) -> None:
        packer = PACKERS[name]()
        await peer.say(HEAD + b"Content-Encoding: %b\r\nTransfer-Encoding: chunked\r\n\r\n" % name.split()[-1].encode())
        await peer.say(chunk(packer.compress(event(1)) + packer.flush(zlib.Z_SYNC_FLUSH)))
        await go.wait()
        await peer.say(chunk(packer.compress(event(2, final=True)) + packer.flush()), LAST_CHUNK)

    async with faces.running(behave) as agent:
        target = await world.workspace(agent.url)
        async with open_stream(world, target) as response, asyncio.timeout(10):
            assert "Content-Encoding" not in response.headers
            first = await response.content.readuntil(b"\n\n")
            assert b"accept-encoding: identity" in agent.heads[0].lower()
            go.set()
            rest = await response.content.read()
    assert [one["result"]["metadata"]["n"] for _, one in events(first + rest)] == [1, 2]


async def test_what_is_compressed_and_breaks_off_is_truncated(world: World):
    await world.start()
    go = asyncio.Event()

    async def behave(peer: Peer) -> None:
        packer = zlib.compressobj(wbits=31)
        packed = packer.compress(event(1)) + packer.flush(zlib.Z_SYNC_FLUSH)
        await peer.say(HEAD + b"Content-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n\r\n", chunk(packed))
        await go.wait()
        await peer.say(chunk(b"no such thing" * 10))
        await peer.stay()

    async with faces.running(behave) as agent:
        target = await world.workspace(agent.url)
        async with open_stream(world, target) as response, asyncio.timeout(10):
            came = await response.content.readuntil(b"\n\n")
            go.set()
            (_, first), (_, last) = events(came + await response.content.read())
    assert first["result"]["metadata"]["n"] == 1
    assert last["error"]["data"]["code"] == "truncated"


def flooding(unit: bytes, *, packed: bool) -> Behave:
    """An agent that says the same over and over, as fast as it is read; packed, a read is a thousand times as much."""

    async def behave(peer: Peer) -> None:
        if not packed:
            await peer.say(UNTIL_CLOSED, event(1))
            while not peer.gone:
                await peer.say(unit)
            return
        packer = zlib.compressobj(9, wbits=31)
        head = b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n"
        await peer.say(HEAD + head, packer.compress(event(1)))
        while not peer.gone:
            await peer.say(packer.compress(unit * 16))

    return behave


FLOODS = {
    "comments": (b":\n" * 32768, False, "deadline"),
    "packed comments": (b":\n" * 32768, True, "deadline"),
    "packed events": (b"data:1\n\n" * 8192, True, "deadline"),
    "packed line": (b"x" * 65536, True, "response_too_large"),
}


@pytest.mark.parametrize("name", FLOODS)
async def test_an_agent_that_floods_holds_up_nobody_else_and_takes_no_more_memory_than_its_share(
    world: World, name: str
):
    gateway = await world.start(A2A_IDLE_TIMEOUT_SECONDS="1")
    unit, packed, ending = FLOODS[name]
    process = psutil.Process(gateway.pid)
    async with faces.running(flooding(unit, packed=packed)) as agent:
        target, other = await world.workspace(agent.url), await world.workspace((await world.agent()).url)
        assert (await world.call(other))[0] == 200
        before, grown, served = process.memory_info().rss, 0, 0
        tail, began = b"", time.monotonic()

        async def read() -> None:
            nonlocal tail
            async with open_stream(world, target, headers={"X-Timeout": str(DEADLINE_S)}) as response:
                async for piece in response.content.iter_any():
                    tail = (tail + piece)[-1000:]

        async with asyncio.TaskGroup() as group:
            reading = group.create_task(read())
            while not reading.done():
                assert (await world.call(other))[0] == 200
                served += 1
                grown = max(grown, process.memory_info().rss - before)
        took_s = time.monotonic() - began
        path = f"/workspaces/{target.id}/a2a/calls/{agent.call_id(0)}"
        _, row, _ = await world.request("GET", path)
    assert row["ending"] == ending
    assert took_s < DEADLINE_S + SEEN_S
    assert served >= 2 * min(took_s, DEADLINE_S)
    assert grown < GROWN_BYTES
    assert b'"error"' in tail


async def test_whoever_joins_gets_events_of_several_lines_under_its_own_id(world: World):
    await world.start()

    async def behave(peer: Peer) -> None:
        await peer.say(CHUNKED, chunk(WHOLE), LAST_CHUNK)

    async with faces.running(behave) as agent:
        target = await world.workspace(agent.url)
        ids = []
        for rpc_id in ("first", 7):
            async with open_stream(world, target, body=asked(rpc_id=rpc_id, message_id="one")) as response:
                ids.append([one["id"] for _, one in events(await response.read())])
    assert ids == [["1", "1", "1"], [7, 7, 7]]
    assert len(agent.asked) == 1


async def test_an_answer_without_content_is_no_stream_and_nothing_follows_it(world: World):
    """What followed a 204 would be the next answer on the caller's connection: of somebody else, behind a proxy."""
    gateway = await world.start()
    head = b"HTTP/1.1 204 No Content\r\nContent-Type: text/event-stream\r\n\r\n"

    async def behave(peer: Peer) -> None:
        await peer.say(head)

    async with faces.running(behave) as agent:
        target = await world.workspace(agent.url)
        where = urlsplit(gateway.url)
        reader, writer = await asyncio.open_connection(where.hostname, where.port)
        body = orjson.dumps(asked())
        lines = (
            f"POST /workspaces/{target.id}/a2a HTTP/1.1\r\nHost: a\r\nAuthorization: {OPERATOR['Authorization']}\r\n"
        )
        writer.write(f"{lines}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        async with asyncio.timeout(10):
            assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")
            writer.write(b"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_events_that_are_never_whole_take_no_more_than_all_streams_may(world: World):
    limit = 16 * MIB
    await world.start(A2A_STREAMS_KEPT_BYTES=str(limit))

    async def behave(peer: Peer) -> None:
        await peer.say(CHUNKED, chunk(event(1)), *(chunk(b"data: " + b"x" * MIB) for _ in range(5)))
        await peer.stay()

    async def small(peer: Peer) -> None:
        await peer.say(CHUNKED, chunk(event(1)), chunk(event(2, final=True, pad=10_000)), LAST_CHUNK)

    async with faces.running(behave) as agent, faces.running(small) as other, asyncio.TaskGroup() as group:
        target, modest = await world.workspace(agent.url), await world.workspace(other.url)

        async def read() -> str:
            async with open_stream(world, target) as response:
                code: str = events(await response.read())[-1][1]["error"]["data"]["code"]
                return code

        async def kept() -> float:
            _, text, _ = await world.request("GET", "/metrics")
            [line] = [line for line in text.decode().splitlines() if line.startswith("gateway_agent_stream_bytes ")]
            return float(line.split()[1])

        reading = [group.create_task(read()) for _ in range(20)]
        await until(kept, lambda count: count > limit / 2, within_s=20)
        await until(kept, lambda _: agent.open < 10, within_s=20)
        assert {one.result() for one in reading if one.done()} == {"overloaded"}
        assert limit / 2 < await kept() <= 2 * limit
        async with open_stream(world, modest) as response:
            assert [said["result"]["metadata"]["n"] for _, said in events(await response.read())] == [1, 2]
        for one in reading:
            one.cancel()
