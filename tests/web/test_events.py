"""Event streams as browsers read them: what was missed, then what happens, and the truth about what is lost."""

import asyncio
import signal
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import uuid4

import aiohttp
import orjson
import pytest

from events.event import CATALOGUE
from tests.harness import valkey as valkeys
from tests.harness.process import GatewayProcess
from tests.harness.tasks import delegated
from tests.harness.world import ADMIN_TOKEN, Workspace, World

BLOCK_S = 10.0
OPERATOR = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
READERS = 20
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


@pytest.mark.parametrize("since", ["nonsense", "é", "1-", "1-1"])
async def test_a_reader_with_an_id_that_is_not_held_is_told_of_the_gap(world: World, since: str):
    await world.start()
    mine = await world.workspace()
    async with reading(world, mine) as browser:
        await work(world, mine, "start")
        assert (await browser.task())[1] == "start"
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


async def test_readers_leave_one_after_another_when_their_gateway_goes_and_none_loses_anything(world: World):
    going, staying = await world.start(GATEWAY_READER_SPREAD_SECONDS="1.5"), await world.start()
    mine = await world.workspace()
    tasks = [str(number) for number in range(60)]
    said_at_its_end: list[int] = []
    said = 0

    async def read() -> list[str]:
        heard: list[str] = []
        last: str | None = None
        for gateway in (going, staying):
            async with reading(world, mine, gateway=gateway, since=last) as browser:
                assert await browser.block() == {"": "ok"}
                began.release()
                with suppress(EOFError):
                    while heard[-1:] != tasks[-1:]:
                        last, task = await browser.task()
                        heard.append(task)
            said_at_its_end.append(said)
        return heard

    async def tell() -> None:
        nonlocal said
        for _ in range(READERS):
            await began.acquire()
        await work(world, mine, *tasks[:10], gateway=staying)
        going.send(signal.SIGTERM)
        for said in range(10, 60):
            await work(world, mine, tasks[said], gateway=staying)
            await asyncio.sleep(0.04)

    began = asyncio.Semaphore(0)
    *heard, _ = await asyncio.gather(*(read() for _ in range(READERS)), tell())
    assert heard == [tasks] * READERS
    assert len(set(said_at_its_end[:READERS])) > READERS // 4, "they ended at various times"
    assert await going.wait() == 0


@pytest.mark.parametrize("of_whom", ["the operator", "a workspace"])
async def test_a_gap_leads_to_what_its_reader_may_read(world: World, of_whom: str):
    await world.start()
    mine = await world.workspace()
    await world.workspace()
    headers = OPERATOR if of_whom == "the operator" else mine.bearer
    async with reading_all(world, headers, "?last_event_id=nonsense") as browser:
        _, gap = await browser.event("gap")
    assert gap["resync"] == ("/workspaces" if of_whom == "the operator" else "/workspaces/{workspace_id}")
    url = world.url + gap["resync"].format(workspace_id=mine.id)
    async with world.session.get(url, headers=headers) as answer:
        assert answer.status == 200


# -- everything that one may see


@asynccontextmanager
async def reading_all(
    world: World, headers: Mapping[str, str], query: str = "", *, gateway: GatewayProcess | None = None
) -> AsyncIterator[Browser]:
    url = (gateway or world.gateways[0]).url
    async with world.session.get(f"{url}/events/stream{query}", headers=headers) as response:
        assert response.status == 200, await response.text()
        browser = Browser(response)
        assert "retry" in await browser.block()
        assert await browser.block() == {"": "ok"}
        yield browser


async def test_the_operator_hears_all_workspaces(world: World):
    await world.start()
    one, other = await world.workspace(), await world.workspace()
    async with reading_all(world, OPERATOR) as browser:
        await work(world, one, "1")
        await work(world, other, "2")
        assert [(await browser.task())[1] for _ in range(2)] == ["1", "2"]


async def test_a_workspace_hears_those_that_it_may_talk_to_and_no_others(world: World):
    await world.start()
    mine, sibling = await world.workspace(), await world.workspace()
    child, foreign = await world.workspace(parent_id=mine.id), await world.workspace(parent_id=sibling.id)
    async with reading_all(world, mine.bearer) as browser:
        await work(world, foreign, "not for me")
        for number, one in enumerate((mine, sibling, child)):
            await work(world, one, str(number))
        assert [(await browser.task())[1] for _ in range(3)] == ["0", "1", "2"]
    async with reading_all(world, child.bearer) as browser:
        await work(world, sibling, "not for me")
        await work(world, mine, "for me")
        assert (await browser.task())[1] == "for me"


async def test_a_reader_hears_what_it_names_and_nothing_else(world: World):
    await world.start()
    first, second, third = [await world.workspace() for _ in range(3)]
    query = f"?workspace={first.id}&workspace={second.id.upper()}&type=TASK_UPDATED"
    async with reading_all(world, third.bearer, query) as browser:
        await work(world, third, "not named")
        await work(world, first, "1")
        await work(world, second, "2")
        told = [orjson.loads((await browser.block())["data"]) for _ in range(2)]
    assert [(one["type"], one["workspace_id"]) for one in told] == [
        ("TASK_UPDATED", first.id),
        ("TASK_UPDATED", second.id),
    ]


async def test_a_reader_of_one_workspace_hears_the_types_that_it_names_and_nothing_else(world: World):
    await world.start()
    mine = await world.workspace()
    url = f"{world.url}/workspaces/{mine.id}/events/stream"
    named = "?type=TASK_UPDATED&type=AGENT_CARD_UPDATED"
    async with world.session.get(url + named, headers=mine.bearer) as response:
        browser = Browser(response)
        assert [await browser.block() for _ in range(2)][1] == {"": "ok"}
        await work(world, mine, "1", "2")  # each is a heartbeat, too
        told = [orjson.loads((await browser.block())["data"]) for _ in range(2)]
    assert [(one["type"], one["data"]["current_task"]) for one in told] == [
        ("TASK_UPDATED", "1"),
        ("TASK_UPDATED", "2"),
    ]


async def test_who_names_no_event_is_told_which_there_are(world: World):
    await world.start()
    mine = await world.workspace()
    for path in ("/events/stream", f"/workspaces/{mine.id}/events/stream", "/ws"):
        async with world.session.get(f"{world.url}{path}?type=CALL_END", headers=OPERATOR) as response:
            said = await response.json()
            assert (response.status, said["field"]) == (400, "type")
            assert all(type_ in said["error"] for type_ in CATALOGUE)


async def remove(world: World, one: Workspace) -> None:
    status, _, _ = await world.request("DELETE", f"/workspaces/{one.id}", headers=OPERATOR)
    assert status == 200


async def test_events_hold_what_the_catalogue_says(world: World):
    await world.start()
    never = {type_ for type_, kind in CATALOGUE.items() if not kind.data}
    never.add("AGENT_EVENT")  # it comes from an agent's own feed: tests/e2e/test_feeds.py
    held: dict[str, set[str]] = {type_: set() for type_ in CATALOGUE.keys() - never}
    agent = await world.agent()
    async with reading_all(world, OPERATOR) as browser:
        for options in ({"external": False}, {"external": True}):
            status, _, _ = await world.request("POST", "/workspaces", headers=OPERATOR, json={"name": "n", **options})
            assert status == 201
        one = await world.workspace(agent.url)
        body = {"id": one.id, "url": agent.url, "agent_card": {"name": "x"}}
        for path, said in (("register", body), ("update-card", {"workspace_id": one.id, "agent_card": {"name": "y"}})):
            status, _, _ = await world.request("POST", f"/registry/{path}", headers=one.bearer, json=said)
            assert status == 200
        for rate in (0.9, 0.0):
            assert await world.beat(one, error_rate=rate, current_task=f"at {rate}") == 200
        await world.call(one)
        notice = {"message": "look", "attachments": [{"uri": "https://files.example/a", "name": "a"}]}
        assert (await world.request("POST", f"/workspaces/{one.id}/notify", headers=one.bearer, json=notice))[0] == 200
        target = await world.workspace(agent.url)
        await delegated(world, one, target)
        for status, fields in (("completed", {"response_preview": "done"}), ("failed", {"error": "no"})):
            id_ = str(uuid4())
            said = {"target_id": target.id, "task": "do", "delegation_id": id_}
            path = f"/workspaces/{one.id}/delegations"
            assert (await world.request("POST", f"{path}/record", headers=one.bearer, json=said))[0] == 202
            said = {"status": status, **fields}
            assert (await world.request("POST", f"{path}/{id_}/update", headers=one.bearer, json=said))[0] == 200
        await remove(world, one)
        while not (held["WORKSPACE_REMOVED"] and held["CALL_ENDED"]):
            told = orjson.loads((await browser.block())["data"])
            held[told["type"]] |= told["data"].keys()
    assert held == {type_: set(CATALOGUE[type_].data) for type_ in held}


async def test_a_stream_of_a_removed_workspace_ends_once_its_reader_has_been_told(world: World):
    for gateway in [await world.start(), await world.start()]:
        mine = await world.workspace()
        url = f"{gateway.url}/workspaces/{mine.id}/events/stream"
        async with world.session.get(url, headers=OPERATOR) as response:
            browser = Browser(response)
            assert [await browser.block() for _ in range(2)][1] == {"": "ok"}
            await remove(world, mine)
            last, told = await browser.event("WORKSPACE_REMOVED")
            assert told["workspace_id"] == mine.id
            await browser.to_the_end()
        async with world.session.get(url, headers={**OPERATOR, "Last-Event-ID": last}) as response:
            assert response.status == 410


async def test_who_reads_two_and_comes_back_after_one_was_removed_hears_of_it_and_of_the_other(world: World):
    await world.start()
    stays, goes = await world.workspace(), await world.workspace()
    query = f"?workspace={stays.id}&workspace={goes.id}"
    for headers in (OPERATOR, stays.bearer):
        async with reading_all(world, headers, query) as browser:
            await work(world, stays, f"1 {len(headers['Authorization'])}")
            last, _ = await browser.task()
            if headers is OPERATOR:
                await remove(world, goes)
                since = last
        async with reading_all(world, headers, f"{query}&last_event_id={since}") as browser:
            _, told = await browser.event("WORKSPACE_REMOVED")
            assert told["workspace_id"] == goes.id
            await work(world, stays, f"2 {len(headers['Authorization'])}")
            while not (await browser.task())[1].startswith("2 "):
                pass


async def test_a_stream_ends_when_what_its_reader_may_see_changes_and_the_next_one_resumes(world: World):
    first, second = await world.start(), await world.start()
    mine = await world.workspace()
    async with reading_all(world, mine.bearer, gateway=first) as browser:
        await work(world, mine, "seen")
        last, _ = await browser.task()
        newcomer = await world.workspace()
        await browser.to_the_end()
    await work(world, newcomer, "said by somebody new", gateway=second)
    async with reading_all(world, mine.bearer, f"?last_event_id={last}", gateway=first) as browser:
        assert (await browser.task())[1] == "said by somebody new"
        foreign = await world.workspace(parent_id=newcomer.id)
        await work(world, foreign, "not for me")
        await world.sql("update workspaces set status = 'removed', removed_at = now() where id = %s", newcomer.id)
        await browser.to_the_end()


async def test_a_reader_is_told_when_the_bus_is_lost_and_when_it_is_back(world: World):
    async with valkeys.running() as valkey:
        world.env["GATEWAY_REDIS_URL"] = valkey.url
        await world.start(GATEWAY_PROBE_SECONDS="0.2")
        mine = await world.workspace()
        async with (
            reading(world, mine) as browser,
            world.session.ws_connect(f"{world.url}/ws", headers=mine.bearer) as ws,
        ):
            valkey.stall()
            assert await state_told(browser) == "degraded"
            assert (await ws.receive_json(timeout=BLOCK_S))["payload"] == {"state": "degraded"}
            valkey.go_on()
            assert await state_told(browser) == "ok"
            assert (await ws.receive_json(timeout=BLOCK_S))["payload"] == {"state": "ok"}
            await work(world, mine, "after")
            assert (await browser.task())[1] == "after"


async def state_told(browser: Browser) -> str:
    """The state of the bus, once it is told."""
    while (block := await browser.block()).get("event") != "bus":
        assert block.get("event") != "gap"
    return str(orjson.loads(block["data"])["state"])
