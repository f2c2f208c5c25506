"""Streams survive: their callers' connections, the replica that relays them, and Redis, each as far as is promised."""

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Iterable
from typing import Any, Final

import orjson
import pytest
from aiohttp import ClientError, ClientResponse, web
from redis.asyncio import Redis

from tests.e2e.test_streams import OPERATOR, agent_of, asked, events, open_stream, streaming, update
from tests.harness import agent as agents
from tests.harness import valkey as valkeys
from tests.harness.process import GatewayProcess
from tests.harness.valkey import Valkey
from tests.harness.world import Workspace, World, eventually, until

EVENTS: Final = 10_000
CUTS: Final = 200
AHEAD: Final = 300
"""How far the agent may be ahead of a client that is cut off."""
PROBE_S: Final = 0.2


class Watched:
    """A client of one stream that is cut off now and then, and goes on with what it knows: the events it has whole."""

    def __init__(self) -> None:
        self.call_id = ""
        self.count = 0
        """The events it has."""
        self._whole: list[bytes] = []
        self._rest = b""

    @property
    def whole(self) -> bytes:
        """All of them."""
        return b"".join(self._whole)

    @property
    def headers(self) -> dict[str, str]:
        """What it comes back with."""
        return {**OPERATOR, "Last-Event-ID": f"{self.call_id}-{self.count}"} if self.count else OPERATOR

    def take(self, chunk: bytes) -> None:
        """Take the next bytes; of comments nothing stays."""
        *blocks, self._rest = (self._rest + chunk).split(b"\n\n")
        for block in blocks:
            self.count += 1
            self._whole += [line + b"\n" for line in block.split(b"\n") if not line.startswith(b":")]
            self._whole.append(b"\n")

    def lose(self) -> None:
        """Forget the event in whose middle it was cut off."""
        self._rest = b""


def expected(call_id: str, numbers: Iterable[int], last: int) -> bytes:
    """What a client has that has missed nothing."""
    return b"".join(f"id: {call_id}-{n}\n".encode() + update(n, final=n == last) for n in numbers)


def stream_of(target: Workspace, call_id: str) -> str:
    return f"/workspaces/{target.id}/a2a/calls/{call_id}/stream"


async def rest(
    world: World, gateway: GatewayProcess, target: Workspace, call_id: str, *, after: int = 0
) -> tuple[int, bytes]:
    """All that there is of a stream behind an event."""
    headers = {**OPERATOR, "Last-Event-ID": f"{call_id}-{after}"} if after else OPERATOR
    async with world.session.get(gateway.url + stream_of(target, call_id), headers=headers) as response:
        return response.status, await response.read()


def code(raw: bytes) -> str:
    """What the last event says."""
    found: str = events(raw)[-1][1]["error"]["data"]["code"]
    return found


class Paced:
    """An agent's script that goes on as far as it may: a stream of so many events."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.sent = 0
        self._may = 0
        self._more = asyncio.Event()

    def allow(self, number: int) -> None:
        """Let it go on to this event."""
        self._may = max(self._may, min(number, self.count))
        self._more.set()

    async def __call__(self, response: web.StreamResponse, _: bytes) -> None:
        while self.sent < self.count:
            while self.sent == self._may:
                self._more.clear()
                await self._more.wait()
            upto = min(self._may, self.sent + 100)
            await response.write(b"".join(update(n, final=n == self.count) for n in range(self.sent + 1, upto + 1)))
            self.sent = upto


async def test_who_is_cut_off_200_times_and_goes_on_elsewhere_has_the_same_stream(world: World) -> None:
    """Also from any event on once the agent is gone, and when the replica that relayed it has been killed."""
    gateways = await asyncio.gather(world.start(), world.start())
    dice = random.Random(6)
    cuts = sorted(dice.sample(range(1, EVENTS - AHEAD), CUTS))
    script = Paced(EVENTS)
    client = Watched()
    async with agents.running(streaming(script)) as agent:
        target = await world.workspace(agent.url)
        for turn, cut in enumerate([*cuts, EVENTS]):
            script.allow(cut + dice.randrange(AHEAD) if cut < EVENTS else EVENTS)
            gateway = gateways[turn % 2]
            if turn == 0:
                opening = world.session.post(
                    f"{gateway.url}/workspaces/{target.id}/a2a", json=asked(), headers=OPERATOR
                )
            else:
                opening = world.session.get(gateway.url + stream_of(target, client.call_id), headers=client.headers)
            async with opening as response:
                assert response.status == 200
                client.call_id = response.headers["X-A2A-Call-ID"]
                while client.count < cut:
                    chunk = await response.content.read(dice.randrange(1, 20_000))
                    assert chunk, f"it ended behind event {client.count}"
                    client.take(chunk)
                response.close()
            client.lose()
    call_id = client.call_id
    assert client.whole == expected(call_id, range(1, EVENTS + 1), EVENTS)
    relaying, other = gateways
    for gateway in gateways:
        for after in (0, *dice.sample(range(1, EVENTS), 5)):
            status, raw = await rest(world, gateway, target, call_id, after=after)
            assert (status, raw) == (200, expected(call_id, range(after + 1, EVENTS + 1), EVENTS))
        assert (await rest(world, gateway, target, call_id, after=EVENTS))[0] == 204
    os.kill(relaying.pid, signal.SIGKILL)
    status, raw = await rest(world, other, target, call_id, after=cuts[0])
    assert (status, raw) == (200, expected(call_id, range(cuts[0] + 1, EVENTS + 1), EVENTS))


async def test_followers_of_a_replica_that_is_killed_are_told_in_band(world: World) -> None:
    env: dict[str, Any] = {"GATEWAY_PROBE_SECONDS": str(PROBE_S)}
    doomed, left = await asyncio.gather(world.start(**env), world.start(**env))
    script = Paced(100)
    script.allow(10)
    target, agent = await agent_of(world, script)
    body = asked(rpc_id=7, message_id="once")
    async with open_stream(world, target, gateway=doomed, body=body) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        client = Watched()
        while client.count < 10:
            client.take(await response.content.readany())
        async with asyncio.timeout(20), asyncio.TaskGroup() as group:
            following = group.create_task(rest(world, left, target, call_id))
            await eventually(lambda: agent.open_connections == 1)
            os.kill(doomed.pid, signal.SIGKILL)
            with pytest.raises(ClientError):
                await response.content.read()
    status, raw = following.result()
    *before, (id_, last) = events(raw)
    assert (status, len(before), id_) == (200, 10, f"{call_id}-11")
    assert (last["id"], last["error"]["data"]["code"]) == (7, "interrupted")
    assert last["error"]["data"]["last_event_id"] == f"{call_id}-10"
    assert await rest(world, left, target, call_id, after=10) == (200, raw.partition(expected(call_id, [10], 0))[2])
    assert (await rest(world, left, target, call_id, after=11))[0] == 204
    async with open_stream(world, target, gateway=left, body=body) as response:
        assert await response.read() == raw, "who sends it again gets what there is of it"
    async with Redis.from_url(world.env["GATEWAY_REDIS_URL"]) as live:
        assert await live.delete(f"{world.env['GATEWAY_REDIS_PREFIX']}:stream:{call_id}:head") == 1
    async with open_stream(world, target, gateway=left, body=body) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        [(_, last)] = events(await response.read())
    assert (last["id"], last["error"]["data"]["code"]) == (7, "interrupted")
    assert last["error"]["data"]["call_id"] == call_id
    assert len(agent.bodies) == 1


async def test_a_reader_who_comes_too_late_for_a_long_stream_is_told(world: World) -> None:
    one, other = await asyncio.gather(*(world.start(A2A_JOURNAL_EVENTS="50") for _ in range(2)))
    script = Paced(500)
    script.allow(500)
    target, _ = await agent_of(world, script)
    async with open_stream(world, target, gateway=one) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        assert len(events(await response.read())) == 500
    for gateway in (one, other):
        status, raw = await rest(world, gateway, target, call_id, after=100)
        [(id_, last)] = events(raw)
        assert (status, id_, last["error"]["data"]["code"]) == (200, None, "events_lost")
        status, raw = await rest(world, gateway, target, call_id, after=450)
        assert raw == expected(call_id, range(451, 501), 500)


# -- Redis goes away in the middle


@pytest.fixture
async def broker(world: World) -> AsyncIterator[Valkey]:
    async with valkeys.running() as one:
        world.env |= {"GATEWAY_REDIS_URL": one.url, "GATEWAY_PROBE_SECONDS": str(PROBE_S)}
        yield one


async def first(response: ClientResponse, count: int) -> bytes:
    """The first events of a stream."""
    return b"".join([await response.content.readuntil(b"\n\n") for _ in range(count)])


async def test_a_redis_that_loses_its_memory_in_the_middle_costs_the_caller_nothing(
    world: World, broker: Valkey
) -> None:
    one, other = await asyncio.gather(world.start(), world.start())
    script = Paced(1000)
    script.allow(100)
    target, _ = await agent_of(world, script)
    async with open_stream(world, target, gateway=one) as response, asyncio.timeout(30):
        call_id = response.headers["X-A2A-Call-ID"]
        head = await first(response, 100)
        url = other.url + stream_of(target, call_id)
        async with world.session.get(url, headers=OPERATOR) as abreast, world.session.get(url, headers=OPERATOR):
            await first(abreast, 100)
            await broker.do("FLUSHALL")
            script.allow(1000)
            assert head + await response.content.read() == expected(call_id, range(1, 1001), 1000)
            assert await abreast.content.read() == expected(call_id, range(101, 1001), 1000), "it has lost nothing"
    _, raw = await until(  # its row is written a moment later
        lambda: rest(world, other, target, call_id, after=50), lambda got: got[0] == 409
    )
    assert orjson.loads(raw)["code"] == "no_stream"


async def test_who_is_behind_when_redis_loses_its_memory_is_told(world: World, broker: Valkey) -> None:
    one, other = await asyncio.gather(world.start(A2A_STREAM_KEPT_BYTES="1"), world.start())
    script = Paced(100)
    script.allow(50)
    target, _ = await agent_of(world, script)
    async with open_stream(world, target, gateway=one) as response, asyncio.timeout(30):
        call_id = response.headers["X-A2A-Call-ID"]
        await first(response, 50)
        async with world.session.get(other.url + stream_of(target, call_id), headers=OPERATOR) as abreast:
            await first(abreast, 50)
            broker.stall()
            script.allow(60)
            await first(response, 10)
            broker.kill()
            broker.forget()
            await broker.start()
            assert code(await abreast.content.read()) == "events_lost"
        status, raw = await rest(world, one, target, call_id, after=20)
        assert (status, code(raw)) == (200, "events_lost"), "what was in there is gone"
        script.allow(100)
        assert await response.content.read() == expected(call_id, range(61, 101), 100)


async def test_a_redis_that_stops_answering_in_the_middle_costs_the_caller_nothing(
    world: World, broker: Valkey
) -> None:
    one, other = await asyncio.gather(world.start(), world.start())
    script = Paced(EVENTS)
    script.allow(100)
    target, _ = await agent_of(world, script)
    async with open_stream(world, target, gateway=one) as response, asyncio.timeout(60):
        call_id = response.headers["X-A2A-Call-ID"]
        assert "X-A2A-Resumable" not in response.headers
        head = await first(response, 100)
        async with world.session.get(other.url + stream_of(target, call_id), headers=OPERATOR) as behind:
            await first(behind, 100)
            broker.stall()
            script.allow(EVENTS)
            async with asyncio.timeout(5):  # a reader of a journal is told after 15 s: nobody waits for Redis here
                assert head + await response.content.read() == expected(call_id, range(1, EVENTS + 1), EVENTS)
            assert code(await behind.content.read()) == "journal_unavailable"
        broker.go_on()


async def test_who_follows_a_stream_that_was_lost_to_redis_hears_of_it_when_redis_is_back(
    world: World, broker: Valkey
) -> None:
    one, other = await asyncio.gather(world.start(), world.start())
    script = Paced(100)
    script.allow(10)
    target, _ = await agent_of(world, script)
    async with open_stream(world, target, gateway=one) as response, asyncio.timeout(30):
        call_id = response.headers["X-A2A-Call-ID"]
        await first(response, 10)
        async with world.session.get(other.url + stream_of(target, call_id), headers=OPERATOR) as behind:
            await first(behind, 10)
            broker.kill()
            script.allow(20)
            await first(response, 10)
            await broker.start()
            assert code(await behind.content.read()) == "events_lost", "though the stream has not ended"
        async with world.session.get(one.url + stream_of(target, call_id), headers=OPERATOR) as here:
            assert here.headers["X-A2A-Resumable"] == "false"
            script.allow(100)
            assert await here.content.read() == expected(call_id, range(1, 101), 100), "its own replica has it"
        await response.content.read()


async def test_a_stream_says_that_it_cannot_be_resumed(world: World, broker: Valkey) -> None:
    await world.start()
    broker.kill()

    async def script(response: web.StreamResponse, _: bytes) -> None:
        await response.write(update(1))

    target, _ = await agent_of(world, script)
    async with open_stream(world, target) as response:
        assert response.headers["X-A2A-Resumable"] == "false"
        *_, (_, last) = events(await response.read())
    assert last["error"]["data"]["code"] == "truncated"
    assert last["error"]["data"]["resumable"] is False


async def test_an_agent_that_is_faster_than_redis_is_read_no_faster_and_costs_other_streams_nothing(
    world: World, broker: Valkey
) -> None:
    """What waits for Redis would take memory, and come so late that Redis counted as away, for all streams."""
    gateway = await world.start(GATEWAY_ADMISSION_SECONDS="3")
    said, mib, count = 0, 1024 * 1024, 64

    async def script(response: web.StreamResponse, _: bytes) -> None:
        nonlocal said
        await response.write(update(1))
        await go.wait()
        for n in range(2, count + 1):
            await response.write(update(n, final=n == count, pad="x" * mib))
            said += 1

    go = asyncio.Event()
    target, _ = await agent_of(world, script)
    async with open_stream(world, target) as response, asyncio.timeout(30):
        call_id = response.headers["X-A2A-Call-ID"]
        await response.content.readuntil(b"\n\n")
        broker.stall()
        go.set()
        await eventually(lambda: said > 4)
        await asyncio.sleep(1)  # the time in which it could have said all
        assert said < count / 2, "beside what Redis may have to write, what the kernel takes"
        broker.go_on()
        size = 0
        async for piece in response.content.iter_any():
            size += len(piece)
        assert size > (count - 1) * mib
    status, raw = await rest(world, gateway, target, call_id, after=count - 5)
    assert (status, len(events(raw))) == (200, 5)
    _, text, _ = await world.request("GET", "/metrics")
    assert b"gateway_agent_streams_unjournalled_total 0.0" in text
