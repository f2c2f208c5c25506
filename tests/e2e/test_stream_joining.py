"""The same message to a streaming agent once more: it joins the stream that is under way, or gets it all again."""

import asyncio
from contextlib import AsyncExitStack
from typing import Any

import pytest

from tests.e2e.test_stream_disconnects import EVENTS, stepping
from tests.e2e.test_streams import asked, events, open_stream
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, eventually, until

ALL = list(range(1, EVENTS + 1))


class Caller:
    """One who sends the message, under an id of its own."""

    def __init__(self, world: World, target: Workspace, gateway: GatewayProcess, rpc_id: Any, **headers: str) -> None:
        self._world = world
        self._target = target
        self._gateway = gateway
        self._headers = headers
        self.rpc_id = rpc_id
        self.body = b""
        self.call_id = ""

    async def call(self) -> None:
        body = asked(rpc_id=self.rpc_id, message_id="one")
        async with open_stream(
            self._world, self._target, gateway=self._gateway, body=body, headers=self._headers
        ) as response:
            assert (response.status, response.content_type) == (200, "text/event-stream")
            self.call_id = response.headers["X-A2A-Call-ID"]
            async for piece in response.content.iter_any():
                self.body += piece

    @property
    def numbers(self) -> list[int]:
        return [said["result"]["metadata"]["n"] for _, said in events(self.body) if "result" in said]

    @property
    def ids(self) -> list[Any]:
        return [said["id"] for _, said in events(self.body)]


async def test_the_same_message_joins_a_stream_on_any_replica_and_gets_all_of_it_again_after_its_end(world: World):
    here, there = await asyncio.gather(world.start(), world.start())
    async with stepping(world) as (steps, agent, target):
        maker, *joiners = [
            Caller(world, target, gateway, rpc_id)
            for gateway, rpc_id in ((here, "1"), (here, 2), (there, "three"), (there, None), (here, 2**60 + 1))
        ]
        async with asyncio.TaskGroup() as group:
            group.create_task(maker.call())
            steps.go(2)
            await eventually(lambda: maker.numbers == [1, 2])
            for one in joiners:
                group.create_task(one.call())
            await eventually(lambda: all(one.numbers == [1, 2] for one in joiners))
            steps.go(EVENTS - 2)
        path = f"/workspaces/{target.id}/a2a/calls/{maker.call_id}"
        await until(lambda: world.request("GET", path), lambda got: got[0] == 200 and got[1].get("ending"))
        late = [Caller(world, target, gateway, rpc_id) for gateway, rpc_id in ((here, "late"), (there, 6))]
        for one in late:
            await one.call()
        for one in (*joiners, *late):
            assert one.numbers == ALL
            assert one.call_id == maker.call_id
            assert one.ids == [one.rpc_id] * EVENTS
            assert [id_ for id_, _ in events(one.body)] == [f"{maker.call_id}-{number}" for number in ALL]
        cut = Caller(world, target, there, "again", **{"Last-Event-ID": f"{maker.call_id}-3"})
        await cut.call()
        assert cut.numbers == ALL[3:]
        assert len(agent.asked) == 1


@pytest.mark.parametrize("elsewhere", [False, True])
async def test_the_same_message_joins_before_the_agent_has_begun_to_answer(world: World, elsewhere: bool):
    here, there = await asyncio.gather(world.start(), world.start())
    async with stepping(world) as (steps, agent, target):
        maker, joiner = Caller(world, target, here, "1"), Caller(world, target, there if elsewhere else here, 2)
        async with asyncio.TaskGroup() as group:
            group.create_task(maker.call())
            await eventually(lambda: agent.open == 1)
            group.create_task(joiner.call())

            async def joined() -> float:
                _, text, _ = await world.request("GET", "/metrics", gateway=there if elsewhere else here)
                [line] = [line for line in text.decode().splitlines() if line.startswith("gateway_calls_joined_total ")]
                return float(line.split()[1])

            await until(joined, lambda count: count == 1)
            steps.go(EVENTS)
        assert (maker.numbers, joiner.numbers) == (ALL, ALL)
        assert (set(maker.ids), set(joiner.ids)) == ({"1"}, {2})
        assert len(agent.asked) == 1


async def test_a_stream_that_did_not_complete_is_told_to_those_who_joined_and_to_those_who_come_later(world: World):
    here, there = await asyncio.gather(world.start(), world.start())
    async with stepping(world) as (steps, agent, target):
        maker = Caller(world, target, here, "1", **{"X-Timeout": "2"})
        joiners = [Caller(world, target, gateway, rpc_id) for gateway, rpc_id in ((here, 2), (there, 3))]
        async with asyncio.TaskGroup() as group:
            group.create_task(maker.call())
            steps.go(2)
            await eventually(lambda: maker.numbers == [1, 2])
            for one in joiners:
                group.create_task(one.call())
        for one in (maker, *joiners):
            assert one.numbers == [1, 2]
            last_id, last = events(one.body)[-1]
            assert (last["id"], last["error"]["data"]["code"]) == (one.rpc_id, "deadline")
            assert last_id == f"{maker.call_id}-3"
        late = Caller(world, target, there, "late")
        path = f"/workspaces/{target.id}/a2a/calls/{maker.call_id}"
        await until(lambda: world.request("GET", path), lambda got: got[0] == 200 and got[1].get("ending"))
        await late.call()
        assert late.numbers == [1, 2]
        assert events(late.body)[-1][1]["error"]["data"]["code"] == "deadline"
        assert events(late.body)[-1][1]["id"] == "late"
        assert len(agent.asked) == 1


async def test_who_joins_a_stream_takes_a_place_as_all_its_readers_do(world: World):
    await world.start(GATEWAY_MAX_READERS="2")
    async with stepping(world) as (steps, agent, target), AsyncExitStack() as stack:
        steps.go()
        body = asked(message_id="one")
        for _ in range(1 + 2):
            response = await stack.enter_async_context(open_stream(world, target, body=body))
            [(_, said)] = events(await response.content.readuntil(b"\n\n"))
            assert said["result"]["metadata"]["n"] == 1
        async with open_stream(world, target, body=body) as late:
            assert late.headers["X-A2A-Call-ID"] == response.headers["X-A2A-Call-ID"]
            [(_, said)] = events(await late.read())
        assert (said["error"]["data"]["code"], said["error"]["data"]["http_status"]) == ("overloaded", 503)
        response.close()

        async def comes() -> bool:
            async with open_stream(world, target, body=body) as again:
                return b'"result"' in await again.content.readuntil(b"\n\n")

        await until(comes, bool)
        assert agent.methods() == ["message/stream"]
