"""SIGTERM while streams go on: each of their readers is told in its stream, and in time."""

import asyncio
import signal
import socket
import time
from contextlib import AsyncExitStack
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import orjson
import pytest

from tests.e2e.test_streams import OPERATOR, asked, events, open_stream
from tests.harness import faces
from tests.harness.faces import CHUNKED, Peer, chunk, event
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, eventually, until

EACH = 50
DRAIN_S = 2.0


async def stalled(peer: Peer) -> None:
    await peer.say(CHUNKED, chunk(event(1)))
    await peer.stay()


async def live(peer: Peer) -> None:
    await peer.say(CHUNKED)
    number = 0
    while not peer.gone:
        number += 1
        await peer.say(chunk(event(number)))
        await asyncio.sleep(0.1)


class Reading:
    """A stream that is read beside the test."""

    def __init__(self) -> None:
        self.body = bytearray()
        self.whole = False
        self.call_id = ""

    async def read(self, response: aiohttp.ClientResponse) -> None:
        self.call_id = response.headers["X-A2A-Call-ID"]
        async for piece in response.content.iter_any():
            self.body += piece
        self.whole = True

    async def ask(self, world: World, target: Workspace, **options: Any) -> None:
        async with open_stream(world, target, **options) as response:
            assert response.status == 200
            await self.read(response)

    async def follow(self, world: World, gateway: GatewayProcess, target: Workspace, call_id: str, since: str) -> None:
        url = f"{gateway.url}/workspaces/{target.id}/a2a/calls/{call_id}/stream"
        async with world.session.get(url, headers={**OPERATOR, "Last-Event-ID": since}) as response:
            assert response.status == 200
            await self.read(response)

    @property
    def seen(self) -> list[tuple[str | None, Any]]:
        return events(bytes(self.body))

    @property
    def numbers(self) -> list[int]:
        return [said["result"]["metadata"]["n"] for _, said in self.seen if "result" in said]

    @property
    def told(self) -> dict[str, Any]:
        """How its last event says that it ends."""
        data: dict[str, Any] = self.seen[-1][1]["error"]["data"]
        return data


async def test_a_hundred_streams_are_told_and_the_process_ends_in_time(world: World):
    gateway = await world.start(GATEWAY_DRAIN_SECONDS=str(DRAIN_S))
    async with AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(faces.running(behave)) for behave in (stalled, live)]
        targets = [await world.workspace(agent.url) for agent in agents]
        streams = [(target, Reading()) for target in targets for _ in range(EACH)]
        async with asyncio.TaskGroup() as group:
            for target, one in streams:
                group.create_task(one.ask(world, target))
            await eventually(lambda: all(one.body for _, one in streams), within_s=20)
            signalled = time.monotonic()
            gateway.send(signal.SIGTERM)
            assert await gateway.wait() == 0
            took_s = time.monotonic() - signalled
        assert DRAIN_S <= took_s <= DRAIN_S + 2.0
        for _, one in streams:
            assert one.whole, "it has ended as HTTP has it"
            assert one.told["code"] == "gateway_shutdown"
            assert one.numbers == list(range(1, len(one.numbers) + 1))
            assert one.told["last_event_id"] == f"{one.call_id}-{len(one.numbers)}"
        for agent in agents:
            await eventually(lambda agent=agent: agent.open == 0)


async def test_a_reader_of_what_another_replica_relays_is_sent_there_and_misses_nothing(world: World):
    relaying, leaving = await asyncio.gather(world.start(), world.start(GATEWAY_DRAIN_SECONDS="10"))
    async with faces.running(live) as agent:
        target = await world.workspace(agent.url)
        body = asked(message_id="one")
        first, joined, followed, again = (Reading() for _ in range(4))
        async with asyncio.TaskGroup() as group:
            maker = group.create_task(first.ask(world, target, gateway=relaying, body=body))
            await eventually(lambda: first.numbers)
            joiner = group.create_task(joined.ask(world, target, gateway=leaving, body={**body, "id": 7}))
            follower = group.create_task(followed.follow(world, leaving, target, first.call_id, ""))
            await eventually(lambda: joined.numbers and followed.numbers)
            signalled = time.monotonic()
            leaving.send(signal.SIGTERM)
            assert await leaving.wait() == 0
            assert time.monotonic() - signalled < 5.0, "nothing here is waited for"
            await asyncio.wait([joiner, follower])
            for one, rpc_id in ((joined, 7), (followed, "1")):
                assert one.whole
                assert one.seen[-1][1]["id"] == rpc_id
                assert (one.told["code"], one.told["retriable"]) == ("gateway_shutdown", True)
                assert one.told["last_event_id"] == f"{first.call_id}-{len(one.numbers)}"
            group.create_task(again.follow(world, relaying, target, first.call_id, followed.told["last_event_id"]))
            await eventually(lambda: again.numbers)
            await world.request("POST", f"/workspaces/{target.id}/a2a/calls/{first.call_id}/cancel", gateway=relaying)
            await asyncio.wait([maker])
    assert followed.numbers + again.numbers == first.numbers == list(range(1, len(first.numbers) + 1))
    assert again.told["code"] == "cancelled"


async def test_who_wants_to_follow_a_call_that_has_not_begun_to_answer_is_sent_elsewhere(world: World):
    relaying, leaving = await asyncio.gather(world.start(), world.start(GATEWAY_DRAIN_SECONDS=str(DRAIN_S)))
    other = Reading()
    async with faces.running(Peer.stay) as silent, faces.running(live) as busy:
        target, holding = await world.workspace(silent.url), await world.workspace(busy.url)
        async with asyncio.TaskGroup() as group:
            call = group.create_task(
                world.request("POST", f"/workspaces/{target.id}/a2a", gateway=relaying, json=asked())
            )
            holds = group.create_task(other.ask(world, holding, gateway=leaving))
            await eventually(lambda: silent.heads)
            call_id = silent.call_id(0)
            path = f"/workspaces/{target.id}/a2a/calls/{call_id}/stream"
            follower = group.create_task(world.request("GET", path, gateway=leaving))
            await eventually(lambda: other.body)
            leaving.send(signal.SIGTERM)
            status, said, headers = await follower
            assert (status, said["code"], headers["Retry-After"]) == (503, "draining", "5")
            assert await leaving.wait() == 0
            await asyncio.wait([holds])
            call.cancel()


async def test_readers_who_take_nothing_do_not_keep_the_process(world: World):
    gateway = await world.start(GATEWAY_DRAIN_SECONDS=str(DRAIN_S))

    async def long(peer: Peer) -> None:
        await peer.say(CHUNKED, chunk(event(1)), chunk(event(2, pad=3 * 1024 * 1024)))
        await peer.stay()

    async with AsyncExitStack() as stack:
        agent = await stack.enter_async_context(faces.running(long))
        target = await world.workspace(agent.url)
        where, body = urlsplit(gateway.url), orjson.dumps(asked())
        lines = (
            f"POST /workspaces/{target.id}/a2a HTTP/1.1\r\nHost: a\r\nAuthorization: {OPERATOR['Authorization']}\r\n"
        )
        request = f"{lines}Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
        loop = asyncio.get_running_loop()
        for _ in range(5):
            small = stack.enter_context(socket.socket())
            small.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            small.setblocking(False)
            await loop.sock_connect(small, (where.hostname, where.port))
            await loop.sock_sendall(small, request)
            async with asyncio.timeout(10):
                assert await loop.sock_recv(small, 100)
        await eventually(lambda: agent.open == 5)
        signalled = time.monotonic()
        gateway.send(signal.SIGTERM)
        assert await gateway.wait() == 0
        assert time.monotonic() - signalled <= DRAIN_S + 2.0


async def test_a_second_signal_ends_streams_at_once(world: World):
    gateway = await world.start(GATEWAY_DRAIN_SECONDS="60")
    async with faces.running(live) as agent:
        target = await world.workspace(agent.url)
        one = Reading()

        async def lose() -> None:
            with pytest.raises(aiohttp.ClientError):
                await one.ask(world, target)

        async with asyncio.TaskGroup() as group:
            group.create_task(lose())
            await eventually(lambda: one.body)
            gateway.send(signal.SIGTERM)
            await until(lambda: world.request("GET", "/readyz"), lambda got: got[0] == 503)
            signalled = time.monotonic()
            gateway.send(signal.SIGTERM)
            assert await gateway.wait() == 1
            assert time.monotonic() - signalled < 1.0
        assert not one.whole
