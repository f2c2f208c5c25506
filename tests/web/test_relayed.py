"""web.relayed: what readers of agents' streams send and get."""

import asyncio

import pytest
from aiohttp import web

from tests.e2e.test_streams import OPERATOR, agent_of, asked, events, open_stream, update
from tests.harness.world import World, until


async def finished(world: World) -> tuple[str, str]:
    """A workspace, and a call to it whose stream has ended."""

    async def script(response: web.StreamResponse, _: bytes) -> None:
        await response.write(update(1) + update(2, final=True))

    target, _ = await agent_of(world, script)
    async with open_stream(world, target) as response:
        await response.read()
        return target.id, response.headers["X-A2A-Call-ID"]


async def test_a_stream_is_followed_from_where_its_reader_is(world: World):
    await world.start()
    target, call_id = await finished(world)
    path = f"/workspaces/{target}/a2a/calls/{call_id}/stream"
    for since, ids in ((None, [1, 2]), (f"{call_id}-1", [2])):
        _, body, headers = await world.request("GET", path, headers={"Last-Event-ID": since})
        assert [id_ for id_, _ in events(body)] == [f"{call_id}-{n}" for n in ids]
        assert headers["X-A2A-Call-ID"] == call_id
    _, body, _ = await world.request("GET", f"{path}?last_event_id={call_id}-1")
    assert len(events(body)) == 1
    assert (await world.request("GET", path, headers={"Last-Event-ID": f"{call_id}-2"}))[:2] == (204, b"")


@pytest.mark.parametrize("since", ["1", "another-1", "x" * 300, "{call_id}", "{call_id}-", "{call_id}-0x1"])
async def test_an_id_that_is_none_of_this_call_is_refused(world: World, since: str):
    await world.start()
    target, call_id = await finished(world)
    status, said, _ = await world.request(
        "GET",
        f"/workspaces/{target}/a2a/calls/{call_id}/stream",
        headers={"Last-Event-ID": since.format(call_id=call_id)},
    )
    assert (status, said["code"], said["field"]) == (400, "invalid_request", "Last-Event-ID")


async def test_a_call_that_was_answered_at_once_has_no_stream(world: World):
    await world.start()
    agent = await world.agent()
    target = await world.workspace(agent.url)
    _, _, headers = await world.call(target)
    path = f"/workspaces/{target.id}/a2a/calls/{headers['X-A2A-Call-ID']}/stream"
    status, said, _ = await until(lambda: world.request("GET", path), lambda got: got[0] != 404)
    assert (status, said["code"]) == (409, "no_stream")


async def test_who_has_no_part_in_a_call_does_not_see_its_stream(world: World):
    await world.start()
    target, call_id = await finished(world)
    stranger = await world.workspace()
    path = f"/workspaces/{target}/a2a/calls/{call_id}/stream"
    assert (await world.request("GET", path, headers=stranger.bearer))[0] == 404
    assert (await world.request("GET", path, headers={"Authorization": None}))[0] == 401


async def test_a_silent_stream_is_kept_alive_by_comments_without_a_blank_line(world: World):
    await world.start(GATEWAY_SSE_KEEPALIVE_SECONDS="0.2")
    go = asyncio.Event()

    async def script(response: web.StreamResponse, _: bytes) -> None:
        await response.write(update(1))
        await go.wait()
        await response.write(update(2, final=True))

    target, _ = await agent_of(world, script)
    async with open_stream(world, target) as response:
        await response.content.readuntil(b"\n\n")
        async with asyncio.timeout(10):
            assert await response.content.readexactly(4) == b":\n:\n"
        go.set()
        assert b"\n\n:" not in await response.read()


async def test_more_streams_than_there_are_places_for_are_asked_to_come_back(world: World):
    await world.start(GATEWAY_MAX_READERS="1")
    go = asyncio.Event()

    async def script(response: web.StreamResponse, _: bytes) -> None:
        await response.write(update(1))
        await go.wait()
        await response.write(update(2, final=True))

    target, _ = await agent_of(world, script)
    async with open_stream(world, target, body=asked()) as response:
        call_id = response.headers["X-A2A-Call-ID"]
        path = f"{world.url}/workspaces/{target.id}/a2a/calls/{call_id}/stream"
        async with world.session.get(path, headers=OPERATOR) as first:
            await first.content.readuntil(b"\n\n")
            async with world.session.get(path, headers=OPERATOR) as second:
                assert (second.status, (await second.json())["code"]) == (503, "overloaded")
            go.set()
            assert len(events(await first.read())) == 1
        async with world.session.get(path, headers=OPERATOR) as third:
            assert len(events(await third.read())) == 2
