"""Those who do not keep up, those who are gone, and those who hear nothing, beside those who read."""

import asyncio
import socket
from typing import Final

import pytest

from tests.harness import hall
from tests.harness.world import eventually

LARGE: Final = "x" * 60_000
"""Some of these are more than the kernel holds for a reader that does not read."""
MANY: Final = 150


async def tell_many(house: hall.Hall, brisk: hall.Listener) -> None:
    """Let much happen, as fast as the brisk one reads."""
    for _ in range(MANY):
        house.tell(LARGE)
        await eventually(lambda: len(brisk.events) == house.told)


async def test_a_slow_reader_gets_everything_once_and_in_order_and_the_others_do_not_notice():
    async with hall.running() as house, house.reading() as brisk, house.reading(slow=True) as slow:
        await tell_many(house, brisk)
        assert house.hub.lagging == house.hub.fallen_behind == 1
        assert brisk.numbers == list(range(1, MANY + 1))
        assert not brisk.gaps
        assert slow.numbers == []


async def test_a_slow_reader_that_reads_again_catches_up_and_keeps_up():
    async with hall.running() as house, house.reading() as brisk, house.reading(slow=True) as slow:
        await tell_many(house, brisk)
        assert house.hub.lagging == 1
        slow.begin()
        await eventually(lambda: house.hub.lagging == 0)
        house.tell("the present")
        await eventually(lambda: len(slow.events) == len(brisk.events) == house.told)
        assert slow.numbers == brisk.numbers == list(range(1, MANY + 2))
        assert not slow.gaps
        assert house.hub.fallen_behind == 1


async def test_a_reader_that_is_overrun_is_told_where_the_gap_begins_and_ends():
    held = 20
    async with hall.running(frames=held) as house, house.reading() as brisk, house.reading(slow=True) as slow:
        await tell_many(house, brisk)
        slow.begin()
        await eventually(lambda: slow.numbers[-1:] == [MANY])
        [gap] = slow.gaps
        got = slow.numbers[:-held]
        assert slow.numbers[-held:] == list(range(MANY - held + 1, MANY + 1))
        assert got == list(range(1, len(got) + 1))
        assert gap == {"reason": "overrun", "from": f"{got[-1]}-0", "to": f"{MANY - held}-0", "resync": "/workspaces"}


@pytest.mark.parametrize("kernel_looks_too", [True, False])
async def test_a_reader_that_takes_nothing_is_let_go_and_nobody_else(
    monkeypatch: pytest.MonkeyPatch, kernel_looks_too: bool
):
    if not kernel_looks_too:
        monkeypatch.delattr(socket, "TCP_USER_TIMEOUT", raising=False)
    async with hall.running(drain_s=0.3) as house, house.reading() as brisk, house.reading(slow=True) as dead:
        await tell_many(house, brisk)
        await eventually(lambda: len(house.streams) == 1)
        house.tell()
        await eventually(lambda: len(brisk.events) == house.told)
        dead.begin()
        await eventually(lambda: dead.cut or dead.ended)
        assert dead.cut
        assert len(dead.events) < MANY


async def test_a_reader_that_has_gone_is_found_within_a_second_or_so_though_nothing_happens():
    async with hall.running() as house:
        async with house.reading():
            assert len(house.streams) == house.hub.readers == 1
        await eventually(lambda: len(house.streams) == house.hub.readers == 0, within_s=3)


async def test_a_reader_that_knows_more_than_this_process_waits_for_it_to_catch_up():
    async with hall.running() as house, house.reading(since="2-0") as reader:
        for _ in range(4):
            house.tell()
            await asyncio.sleep(0)
        await eventually(lambda: reader.numbers[-1:] == [4])
        assert reader.numbers == [3, 4]
        assert not reader.gaps


async def test_a_silent_stream_moves_the_cursor_of_its_reader_without_an_event():
    async with hall.running(keepalive_s=0.1) as house, house.reading(query="?type=CALL_ENDED") as reader:
        house.tell()
        await eventually(lambda: reader.cursors)
        assert reader.cursors[0] == "1-0"
        assert reader.events == []


@pytest.mark.parametrize("slow", [False, True])
async def test_all_streams_end_when_they_are_closed_and_new_ones_are_sent_away(slow: bool):
    async with hall.running() as house, house.reading(slow=slow) as reader:
        if slow:
            reader.begin()
            await eventually(lambda: reader.opened)
        house.tell()
        await eventually(lambda: reader.numbers == [1])
        await house.streams.close()
        await eventually(lambda: reader.ended)
        async with house.reading(slow=True) as late:
            late.begin()
            await eventually(lambda: late.ended)
            assert not late.opened
