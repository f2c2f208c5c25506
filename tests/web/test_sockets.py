"""WebSockets as browsers and runtimes use them: events, going back, choosing, and being refused."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final
from uuid import UUID, uuid4

import aiohttp
import pytest
from aiohttp import WSMsgType
from aiohttp.client_exceptions import WSServerHandshakeError

from tests.harness import hall
from tests.harness.process import GatewayProcess
from tests.harness.world import ADMIN_TOKEN, Workspace, World, eventually

ANSWER_S: Final = 10.0
OPERATOR: Final = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
LARGE: Final = "x" * 60_000
MANY: Final = 150


class Client:
    """Reads one socket, message by message."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket = socket

    async def event(self, name: str) -> dict[str, Any]:
        """The next message of this name; others but gaps are passed over."""
        while True:
            told: dict[str, Any] = await self.socket.receive_json(timeout=ANSWER_S)
            if told["event"] == name:
                return told
            assert told["event"] != "gap", told

    async def task(self) -> str:
        """The next task that is told of."""
        return str((await self.event("TASK_UPDATED"))["payload"]["current_task"])

    async def closed(self) -> int | None:
        """The code with which the gateway closes, whatever it says before."""
        async with asyncio.timeout(ANSWER_S):
            async for _ in self.socket:
                pass
        return self.socket.close_code


@asynccontextmanager
async def connected(
    world: World, of: Workspace, query: str = "", *, gateway: GatewayProcess | None = None
) -> AsyncIterator[Client]:
    url = (gateway or world.gateways[0]).url
    async with world.session.ws_connect(f"{url}/ws{query}", headers=of.bearer) as socket:
        yield Client(socket)


async def work(world: World, on: Workspace, *tasks: str) -> None:
    for task in tasks:
        assert await world.beat(on, current_task=task) == 200


async def refused(world: World, headers: dict[str, str], query: str = "") -> int:
    with pytest.raises(WSServerHandshakeError) as refusal:
        await world.session.ws_connect(f"{world.url}/ws{query}", headers=headers)
    return refusal.value.status


async def test_a_workspace_hears_those_that_it_may_talk_to_and_no_others(world: World):
    await world.start()
    mine, sibling = await world.workspace(), await world.workspace()
    foreign = await world.workspace(parent_id=sibling.id)
    async with connected(world, mine) as client:
        await work(world, foreign, "not for me")
        await work(world, sibling, "for me")
        told = await client.event("TASK_UPDATED")
    assert set(told) == {"event", "workspace_id", "timestamp", "payload", "id"}
    assert (told["workspace_id"], told["payload"]["current_task"]) == (sibling.id, "for me")
    assert told["timestamp"].endswith("Z")


async def test_a_client_that_comes_back_gets_what_it_missed_once_each_on_any_replica(world: World):
    first, second = await world.start(), await world.start()
    mine = await world.workspace()
    async with connected(world, mine, gateway=first) as client:
        await work(world, mine, "1")
        last = (await client.event("TASK_UPDATED"))["id"]
    await work(world, mine, "2", "3")
    async with connected(world, mine, f"?last_event_id={last}&type=TASK_UPDATED", gateway=second) as client:
        await work(world, mine, "4")
        assert [await client.task() for _ in range(3)] == ["2", "3", "4"]
    async with connected(world, mine, gateway=second) as client:
        await client.socket.send_json({"resume": last})
        assert [await client.task() for _ in range(3)] == ["2", "3", "4"]


async def test_a_client_with_an_id_that_is_not_held_is_told_of_the_gap(world: World):
    await world.start()
    mine = await world.workspace()
    async with connected(world, mine) as client:
        await work(world, mine, "before")
        assert await client.task() == "before"
        await client.socket.send_json({"resume": "1-1"})
        gap = await client.event("gap")
        assert (gap["payload"]["from"], gap["payload"]["to"]) == ("1-1", gap["id"])
        assert gap["payload"]["resync"] == f"/workspaces/{mine.id}"
        await work(world, mine, "after")
        assert await client.task() == "after"


async def test_a_client_hears_what_it_subscribes_to_from_then_on(world: World):
    await world.start()
    mine, other = await world.workspace(), await world.workspace()
    async with connected(world, mine, f"?workspace={mine.id}") as client:
        await work(world, other, "not asked for")
        await work(world, mine, "1")
        first = await client.event("TASK_UPDATED")
        assert first["payload"]["current_task"] == "1"
        await client.socket.send_json({"subscribe": [other.id], "resume": first["id"]})
        await work(world, mine, "not any more")
        await work(world, other, "2")
        assert await client.task() == "2"
        await client.socket.send_json({"subscribe": [], "resume": first["id"]})
        assert [await client.task() for _ in range(2)] == ["not any more", "2"]


async def test_each_thing_that_a_client_asks_for_costs_a_request(world: World):
    await world.start(GATEWAY_RATE_REQUESTS="4/3600")
    mine = await world.workspace()
    async with connected(world, mine) as client:
        for _ in range(4):
            await client.socket.send_json({"subscribe": []})
        assert await client.closed() == 1008
    status, _, headers = await world.request("GET", f"/workspaces/{mine.id}", headers=mine.bearer)
    assert (status, headers["X-RateLimit-Remaining"]) == (429, "0")


@pytest.mark.parametrize(
    "said",
    [
        "nonsense",
        "[]",
        '"resume"',
        "{}",
        '{"foo": 1}',
        '{"resume": "1-1", "type": ["CALL_ENDED"]}',
        '{"subscribe": [], "types": ["CALL_ENDED"]}',
        '{"resume": null}',
        '{"subscribe": null}',
        '{"resume": 1}',
        '{"subscribe": "all"}',
        '{"subscribe": [1]}',
        '{"subscribe": ["demo"]}',
        '{"subscribe": ["' + '","'.join(str(UUID(int=number)) for number in range(1001)) + '"]}',
        b"{}",
    ],
    ids=lambda said: str(said)[:24],
)
async def test_a_message_that_cannot_be_understood_ends_the_socket(said: str | bytes):
    async with hall.running() as house, house.socket() as socket:
        await (socket.send_bytes(said) if isinstance(said, bytes) else socket.send_str(said))
        assert await Client(socket).closed() == 1008
        await eventually(lambda: len(house.sockets) == house.hub.readers == 0)


async def test_a_message_that_is_too_large_ends_the_socket():
    async with hall.running() as house, house.socket() as socket:
        await socket.send_str('{"resume": "' + "x" * 70_000 + '"}')
        assert await Client(socket).closed() == 1009


async def test_a_workspace_may_not_subscribe_to_one_that_it_may_not_see(world: World):
    await world.start()
    mine, sibling = await world.workspace(), await world.workspace()
    foreign = await world.workspace(parent_id=sibling.id)
    async with connected(world, mine) as client:
        await client.socket.send_json({"subscribe": [sibling.id, foreign.id]})
        assert await client.closed() == 1008
    assert await refused(world, mine.bearer, f"?workspace={foreign.id}") == 403
    assert await refused(world, {}) == 401
    assert await refused(world, OPERATOR, "?type=nonsense") == 400
    assert await refused(world, OPERATOR, f"?workspace={uuid4()}") == 404


@pytest.mark.parametrize("origin", ["http://elsewhere.example", "null", "http://[", f"{hall.FRIEND}:81"])
async def test_pages_of_other_sites_may_not_connect(origin: str):
    async with hall.running() as house:
        with pytest.raises(WSServerHandshakeError) as refusal:
            async with house.socket(headers={"Origin": origin}):
                pass
        assert refusal.value.status == 403


async def test_pages_of_its_own_site_and_of_those_that_are_named_may_connect():
    async with hall.running() as house:
        for origin in (house.url, hall.FRIEND):
            async with house.socket(headers={"Origin": origin}):
                pass


async def test_a_socket_is_pinged_and_one_that_does_not_answer_is_let_go():
    async with hall.running(ping_s=0.2) as house:
        async with house.socket(autoping=False) as silent:
            assert (await silent.receive(timeout=ANSWER_S)).type is WSMsgType.PING
            await eventually(lambda: len(house.sockets) == 0)
        async with house.socket(autoping=False) as answering:
            for _ in range(3):
                assert (await answering.receive(timeout=ANSWER_S)).type is WSMsgType.PING
                await answering.pong()
            assert len(house.sockets) == 1


async def test_a_slow_client_gets_everything_once_and_in_order_and_the_others_do_not_notice():
    async with hall.running() as house, house.socket() as brisk, house.socket(slow=True, max_msg_size=0) as slow:
        for number in range(1, MANY + 1):
            house.tell(LARGE)
            assert (await brisk.receive_json(timeout=ANSWER_S))["payload"]["number"] == number
        assert house.hub.lagging == house.hub.fallen_behind == 1
        told = [(await slow.receive_json(timeout=ANSWER_S))["payload"]["number"] for _ in range(MANY)]
        assert told == list(range(1, MANY + 1))
        await eventually(lambda: house.hub.lagging == 0)


async def test_a_client_that_takes_nothing_is_let_go():
    async with hall.running(drain_s=0.3) as house, house.socket() as brisk, house.socket(slow=True):
        for _ in range(MANY):
            house.tell(LARGE)
            await brisk.receive(timeout=ANSWER_S)
        await eventually(lambda: len(house.sockets) == house.hub.readers == 1)


async def test_one_socket_too_many_is_refused_and_may_come_back():
    async with hall.running(capacity=1) as house:
        async with house.socket():
            with pytest.raises(WSServerHandshakeError):
                async with house.socket():
                    pass
        await eventually(lambda: len(house.sockets) == 0)
        async with house.socket():
            assert len(house.sockets) == 1


async def test_a_socket_of_a_removed_workspace_closes_once_its_client_has_been_told(world: World):
    await world.start()
    mine = await world.workspace()
    url = f"{world.url}/ws?workspace={mine.id}"
    async with world.session.ws_connect(url, headers=OPERATOR) as socket:
        status, _, _ = await world.request("DELETE", f"/workspaces/{mine.id}", headers=OPERATOR)
        assert status == 200
        client = Client(socket)
        assert (await client.event("WORKSPACE_REMOVED"))["workspace_id"] == mine.id
        assert await client.closed() == 1001
    assert await refused(world, OPERATOR, f"?workspace={mine.id}") == 410


async def test_a_socket_ends_when_what_its_client_may_see_changes(world: World):
    await world.start()
    mine = await world.workspace()
    async with connected(world, mine) as client:
        await work(world, mine, "seen")
        assert await client.task() == "seen"
        await world.workspace()
        assert await client.closed() == 1001


async def test_sockets_end_when_the_gateway_goes_away(world: World):
    gateway = await world.start()
    async with world.session.ws_connect(f"{world.url}/ws", headers=OPERATOR) as socket:
        code, left = await asyncio.gather(gateway.stop(), Client(socket).closed())
    assert (code, left) == (0, 1001)
