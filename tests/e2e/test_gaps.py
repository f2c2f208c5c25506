"""What readers are told of a loss, through the front door: what it is, once, whichever replica they come back to."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import aiohttp
import pytest

from tests.harness import valkey as valkeys
from tests.harness.process import GatewayProcess
from tests.harness.reader import Reader
from tests.harness.valkey import Valkey
from tests.harness.world import ADMIN_TOKEN, Workspace, World, eventually

PROBE_S = "0.2"
HELD_S = 6.0
"""Longer than a reader is held for what only its replica does not know yet."""


@pytest.fixture
async def server(world: World) -> AsyncIterator[Valkey]:
    async with valkeys.running() as one:
        world.env |= {"GATEWAY_REDIS_URL": one.url, "GATEWAY_PROBE_SECONDS": PROBE_S}
        yield one


class Browser(Reader):
    """A reader of all that happens. `cursor`: the id that it comes back with."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        super().__init__()
        self.response = response
        self.cursor = ""
        self.states: list[str] = []

    def _take(self, block: str) -> None:
        fields = dict(line.split(": ", 1) for line in block.split("\n") if ": " in line)
        self.cursor = fields.get("id", self.cursor)
        if fields.get("event") == "bus":
            self.states.append(fields["data"])
        else:
            super()._take(block)

    @property
    def tasks(self) -> list[str]:
        return [told["current_task"] for told in self.of("TASK_UPDATED")]

    @property
    def reasons(self) -> list[str]:
        return [told["reason"] for told in self.gaps]


@asynccontextmanager
async def reading(world: World, gateway: GatewayProcess, since: str | None = None) -> AsyncIterator[Browser]:
    headers = {"Authorization": f"Bearer {ADMIN_TOKEN}"} | ({} if since is None else {"Last-Event-ID": since})
    async with world.session.get(f"{gateway.url}/events/stream", headers=headers) as response:
        browser = Browser(response)
        async with asyncio.TaskGroup() as group:
            task = group.create_task(browser.read(response.content))
            await eventually(lambda: browser.opened)
            yield browser
            task.cancel()


async def work(world: World, on: Workspace, *tasks: str, gateway: GatewayProcess) -> None:
    for task in tasks:
        assert await world.beat(on, gateway=gateway, current_task=task) == 200


async def passed(seconds: float) -> None:
    """Wait until so much time has passed, for what must not happen meanwhile."""
    until = time.monotonic() + seconds
    await eventually(lambda: time.monotonic() > until, within_s=seconds + 1)


async def test_a_newcomer_without_redis_holds_who_comes_back_until_it_knows_and_makes_no_gap_up(world, server):
    first = await world.start()
    mine = await world.workspace()
    async with reading(world, first) as browser:
        await work(world, mine, "1", gateway=first)
        await eventually(lambda: browser.tasks == ["1"])
        since = browser.cursor
        await work(world, mine, "2", "3", gateway=first)
        await eventually(lambda: browser.tasks == ["1", "2", "3"])
    await passed(1.5)  # what was published so shortly before a process began may be news to it
    server.stall()
    newcomer = await world.start()
    async with reading(world, newcomer, since) as back, reading(world, newcomer) as fresh:
        await eventually(lambda: back.states and fresh.states)
        await passed(HELD_S)
        assert (back.tasks, back.reasons) == ([], [])
        server.go_on()
        await work(world, mine, "4", gateway=first)
        await eventually(lambda: back.tasks == ["2", "3", "4"] and fresh.tasks[-1:] == ["4"])
        assert (back.reasons, fresh.tasks, fresh.reasons) == ([], ["4"], [])


@pytest.mark.parametrize("returns_to", ["the replica that it came from", "another", "a newcomer"])
async def test_who_was_away_while_redis_was_emptied_is_told_once_and_why(world, server, returns_to):
    first, second = await world.start(), await world.start()
    mine = await world.workspace()
    async with reading(world, first) as browser:
        await work(world, mine, "1", "2", gateway=first)
        await eventually(lambda: browser.tasks == ["1", "2"])
        since = browser.cursor
    async with reading(world, second) as stays:
        await work(world, mine, "3", gateway=first)
        await eventually(lambda: stays.tasks == ["3"])
        await server.do("FLUSHALL")
        await eventually(lambda: stays.reasons)
        await work(world, mine, "4", gateway=first)
        await eventually(lambda: stays.tasks == ["3", "4"])
        assert stays.reasons == ["taken_back"]
    is_new = returns_to == "a newcomer"
    gateway = await world.start() if is_new else first if returns_to == "the replica that it came from" else second
    async with reading(world, gateway, since) as back:
        await work(world, mine, "5", gateway=second)
        await eventually(lambda: back.tasks[-1:] == ["5"])
        assert back.reasons == (["unknown_id"] if is_new else ["taken_back"])
        assert back.tasks == (["5"] if is_new else ["3", "4", "5"])
    async with reading(world, await world.start(), back.cursor) as once_more:
        await work(world, mine, "6", gateway=second)
        await eventually(lambda: once_more.tasks == ["6"])
        assert once_more.reasons == []


async def test_the_id_of_a_gap_is_good_at_every_replica(world, server):
    first, second = await world.start(), await world.start()
    mine = await world.workspace()
    await work(world, mine, "1", gateway=first)
    async with reading(world, first, "0-0") as browser:
        await eventually(lambda: browser.tasks == ["1"])
        await server.do("FLUSHALL")
        await eventually(lambda: browser.reasons)
        assert browser.cursor != "0-0"
    await work(world, mine, "2", gateway=second)
    for gateway in (first, second, await world.start()):
        async with reading(world, gateway, browser.cursor) as back:
            await eventually(lambda back=back: back.tasks == ["2"])
            assert back.reasons == []


async def test_who_knows_no_id_gets_none_where_nothing_has_happened_yet(world, server):
    gateway = await world.start()
    async with reading(world, gateway, "nonsense") as browser:
        await eventually(lambda: browser.reasons == ["unknown_id"])
        assert browser.cursor == "", "0-0 would bring all that happens from here on a second time"
