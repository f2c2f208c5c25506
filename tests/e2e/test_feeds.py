"""Feeds through the front door: an agent's own events reach whoever reads, by one subscription of all replicas."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from gateway.services.tasks import Tasks
from tests.harness import feeds
from tests.harness.feeds import block, stays
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, eventually, until

QUICK: Final = {
    "GATEWAY_FEED_LEASE_SECONDS": "2",
    "GATEWAY_FEED_LINGER_SECONDS": "0.5",
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


@asynccontextmanager
async def calling(world: World, one: Workspace) -> AsyncIterator[None]:
    """Let a call be in flight while the block lasts."""

    async def call() -> None:
        await world.call(one)

    async with Tasks() as tasks:
        tasks.spawn(call(), "call")
        yield


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
