"""Feeds through the front door: an agent's own events reach whoever reads, by one subscription of all replicas."""

import asyncio
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import psutil
import pytest

from tests.harness import feeds, process
from tests.harness.agent import silent_for
from tests.harness.feeds import HEAD, FeedAgent, Visit, block, chunk, refusal, says, stays
from tests.harness.process import GatewayProcess
from tests.harness.valkey import free_port
from tests.harness.world import Workspace, World, eventually, until

QUICK: Final = {
    "GATEWAY_FEED_LEASE_SECONDS": "2",
    "GATEWAY_FEED_LINGER_SECONDS": "3",
    "GATEWAY_FEED_PACE_SECONDS": "0.02",
    "GATEWAY_FEED_HEARTBEAT_SECONDS": "0.5",
    "GATEWAY_FEED_FIRST_BYTE_SECONDS": "1",
    "GATEWAY_PROBE_SECONDS": "0.5",
}
PINNED: Final = {**QUICK, "GATEWAY_FEEDS_PINNED": "1"}


async def declare(world: World, events_url: str, url: str | None = None, **fields: Any) -> Workspace:
    """Make a workspace whose agent registers with a feed."""
    one = await world.workspace()
    status, body, _ = await register(world, one, events_url, url=url or "http://127.0.0.1:9999/", **fields)
    assert status == 200, body
    return one


async def register(
    world: World, one: Workspace, events_url: str | None, *, url: str = "http://127.0.0.1:9999/", **fields: Any
) -> tuple[int, Any, Mapping[str, str]]:
    said = {"id": one.id, "url": url, "agent_card": {}, **fields}
    if events_url is not None:
        said["events_url"] = events_url
    return await world.request("POST", "/registry/register", json=said, headers=one.bearer)


async def shown(world: World, one: Workspace, gateway: GatewayProcess | None = None) -> dict[str, Any]:
    _, body, _ = await world.request("GET", f"/workspaces/{one.id}", gateway=gateway)
    feed: dict[str, Any] = body["feed"]
    return feed


async def until_shown(world: World, one: Workspace, within_s: float = 10.0, **wanted: Any) -> dict[str, Any]:
    return await until(
        lambda: shown(world, one), lambda feed: {name: feed[name] for name in wanted} == wanted, within_s
    )


async def test_an_event_of_an_agent_reaches_those_who_read_its_workspace(world: World):
    await world.start(**QUICK)
    async with feeds.running(stays()) as agent:
        one = await declare(world, agent.url)
        assert (await shown(world, one))["state"] == "stopped"
        async with world.reading(one) as reader:
            await until_shown(world, one, state="live")
            await agent.say(block('{"type":"STEP_STARTED","data":{"step":1},"workspace_id":"somebody else"}', "e-1"))
            await eventually(lambda: reader.of("AGENT_EVENT"))
        [told] = [one for one in reader.events if one["type"] == "AGENT_EVENT"]
        assert told["workspace_id"] == one.id
        assert told["data"] == {"type": "STEP_STARTED", "data": {"step": 1}}
        await eventually(lambda: not agent.there)
        assert (await until_shown(world, one, state="stopped"))["events"] == 1
        assert agent.most == 1


async def test_a_call_in_flight_lives_by_the_events_of_its_agent(world: World):
    await world.start(A2A_IDLE_TIMEOUT_SECONDS="2", **QUICK)
    caller = await world.agent(silent_for(5))
    async with feeds.running(ticks) as agent:
        one = await declare(world, agent.url, url=caller.url)
        status, _, _ = await world.call(one)
        assert status == 200
        assert len(agent.visits) == 1
        other = await world.workspace(caller.url)
        status, body, _ = await world.call(other)
        assert (status, body["code"]) == (503, "idle_timeout")


async def ticks(visit: feeds.Visit) -> None:
    await visit.say(feeds.HEAD)
    while visit.is_there:
        await visit.say(block('{"type":"TICK"}'))
        await asyncio.sleep(0.2)


async def test_comments_keep_a_feed_but_no_call(world: World):
    await world.start(A2A_IDLE_TIMEOUT_SECONDS="2", **QUICK)
    caller = await world.agent(silent_for(30))

    async def comments(visit: feeds.Visit) -> None:
        await visit.say(feeds.HEAD)
        while visit.is_there:
            await visit.say(feeds.chunk(b":\n\n"))
            await asyncio.sleep(0.2)

    async with feeds.running(comments) as agent:
        one = await declare(world, agent.url, url=caller.url)
        status, body, _ = await world.call(one)
        assert (status, body["code"]) == (503, "idle_timeout")
        assert len(agent.visits) == 1


@pytest.mark.parametrize("status", [401, 403, 404, 410])
async def test_what_refuses_for_good_is_given_up_for_all_to_see_until_it_registers_again(world: World, status: int):
    await world.start(**PINNED)
    async with feeds.running(says(refusal(status))) as agent:
        one = await declare(world, agent.url)
        await until_shown(world, one, state="gave_up", reason=f"http_{status}")
        visits = len(agent.visits)
        await until(lambda: metric(world, "gateway_feeds", "gave_up"), lambda count: count == 1)
        assert len(agent.visits) == visits
        agent.behave = stays()
        assert (await register(world, one, None))[0] == 200
        await until_shown(world, one, state="live", reason=None)
        assert await metric(world, "gateway_feeds", "gave_up") == 0


async def metric(world: World, name: str, state: str) -> float:
    async with world.session.get(f"{world.url}/metrics") as response:
        [line] = [line for line in (await response.text()).split("\n") if line.startswith(f'{name}{{state="{state}"}}')]
    return float(line.split(" ")[1])


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (refusal(500), "http_500"),
        (refusal(302, b"Location: http://169.254.169.254/"), "http_302"),
        (b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\n\r\n", "no_event_stream"),
    ],
    ids=["500", "302", "page"],
)
async def test_what_fails_is_tried_again_and_says_why(world: World, said: bytes, reason: str):
    await world.start(**PINNED)
    async with feeds.running(says(said)) as agent:
        one = await declare(world, agent.url)
        await until_shown(world, one, state="backoff", reason=reason)
        agent.behave = stays()
        await until_shown(world, one, state="live", reason=None)


async def test_an_agent_that_is_not_there_is_tried_again(world: World):
    await world.start(**PINNED)
    port = free_port()
    one = await declare(world, f"http://127.0.0.1:{port}/events")
    await until_shown(world, one, state="backoff", reason="unreachable")
    async with feeds.running(port=port):
        await until_shown(world, one, state="live")


async def test_a_hundred_clean_ends_lose_nothing_and_repeat_nothing(world: World):
    await world.start(**PINNED)
    number = 0

    async def one_more(visit: feeds.Visit) -> None:
        nonlocal number
        before, number = number, number + 1
        again = block(str(before), str(before)) if before else b""  # as a server that does not mind Last-Event-ID
        await visit.say(feeds.HEAD + again + block(str(number), str(number)) + feeds.LAST)
        if number > 100:
            agent.behave = stays()

    async with feeds.running(one_more) as agent:
        one = await world.workspace()
        async with world.reading(one) as reader:
            assert (await register(world, one, agent.url))[0] == 200
            await eventually(lambda: len(reader.of("AGENT_EVENT")) >= 101, within_s=30)
        assert [told["data"] for told in reader.of("AGENT_EVENT")] == list(range(1, 102))
        assert agent.most == 1
        assert [visit.headers.get("last-event-id") for visit in agent.visits[:3]] == [None, "1", "2"]


@asynccontextmanager
async def feed_process(port: int) -> AsyncIterator[GatewayProcess]:
    """A process that numbers its events, and goes on after the one that it is told."""
    async with process.started(str(port), "0.05", env={}, module="tests.harness.feeds") as one:
        yield one


async def test_an_agent_that_is_killed_and_comes_back_is_heard_without_a_hole(world: World):
    await world.start(**PINNED)
    port = free_port()
    one = await declare(world, f"http://127.0.0.1:{port}/events")
    async with world.reading(one) as reader:
        async with feed_process(port) as agent:
            await eventually(lambda: len(reader.of("AGENT_EVENT")) >= 5)
            agent.send(signal.SIGKILL)
            await until(lambda: shown(world, one), lambda feed: feed["state"] == "backoff")
        async with feed_process(port):
            count = len(reader.of("AGENT_EVENT"))
            await eventually(lambda: len(reader.of("AGENT_EVENT")) >= count + 5, within_s=20)
        told = [data["data"] for data in reader.of("AGENT_EVENT")]
    assert told == list(range(1, len(told) + 1))


async def test_an_agent_that_stands_still_is_left_and_found_again(world: World):
    await world.start(**PINNED)
    port = free_port()
    one = await declare(world, f"http://127.0.0.1:{port}/events")
    async with world.reading(one) as reader, feed_process(port) as agent:
        await eventually(lambda: len(reader.of("AGENT_EVENT")) >= 5)
        agent.send(signal.SIGSTOP)
        await until_shown(world, one, reason="silent")  # three of its heartbeats later
        await until_shown(world, one, reason="no_answer")  # the kernel takes the connection, nobody answers
        count = len(reader.of("AGENT_EVENT"))
        agent.send(signal.SIGCONT)
        await until_shown(world, one, within_s=20, state="live")
        await eventually(lambda: len(reader.of("AGENT_EVENT")) >= count + 5)
        told = [data["data"] for data in reader.of("AGENT_EVENT")]
    assert told == list(range(1, len(told) + 1))


async def fleet(world: World, agent: FeedAgent) -> tuple[Workspace, list[GatewayProcess]]:
    """Two gateways; the first returned is the one that reads the feed."""
    one = await declare_with_two(world, agent)
    [visit] = agent.there
    holder = next(gateway for gateway in world.gateways if reads(gateway, visit))
    return one, sorted(world.gateways, key=lambda gateway: gateway is not holder)


async def declare_with_two(world: World, agent: FeedAgent) -> Workspace:
    await world.start(**PINNED)
    await world.start(**PINNED)
    one = await declare(world, agent.url)
    await until_shown(world, one, state="live")
    return one


def reads(gateway: GatewayProcess, visit: feeds.Visit) -> bool:
    """Whether this process has the other end of the connection."""
    return any(one.laddr == visit.peer for one in psutil.Process(gateway.pid).net_connections())


async def test_when_the_replica_that_reads_is_killed_another_one_does_within_the_lease(world: World):
    async with feeds.running() as agent:
        one, (holder, other) = await fleet(world, agent)
        async with world.reading(one, gateway=other) as reader:
            await agent.say(block("1", "e-1"))
            await eventually(lambda: len(reader.of("AGENT_EVENT")) == 1)
            began = time.monotonic()
            holder.send(signal.SIGKILL)
            await eventually(lambda: len(agent.visits) == 2 and agent.there)
            assert time.monotonic() - began < 2 + 1 + 2  # the lease, a turn, and a slow machine
            await agent.say(block("2", "e-2"))
            await eventually(lambda: len(reader.of("AGENT_EVENT")) == 2)
        assert agent.most == 1
        assert reads(other, agent.there[0])


async def test_a_replica_that_stood_still_finds_its_feed_taken_and_leaves_it(world: World):
    async with feeds.running() as agent:
        one, (holder, other) = await fleet(world, agent)
        holder.send(signal.SIGSTOP)
        try:
            await eventually(lambda: len(agent.visits) == 2)
            async with world.reading(one, gateway=other) as reader:
                await agent.say(block("1"))  # to both: one of them must not tell it
                await eventually(lambda: len(reader.of("AGENT_EVENT")) == 1)
                holder.send(signal.SIGCONT)
                await eventually(lambda: len(agent.there) == 1)
                await agent.say(block("2"))
                await eventually(lambda: len(reader.of("AGENT_EVENT")) >= 2)
                assert [told["data"] for told in reader.of("AGENT_EVENT")] == [1, 2]
        finally:
            holder.send(signal.SIGCONT)
        assert reads(other, agent.there[0])


async def test_a_replica_that_ends_lets_go_at_once_and_another_one_takes_it(world: World):
    async with feeds.running() as agent:
        _, (holder, other) = await fleet(world, agent)
        first = agent.there[0]
        began = time.monotonic()
        holder.send(signal.SIGTERM)
        await eventually(lambda: not first.is_there)
        assert time.monotonic() - began < 1.5  # a second, and a slow machine
        await eventually(lambda: len(agent.visits) == 2 and agent.there)
        assert reads(other, agent.there[0])
        assert agent.most == 1
        assert await holder.wait() == 0


async def test_a_feed_ends_with_its_workspace_on_whichever_replica_it_is(world: World):
    async with feeds.running() as agent:
        one, (_, other) = await fleet(world, agent)
        status, _, _ = await world.request("DELETE", f"/workspaces/{one.id}", gateway=other)
        assert status == 200
        began = time.monotonic()
        await eventually(lambda: not agent.there)
        assert time.monotonic() - began < 1.5  # a second, and a slow machine


async def test_who_takes_the_declaration_away_ends_the_feed(world: World):
    await world.start(**PINNED)
    async with feeds.running() as agent:
        one = await declare(world, agent.url)
        await eventually(lambda: agent.there)
        status, _, _ = await world.request("PATCH", f"/workspaces/{one.id}", json={"events_url": None})
        assert status == 200
        await eventually(lambda: not agent.there)
        assert await shown(world, one) is None


async def test_a_feed_that_must_not_be_called_is_refused_when_it_is_declared_and_when_it_is_read(world: World):
    await world.start(**PINNED)
    one = await world.workspace()
    status, body, _ = await register(world, one, "http://169.254.169.254/latest")
    assert (status, body["field"]) == (400, "events_url")
    async with feeds.running() as agent:
        one = await declare(world, agent.url)
        await eventually(lambda: agent.there)
        hosted = {**world.env, **PINNED, "GATEWAY_ALLOW_PRIVATE_AGENTS": "0"}
        assert await world.gateways[0].stop() == 0
        visits = len(agent.visits)
        async with process.serving(env=hosted) as gateway:  # a setting has changed since
            world.gateways = [gateway]
            await until_shown(world, one, state="gave_up", reason="unsafe_url")
            assert len(agent.visits) == visits


async def test_what_may_keep_its_type_does_so_under_our_stamp(world: World):
    await world.start(GATEWAY_FEED_TYPES="AGENT_MESSAGE", **QUICK)
    async with feeds.running() as agent:
        one = await declare(world, agent.url)
        async with world.reading(one) as reader:
            await eventually(lambda: agent.there and agent.visits)
            await agent.say(block('{"type":"AGENT_MESSAGE","data":{"message":"hi","workspace_id":"x"}}'))
            await agent.say(block('{"type":"CALL_ENDED","data":{"call_id":"x"}}'))
            await eventually(lambda: reader.of("AGENT_MESSAGE") and reader.of("AGENT_EVENT"))
        assert reader.of("AGENT_MESSAGE") == [{"message": "hi", "workspace_id": one.id}]
        assert reader.of("CALL_ENDED") == []


@pytest.mark.parametrize("said", [b":\n", b"id: 1\n\n", b"data\n"], ids=["comments", "ids", "too large"])
async def test_an_agent_that_talks_for_ever_takes_but_little_of_the_gateway(world: World, said: bytes):
    gateway = await world.start(**PINNED)
    many = chunk(said * (256 * 1024 // len(said)))

    async def talks(visit: Visit) -> None:
        await visit.say(HEAD)
        while True:
            await visit.say(many)

    async with feeds.running(talks) as agent:
        one = await declare(world, agent.url)
        await until_shown(world, one, state="live")
        process = psutil.Process(gateway.pid)
        before, began = sum(process.cpu_times()[:2]), time.monotonic()
        await asyncio.sleep(2)  # the time over which it is measured
        assert (sum(process.cpu_times()[:2]) - before) / (time.monotonic() - began) < 0.5
