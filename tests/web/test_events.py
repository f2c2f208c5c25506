"""Event streams as browsers read them: what was missed, then what happens, and the truth about what is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiohttp
import orjson
import pytest

from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World

BLOCK_S = 10.0
SOON_TRIMMED = 300
"""Events after which even a journal that is trimmed roughly has lost its oldest."""


class Browser:
    """Reads one stream, block by block."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self.response = response

    async def block(self) -> dict[str, str]:
        """The fields of the next block; a comment is the field "". Raises EOFError at the end."""
        fields: dict[str, str] = {}
        async with asyncio.timeout(BLOCK_S):
            while line := (await self.response.content.readline()).decode():
                if line == "\n":
                    return fields
                name, _, value = line.removesuffix("\n").partition(": ")
                fields[name.rstrip(":") if value == "" else name] = value
        raise EOFError

    async def event(self, type_: str) -> tuple[str, dict[str, Any]]:
        """The id and data of the next event of this type, or of this `event:` name; others but gaps are passed over."""
        while True:
            block = await self.block()
            if "data" not in block:
                continue
            told = orjson.loads(block["data"])
            if type_ in (told.get("type"), block.get("event")):
                return block["id"], told
            assert block.get("event") != "gap"

    async def task(self) -> tuple[str, str]:
        """The id of the next event that tells of a task, and the task."""
        id_, told = await self.event("TASK_UPDATED")
        return id_, told["data"]["current_task"]

    async def to_the_end(self) -> None:
        """Read until the stream ends."""
        with suppress(EOFError):
            while True:
                await self.block()


@asynccontextmanager
async def reading(
    world: World, of: Workspace, *, gateway: GatewayProcess | None = None, since: str | None = None
) -> AsyncIterator[Browser]:
    headers = of.bearer if since is None else {**of.bearer, "Last-Event-ID": since}
    url = (gateway or world.gateways[0]).url
    async with world.session.get(f"{url}/workspaces/{of.id}/events/stream", headers=headers) as response:
        assert response.status == 200
        assert response.content_type == "text/event-stream"
        assert response.headers["Cache-Control"] == "no-cache, no-store, no-transform"
        browser = Browser(response)
        assert 2000 <= int((await browser.block())["retry"]) < 4000
        yield browser


async def work(world: World, on: Workspace, *tasks: str, gateway: GatewayProcess | None = None) -> None:
    for task in tasks:
        assert await world.beat(on, gateway=gateway, current_task=task) == 200


async def test_a_reader_hears_its_workspace_and_no_other(world: World):
    await world.start()
    mine, other = await world.workspace(), await world.workspace()
    async with reading(world, mine) as browser:
        await work(world, other, "not for me")
        await work(world, mine, "for me")
        id_, told = await browser.event("TASK_UPDATED")
    assert id_
    assert set(told) == {"type", "timestamp", "data", "workspace_id"}
    assert (told["workspace_id"], told["data"]["current_task"]) == (mine.id, "for me")
    assert told["timestamp"] > 1.7e12


async def test_a_reader_hears_what_other_gateways_were_told(world: World):
    first, second = await world.start(), await world.start()
    mine = await world.workspace()
    async with reading(world, mine, gateway=first) as browser:
        await work(world, mine, "elsewhere", gateway=second)
        assert (await browser.task())[1] == "elsewhere"


async def test_a_reader_that_comes_back_gets_what_it_missed_once_each_and_then_the_present(world: World):
    await world.start()
    mine, other = await world.workspace(), await world.workspace()
    async with reading(world, mine) as browser:
        await work(world, mine, "1")
        last, task = await browser.task()
        assert task == "1"
    for number in range(2, 8):
        await work(world, mine, str(number))
        await work(world, other, str(number))
    async with reading(world, mine, since=last) as browser:
        await work(world, mine, "8", "9")
        told = [await browser.task() for _ in range(8)]
    assert [task for _, task in told] == [str(number) for number in range(2, 10)]
    assert len({id_ for id_, _ in told}) == 8


async def test_a_reader_that_comes_back_too_late_is_told_of_the_gap(world: World):
    await world.start(GATEWAY_JOURNAL_LENGTH="1")
    mine = await world.workspace()
    async with reading(world, mine) as browser:
        await work(world, mine, "first")
        first, _ = await browser.task()
        await work(world, mine, *map(str, range(SOON_TRIMMED)))
        while (await browser.task())[1] != str(SOON_TRIMMED - 1):
            pass
    async with reading(world, mine, since=first) as browser:
        _, gap = await browser.event("gap")
    assert (gap["reason"], gap["from"]) == ("trimmed", first)


@pytest.mark.parametrize("since", ["nonsense", "é", "1-", "99999999999999-0"])
async def test_a_reader_with_an_id_that_is_not_held_is_told_of_the_gap(world: World, since: str):
    await world.start()
    mine = await world.workspace()
    await work(world, mine, "start")
    async with reading(world, mine, since=since) as browser:
        _, gap = await browser.event("gap")
        await work(world, mine, "later")
        assert (await browser.task())[1] == "later"
    assert gap["reason"] in ("unknown_id", "trimmed")
    assert gap["resync"] == f"/workspaces/{mine.id}"


async def test_a_silent_stream_is_kept_alive_by_comments(world: World):
    await world.start(GATEWAY_SSE_KEEPALIVE_SECONDS="0.2")
    mine = await world.workspace()
    async with reading(world, mine) as browser:
        while "" not in await browser.block():
            pass


async def test_one_reader_too_many_is_asked_to_come_back_and_a_free_place_is_given_away(world: World):
    await world.start(GATEWAY_MAX_READERS="1")
    mine = await world.workspace()
    async with reading(world, mine) as first:
        async with reading(world, mine) as excess:
            await excess.to_the_end()
        await work(world, mine, "a")
        assert (await first.task())[1] == "a"
    async with asyncio.timeout(BLOCK_S):
        while True:  # the gateway finds out within a second that the first one has gone
            async with reading(world, mine) as second:
                with suppress(EOFError):
                    assert await second.block() == {"": "ok"}
                    return


async def test_streams_end_when_the_gateway_goes_away(world: World):
    gateway = await world.start()
    mine = await world.workspace()
    async with reading(world, mine) as browser:
        assert await gateway.stop() == 0
        await browser.to_the_end()
