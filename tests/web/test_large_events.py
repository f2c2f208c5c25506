"""Events too large for the journal: whole to everybody who reads them, in their turn, and cheap for everybody else."""

import json
from contextlib import AsyncExitStack
from typing import Final

import orjson
from aiohttp import WSMsgType, web

from tests.harness import hall
from tests.harness.reader import Reader
from tests.harness.world import World, eventually

LARGE: Final = "ü" * 1_500_000
"""3 MB of text whose characters are split by parts of any size."""


async def test_a_large_event_arrives_whole_and_in_its_turn():
    async with hall.running() as house, house.reading() as first, house.reading() as second:
        for text in ("before", LARGE, "after"):
            house.tell(text)
        await eventually(lambda: len(first.events) == len(second.events) == house.told)
        house.tell("later")
        await eventually(lambda: len(first.events) == len(second.events) == house.told)
        for reader in (first, second):
            assert reader.numbers == [1, 2, 3, 4]
            assert reader.events[1]["data"] == {"number": 2, "text": LARGE}
        assert house.fetches == 1
        assert house.hub.lagging == 0


async def test_one_who_reads_it_later_gets_it_whole_without_another_fetch_and_cut_short_once_it_is_gone():
    async with hall.running() as house, house.reading() as present:
        house.tell("before")
        house.tell(LARGE)
        house.tell(LARGE)
        await eventually(lambda: len(present.events) == house.told)
        async with house.reading(since="1-0") as back:
            await eventually(lambda: len(back.events) == 2)
            assert back.events == present.events[1:]
            assert house.fetches == 2
        house.wholes.clear()
        house.bodies._known.clear()
        async with house.reading(since="1-0") as late:
            await eventually(lambda: len(late.events) == 2)
            cut = late.events[0]["data"]
            assert cut["truncated"] is True
            assert cut["number"] == 2
            assert LARGE.startswith(cut["text"])
            assert house.bodies.missed == 2


async def test_nobody_who_does_not_want_it_makes_it_fetched():
    async with hall.running() as house, house.reading(query="?type=CALL_ENDED") as other:
        house.tell(LARGE)
        house.tell("small")
        await eventually(lambda: house.hub.lagging == 0)
        assert house.fetches == 0
        assert other.events == []


async def test_readers_that_do_not_read_cost_a_buffer_each_and_not_the_whole_event():
    async with hall.running() as house, house.reading() as brisk, AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(house.reading(slow=True)) for _ in range(20)]
        house.tell(LARGE)
        await eventually(lambda: brisk.numbers == [1])
        assert house.unread_bytes < 20 * 3 * 64 * 1024
        for reader in slow:
            reader.begin()
        await eventually(lambda: all(reader.numbers == [1] for reader in slow))
        assert all(reader.events == brisk.events for reader in slow)


async def test_a_socket_gets_it_whole_between_its_pings_and_whatever_it_asks_for_meanwhile():
    async with hall.running(ping_s=0.5) as house, house.socket() as client:
        house.tell("before")
        assert (await client.receive_json())["payload"]["number"] == 1
        house.tell(LARGE)
        await client.send_json({"resume": "0-0"})
        numbers: list[int] = []
        while numbers[-2:] != [1, 2]:  # what was under way when it asked may come before
            message = await client.receive()
            assert message.type is WSMsgType.TEXT, message
            said = orjson.loads(message.data)["payload"]
            assert said["text"] == ("before" if said["number"] == 1 else LARGE)
            numbers.append(said["number"])


async def test_a_browsers_late_reply_of_three_megabytes_reaches_readers_of_another_replica(world: World):
    here, there = await world.start(), await world.start()
    answered = await world.agent(_answer_much)
    target = await world.workspace(answered.url)
    url = f"{there.url}/ws?workspace={target.id}&type=A2A_RESPONSE"
    async with (
        world.reading(target, gateway=there) as reader,
        world.session.ws_connect(url, headers=target.bearer, max_msg_size=0) as socket,
    ):
        status, body, _ = await world.call(target, gateway=here)
        assert status == 200
        await eventually(lambda: reader.of("A2A_RESPONSE"))
        assert reader.of("A2A_RESPONSE")[0]["response_body"] == body
        assert (await socket.receive_json())["payload"]["response_body"] == body
        async with world.reading(target, gateway=here, since="0-0") as late:
            await eventually(lambda: late.of("A2A_RESPONSE"))
            assert late.of("A2A_RESPONSE") == reader.of("A2A_RESPONSE")
        assert [one["response_body"].get("truncated") for one in _logged(reader)] == [True]


async def _answer_much(_: web.Request) -> web.StreamResponse:
    """Pretty-printed, with a number that no double holds."""
    answer = {"jsonrpc": "2.0", "id": "1", "result": {"text": LARGE, "big": 2**70}}
    return web.Response(text=json.dumps(answer, indent=2, ensure_ascii=False), content_type="application/json")


def _logged(reader: Reader) -> list[dict[str, dict[str, object]]]:
    return [one for one in reader.of("ACTIVITY_LOGGED") if one["activity_type"] == "a2a_receive"]
