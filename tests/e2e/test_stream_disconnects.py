"""Callers that leave their streams, come back, or do not read them."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import orjson
import psutil
import pytest

from gateway.web.relayed import LOOK_S
from tests.e2e.test_streams import OPERATOR, asked, events, open_stream
from tests.harness import faces
from tests.harness.faces import CHUNKED, LAST_CHUNK, Faced, Peer, chunk, event
from tests.harness.world import Workspace, World, eventually, until

CANCEL = {"X-On-Disconnect": "cancel"}
SOON_S = 2.5
"""How soon a call is called off whose caller has left, on a busy machine, too."""
EVENTS = 5


class Steps:
    """An agent that says its next event when it may, as one that works on a task does, and answers `tasks/cancel`."""

    def __init__(self) -> None:
        self.may = asyncio.Semaphore(0)
        self.cancelled: list[str] = []

    def go(self, steps: int = 1) -> None:
        for _ in range(steps):
            self.may.release()

    async def __call__(self, peer: Peer) -> None:
        said = orjson.loads(peer.body)
        if said["method"] == "tasks/cancel":
            self.cancelled.append(said["params"]["id"])
            await peer.say(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")
            return
        for number in range(1, EVENTS + 1):
            while self.may.locked():
                if peer.gone:
                    return
                await asyncio.sleep(0.01)
            await self.may.acquire()
            await peer.say(*([CHUNKED] if number == 1 else []), chunk(event(number, final=number == EVENTS)))
        await peer.say(LAST_CHUNK)


@asynccontextmanager
async def stepping(world: World) -> AsyncIterator[tuple[Steps, Faced, Workspace]]:
    steps = Steps()
    async with faces.running(steps) as agent:
        yield steps, agent, await world.workspace(agent.url)


async def call_of(world: World, target: Workspace, ending: str, within_s: float = 10.0) -> dict[str, Any]:
    """The only call to a workspace, once it has come to this ending."""

    async def look() -> list[tuple[str, str]]:
        return await world.sql("SELECT id::text, ending FROM calls WHERE workspace_id = %s", target.id)

    [(id_, got)] = await until(look, lambda rows: rows and rows[0][1] is not None, within_s)
    assert got == ending
    return {"id": id_}


async def rest_of(world: World, target: Workspace, call_id: str) -> list[int]:
    """The numbers of all events of a call, as its journal has them."""
    path = f"/workspaces/{target.id}/a2a/calls/{call_id}/stream"
    _, body, _ = await world.request("GET", path)
    return [said["result"]["metadata"]["n"] for _, said in events(body)]


async def test_a_caller_that_leaves_its_stream_does_not_stop_it(world: World):
    await world.start()
    async with stepping(world) as (steps, agent, target):
        steps.go()
        async with open_stream(world, target) as response:
            await response.content.readuntil(b"\n\n")
        steps.go(EVENTS)
        call = await call_of(world, target, "completed")
        assert await rest_of(world, target, call["id"]) == [1, 2, 3, 4, 5]
        assert agent.methods() == ["message/stream"]


async def test_a_caller_that_wants_so_ends_its_stream_when_it_leaves_and_the_agent_is_told(world: World):
    await world.start()
    async with stepping(world) as (steps, agent, target):
        steps.go()
        async with open_stream(world, target, headers=CANCEL) as response:
            await response.content.readuntil(b"\n\n")
        left = time.monotonic()
        await eventually(lambda: steps.cancelled == ["task-1"])
        await eventually(lambda: agent.open == 0)
        assert time.monotonic() - left < SOON_S
        call = await call_of(world, target, "cancelled")
        _, body, _ = await world.request("GET", f"/workspaces/{target.id}/a2a/calls/{call['id']}/stream")
        assert events(body)[-1][1]["error"]["data"]["code"] == "cancelled"


async def test_it_is_noticed_at_once_and_not_only_when_somebody_looks(world: World):
    await world.start()
    took = []
    async with stepping(world) as (steps, agent, target):
        for _ in range(5):
            steps.go()
            async with open_stream(world, target, headers=CANCEL) as response:
                await response.content.readuntil(b"\n\n")
            left = time.monotonic()
            await eventually(lambda: agent.open == 0)
            took.append(time.monotonic() - left)
    assert min(took) < LOOK_S / 2


async def test_callers_that_leave_in_the_middle_of_a_write_are_no_error(world: World):
    gateway = await world.start()

    async def endless(peer: Peer) -> None:
        if b"tasks/cancel" in peer.body:
            return
        await peer.say(CHUNKED)
        number = 0
        while not peer.gone:
            number += 1
            await peer.say(chunk(event(number, pad=50_000)))

    async with faces.running(endless) as agent:
        target = await world.workspace(agent.url)
        for _ in range(5):
            async with open_stream(world, target, headers=CANCEL) as response:
                await response.content.readuntil(b"\n\n")
        await eventually(lambda: len(agent.asked) >= 5 and agent.open == 0)
    assert '"level": "error"' not in gateway.log()


@pytest.mark.parametrize("method", ["message/stream", "message/send"])
async def test_a_caller_that_wants_so_ends_its_call_before_the_agent_has_answered(world: World, method: str):
    await world.start()
    async with stepping(world) as (steps, agent, target):
        with pytest.raises(TimeoutError):
            async with (
                asyncio.timeout(1),
                open_stream(world, target, body={**asked(), "method": method}, headers=CANCEL),
            ):
                pass
        left = time.monotonic()
        await eventually(lambda: agent.open == 0)
        assert time.monotonic() - left < SOON_S
        await call_of(world, target, "cancelled")
        assert steps.cancelled == [], "nobody knows of a task"


async def test_who_leaves_before_the_answer_does_not_end_the_call_of_those_who_joined_it(world: World):
    await world.start()
    async with stepping(world) as (steps, agent, target):
        body = asked(message_id="one")
        async with asyncio.TaskGroup() as group:

            async def join() -> list[int]:
                async with open_stream(world, target, body=body) as response:
                    return [said["result"]["metadata"]["n"] for _, said in events(await response.read())]

            async def make() -> None:
                with pytest.raises(TimeoutError):
                    async with asyncio.timeout(1), open_stream(world, target, body=body, headers=CANCEL):
                        pass

            maker = group.create_task(make())
            await eventually(lambda: agent.open == 1)
            joiner = group.create_task(join())
            await maker
            await asyncio.sleep(SOON_S)  # the time in which it would have been noticed
            steps.go(EVENTS)
        assert joiner.result() == [1, 2, 3, 4, 5]
        assert len(agent.asked) == 1


async def test_who_has_joined_a_stream_does_not_end_it_for_its_maker_who_has_left(world: World):
    await world.start()
    async with stepping(world) as (steps, _agent, target):
        steps.go()
        body = asked(message_id="one")
        async with open_stream(world, target, body=body) as response:
            await response.content.readuntil(b"\n\n")
        async with open_stream(world, target, body=body, headers=CANCEL) as response:
            await response.content.readuntil(b"\n\n")
        await asyncio.sleep(SOON_S)  # the time in which it would have been noticed
        steps.go(EVENTS)
        await call_of(world, target, "completed")


async def test_who_wants_its_call_ended_has_it_ended_when_the_last_who_has_joined_it_leaves(world: World):
    await world.start()
    async with stepping(world) as (steps, agent, target):
        steps.go()
        body = asked(message_id="one")
        async with open_stream(world, target, body=body) as joiner:
            async with open_stream(world, target, body=body, headers=CANCEL) as joined_too:
                await joined_too.content.readuntil(b"\n\n")
            await joiner.content.readuntil(b"\n\n")
        await asyncio.sleep(SOON_S)  # the time in which it would have been noticed
        assert agent.open == 1, "only who has made it says how it ends"
    async with stepping(world) as (steps, agent, target):
        steps.go()
        body = asked(message_id="two")
        async with open_stream(world, target, body=body, headers=CANCEL) as maker:
            await maker.content.readuntil(b"\n\n")
            async with open_stream(world, target, body=body) as joiner:
                await joiner.content.readuntil(b"\n\n")
                maker.close()
                await asyncio.sleep(SOON_S)  # it is noticed, and somebody reads on
                assert agent.open == 1
                steps.go()
                await joiner.content.readuntil(b"\n\n")
        await eventually(lambda: steps.cancelled == ["task-1"])
        await call_of(world, target, "cancelled")
        assert agent.open == 0


async def test_who_comes_back_in_time_keeps_a_stream_and_who_does_not_loses_it(world: World):
    await world.start(A2A_DISCONNECT_GRACE_SECONDS="2")
    async with stepping(world) as (steps, agent, target):
        steps.go()
        async with open_stream(world, target, headers=CANCEL) as response:
            call_id = response.headers["X-A2A-Call-ID"]
            await response.content.readuntil(b"\n\n")
        path = f"{world.url}/workspaces/{target.id}/a2a/calls/{call_id}/stream"
        async with world.session.get(path, headers={**OPERATOR, "Last-Event-ID": f"{call_id}-1"}) as response:
            await asyncio.sleep(1.0 + 2.0 + 0.5)  # noticed, and the grace is over
            assert agent.open == 1
            steps.go(EVENTS)
            body = await response.read()
        assert [said["result"]["metadata"]["n"] for _, said in events(body)] == [2, 3, 4, 5]
    async with stepping(world) as (steps, agent, target):
        steps.go()
        async with open_stream(world, target, headers=CANCEL) as response:
            await response.content.readuntil(b"\n\n")
        left = time.monotonic()
        await eventually(lambda: agent.open == 0)
        assert 2.0 <= time.monotonic() - left < 2.0 + SOON_S
        await call_of(world, target, "cancelled")


async def test_a_caller_that_does_not_read_is_let_go_and_its_stream_goes_on_to_its_end(world: World):
    gateway = await world.start(GATEWAY_WRITE_TIMEOUT_SECONDS="1")
    count, pad = 1200, 10_000

    async def flood(peer: Peer) -> None:
        await peer.say(CHUNKED)
        for number in range(1, count + 1):
            await peer.say(chunk(event(number, final=number == count, pad=pad)))
        await peer.say(LAST_CHUNK)

    async with faces.running(flood) as agent:
        target = await world.workspace(agent.url)
        process = psutil.Process(gateway.pid)
        before = process.memory_info().rss
        body = orjson.dumps(asked())
        head = f"POST /workspaces/{target.id}/a2a HTTP/1.1\r\nHost: a\r\nAuthorization: {OPERATOR['Authorization']}\r\n"
        small = socket.socket()
        small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        small.setblocking(False)
        where = urlsplit(gateway.url)
        await asyncio.get_running_loop().sock_connect(small, (where.hostname, where.port))
        reader, writer = await asyncio.open_connection(sock=small, limit=1024)
        writer.write(f"{head}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        await reader.readuntil(b"\r\n\r\n")
        row = await call_of(world, target, "completed", within_s=30)
        assert process.memory_info().rss < before + 24 * 1024 * 1024, "as much as twice the stream"

        async def readers() -> str:
            _, text, _ = await world.request("GET", "/metrics")
            return text.decode()

        await until(readers, lambda text: "gateway_agent_stream_readers 0.0" in text)
        await until(readers, lambda text: "gateway_agent_stream_bytes 0.0" in text)
        assert "connection_broke" not in gateway.log(), "that is nobody's fault"
        writer.close()
        path = f"/workspaces/{target.id}/a2a/calls/{row['id']}/stream"
        since = {"Last-Event-ID": f"{row['id']}-{count - 10}"}
        _, rest, _ = await world.request("GET", path, headers=since)
        assert [said["result"]["metadata"]["n"] for _, said in events(rest)] == list(range(count - 9, count + 1))


async def test_a_reader_whose_token_is_revoked_reads_no_more_and_the_call_goes_on(world: World):
    here, there = await asyncio.gather(world.start(), world.start())
    async with stepping(world) as (steps, _, target):
        caller = await world.workspace()
        path = f"/workspaces/{caller.id}/tokens"
        status, minted, _ = await world.request("POST", path)
        assert status == 201
        bearer = {"Authorization": f"Bearer {minted['auth_token']}"}
        steps.go(2)
        async with open_stream(world, target, gateway=here, headers=bearer) as response:
            call_id = response.headers["X-A2A-Call-ID"]
            before = [await response.content.readuntil(b"\n\n") for _ in range(2)]
            url = f"{there.url}/workspaces/{target.id}/a2a/calls/{call_id}/stream"
            async with world.session.get(url, headers=bearer) as follower:
                assert [await follower.content.readuntil(b"\n\n") for _ in range(2)] == before
                status, _, _ = await world.request("DELETE", f"{path}/{minted['id']}")
                assert status == 200
                async with asyncio.timeout(5):
                    for reader in (response, follower):
                        [(id_, said)] = events(await reader.content.read())
                        assert (id_, said["error"]["data"]["code"]) == (None, "invalid_credential")
                        assert said["error"]["data"]["last_event_id"] == f"{call_id}-2"
        steps.go(EVENTS)
        await call_of(world, target, "completed")


async def test_readers_who_take_nothing_of_a_long_event_are_no_more_than_all_streams_may_take(world: World):
    limit, size, count = 16 * 1024 * 1024, 4 * 1024 * 1024, 40
    gateway = await world.start(A2A_STREAMS_KEPT_BYTES=str(limit))
    go = asyncio.Event()

    async def behave(peer: Peer) -> None:
        await peer.say(CHUNKED, chunk(event(1)))
        await go.wait()
        await peer.say(chunk(event(2, pad=size)), chunk(event(3, final=True)), LAST_CHUNK)

    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(faces.running(behave))
        target = await world.workspace(agent.url)
        maker = await stack.enter_async_context(open_stream(world, target))
        path = f"/workspaces/{target.id}/a2a/calls/{maker.headers['X-A2A-Call-ID']}/stream"
        lines = f"GET {path} HTTP/1.1\r\nHost: a\r\nAuthorization: {OPERATOR['Authorization']}\r\n\r\n".encode()
        where = urlsplit(gateway.url)
        connections: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
        for _ in range(count):
            small = socket.socket()
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small.setblocking(False)
            await asyncio.get_running_loop().sock_connect(small, (where.hostname, where.port))
            reader, writer = await asyncio.open_connection(sock=small, limit=1024)
            stack.callback(writer.transport.abort)
            writer.write(lines)
            await reader.readuntil(b"\r\n\r\n")
            connections.append((reader, writer))
        process = psutil.Process(gateway.pid)
        before = process.memory_info().rss
        go.set()
        await call_of(world, target, "completed")
        firsts = [await reader.read(1000) for reader, _ in connections]
        grown = process.memory_info().rss - before
        told = [one for one in firsts if b"overloaded" in one]
        assert len(told) >= count - limit / size
        assert grown < count * size / 2
