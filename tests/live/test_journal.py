"""The journals of streams, on a real Valkey."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from gateway.live import journal as journals
from gateway.live.journal import Journal
from gateway.ports import LiveUnavailable, Passage, StreamHead
from gateway.services.loops import Loops
from gateway.services.outage import Outage
from gateway.services.tasks import Tasks
from tests.harness import valkey as valkeys
from tests.harness.world import eventually, until

PREFIX = "journals"


def head(call_id: str) -> StreamHead:
    return StreamHead(
        call_id=call_id, workspace_id="w", status=200, headers={"A2A-Version": "1.0"}, id_json=b"18446744073709551616"
    )


async def connected(stack: AsyncExitStack, valkey_url: str, prefix: str, **options: float) -> Journal:
    given = {"answer_s": 5.0, "kept_s": 60.0, "entries": 100, "limit_bytes": 10_000, **options}
    journal = await stack.enter_async_context(journals.opened(valkey_url, prefix=prefix, **given))  # type: ignore[arg-type]
    tasks = await stack.enter_async_context(Tasks())
    tasks.spawn(journal.run(), "journal")
    await eventually(lambda: journal._pipe.is_up)
    return journal


@pytest.fixture
async def pair(valkey_url: str) -> AsyncIterator[tuple[Journal, Journal]]:
    """The journals of two replicas."""
    prefix = uuid4().hex
    async with AsyncExitStack() as stack:
        yield await connected(stack, valkey_url, prefix), await connected(stack, valkey_url, prefix)


async def test_another_replica_reads_what_one_writes(pair):
    one, other = pair
    assert await other.find("c") is None
    assert await other.read("c", 0, at_most=1000) == Passage()
    one.begin(head("c"))
    one.name("w", "task", "c")
    for n in range(1, 6):
        one.append("c", n, b"event \xff %d" % n)
    await until(lambda: other.read("c", 0, at_most=1000), lambda got: len(got.events) == 5)
    assert await other.find("c") == head("c")
    assert await other.find_call("w", "task") == "c"
    assert await other.find_call("another", "task") is None
    got = await other.read("c", 3, at_most=1000)
    assert got == Passage(events=((4, b"event \xff 4"), (5, b"event \xff 5")))
    one.end("c", 6, b'{"code":1}')
    await until(lambda: other.read("c", 5, at_most=1000), lambda got: got.ended)
    assert await other.read("c", 4, at_most=1000) == Passage(
        events=((5, b"event \xff 5"),), ended=True, number=6, error=b'{"code":1}'
    )


async def test_a_reader_gets_no_more_at_once_than_it_wants(pair):
    one, other = pair
    one.begin(head("c"))
    for n in range(1, 11):
        one.append("c", n, b"x" * 100)
    one.end("c", 11, None)
    await until(lambda: other.read("c", 10, at_most=1), lambda got: got.ended)
    got = await other.read("c", 0, at_most=250)
    assert ([number for number, _ in got.events], got.ended) == ([1, 2], False)
    got = await other.read("c", 0, at_most=10)
    assert [number for number, _ in got.events] == [1], "however long that is"


async def test_a_stream_has_one_end_whoever_writes_it(pair):
    one, other = pair
    one.begin(head("c"))
    one.append("c", 1, b"x")
    await until(lambda: other.read("c", 0, at_most=1), lambda got: got.events)
    other.end("c", None, None)
    await until(lambda: one.read("c", 1, at_most=1), lambda got: got.ended)
    one.append("c", 2, b"late")
    await eventually(lambda: one.lost == 1)
    one.end("c", 3, b"{}")
    await eventually(lambda: one._ends)
    assert await other.read("c", 0, at_most=100) == Passage(events=((1, b"x"),), ended=True, number=2, interrupted=True)


async def test_a_call_that_never_streamed_gets_no_journal_from_its_end(pair, valkey_url):
    one, other = pair
    one.end("c", None, None)
    assert await other.read("c", 0, at_most=1) == Passage()
    async with Redis.from_url(valkey_url) as client:
        assert await client.keys(f"{one._prefix}*") == []


async def test_of_a_long_stream_the_newest_is_kept(pair):
    one, other = pair
    one.begin(head("c"))
    for n in range(1, 301):
        one.append("c", n, b"x" * 10)
    await until(lambda: other.read("c", 299, at_most=1), lambda got: got.events)
    assert (await other.read("c", 0, at_most=1)).events[0][0] == 201
    one.begin(head("d"))
    for n in range(1, 31):
        one.append("d", n, b"x" * 1000)
    await until(lambda: other.read("d", 29, at_most=1), lambda got: got.events)
    assert (await other.read("d", 0, at_most=1)).events[0][0] == 21


async def test_nothing_is_kept_for_ever(pair, valkey_url):
    one, _ = pair
    one.begin(head("c"))
    one.name("w", "task", "c")
    one.append("c", 1, b"x")
    one.end("c", 2, None)
    async with Redis.from_url(valkey_url) as client:
        keys = await until(lambda: client.keys(f"{one._prefix}*"), lambda keys: len(keys) == 3)
        await until(lambda: lives(client, keys), lambda all_: all(0 < ms <= 60_000 for ms in all_))


async def lives(client: Redis, keys: list[bytes]) -> list[int]:
    return [await client.pttl(key) for key in keys]


async def test_a_stream_that_is_silent_for_long_keeps_its_journal(valkey_url):
    async with AsyncExitStack() as stack:
        journal = await connected(stack, valkey_url, uuid4().hex, kept_s=0.6)
        loops = await stack.enter_async_context(Loops())
        loops.every(journal.renew_s, journal.renew, "renew", "Keeps journals.", outage=Outage("keeping journals"))
        journal.begin(head("c"))
        journal.append("c", 1, b"x")
        client = await stack.enter_async_context(Redis.from_url(valkey_url))
        renewed = 0

        async def grown() -> int:
            nonlocal renewed
            before = await client.pttl(journal._head("c"))
            renewed += before > 500
            return renewed

        await until(grown, lambda count: count >= 30)
        assert await journal.find("c") == head("c")
        journal.end("c", 2, None)
        await until(lambda: journal.find("c"), lambda found: found is None)


async def test_an_end_that_could_not_be_written_is_written_once_redis_is_back(valkey_url):
    async with AsyncExitStack() as stack:
        prefix = uuid4().hex
        one = await connected(stack, valkey_url, prefix)
        one.begin(head("c"))
        one.append("c", 1, b"x")
        await until(lambda: one.read("c", 0, at_most=1), lambda got: got.events)
        one._pipe._give_up()
        one.end("c", 2, None)
        assert one._ends
        await eventually(lambda: one._pipe.is_up)
        await until(lambda: one.read("c", 1, at_most=1), lambda got: got.ended)


async def test_while_redis_is_away_nothing_waits_and_the_hole_is_counted(valkey_url):
    async with journals.opened(
        valkey_url, prefix=PREFIX, answer_s=1.0, kept_s=60.0, entries=10, limit_bytes=1000
    ) as journal:  # it is not connected yet
        journal.begin(head("c"))
        journal.append("c", 1, b"x")
        journal.end("c", 2, None)
        assert journal.lost == 1
        with pytest.raises(LiveUnavailable):
            await journal.find("c")


async def test_a_journal_with_a_hole_says_so_as_soon_as_redis_is_back_and_keeps_its_end(stack_of_one):
    broker, one, other = stack_of_one
    for call_id in ("c", "d"):
        one.begin(head(call_id))
        one.append(call_id, 1, b"x")
    await eventually(lambda: one.written("c") == one.written("d") == 1)
    broker.kill()
    await eventually(lambda: not one._pipe.is_up and not other._pipe.is_up)
    one.append("c", 2, b"y")
    one.append("d", 2, b"y")
    assert one.written("c") is None
    one.end("d", 3, b"{}")
    await broker.start()
    await eventually(lambda: one._pipe.is_up and other._pipe.is_up)
    got = await until(lambda: other.read("c", 0, at_most=100), lambda got: got.ended)
    assert got.events == ((1, b"x"),)
    assert got.number > 2
    got = await until(lambda: other.read("d", 0, at_most=100), lambda got: got.ended and got.error)
    assert got == Passage(events=((1, b"x"),), ended=True, number=3, error=b"{}")


@pytest.fixture
async def stack_of_one() -> AsyncIterator[tuple[valkeys.Valkey, Journal, Journal]]:
    """A Valkey of the test's own, and the journals of two replicas."""
    async with valkeys.running() as broker, AsyncExitStack() as stack:
        yield broker, await connected(stack, broker.url, PREFIX), await connected(stack, broker.url, PREFIX)


async def test_what_is_acknowledged_is_known_and_nothing_is_after_the_end(pair):
    one, _ = pair
    assert one.written("c") is None
    one.begin(head("c"))
    assert one.written("c") == 0
    one.append("c", 1, b"x")
    await eventually(lambda: one.written("c") == 1)
    one.end("c", 2, None)
    assert one.written("c") is None


async def test_a_task_is_found_as_long_as_its_stream(valkey_url):
    async with AsyncExitStack() as stack:
        prefix = uuid4().hex
        one = await connected(stack, valkey_url, prefix, kept_s=1.0)
        other = await connected(stack, valkey_url, prefix, kept_s=60.0)
        one.begin(head("c"))
        one.name("w", "task", "c")
        one.append("c", 1, b"x")
        async with Redis.from_url(valkey_url) as client:

            async def left_ms() -> int:
                return int(await client.pttl(one._task("w", "task")))

            await until(left_ms, lambda left: 0 < left < 700)
            await one.renew()
            await until(left_ms, lambda left: left > 900)
        assert await other.find_call("w", "task") == "c"


async def test_what_is_added_to_a_call_is_read_from_any_place_and_bounded(pair):
    one, other = pair
    assert await other.list_added("c", "") == []
    for n in range(3):
        await one.add("c", b"event %d" % n)
    first, *rest = await other.list_added("c", "")
    assert [event for _, event in (first, *rest)] == [b"event 0", b"event 1", b"event 2"]
    assert await other.list_added("c", first[0]) == rest
    for _ in range(30):
        await one.add("c", b"x" * 1000)
    assert len(await other.list_added("c", "")) == 10, "no more than a journal may take"


async def test_redis_is_asked_for_no_more_than_a_reader_takes(stack_of_one):
    broker, one, other = stack_of_one
    one.begin(head("c"))
    for n in range(1, 101):
        one.append("c", n, b"x" * 100)
    one.end("c", 101, None)
    await until(lambda: other.read("c", 100, at_most=1), lambda got: got.ended)

    async with Redis.from_url(broker.url) as client:
        before = (await client.info("stats"))["total_net_output_bytes"]
        after, got = 0, Passage()
        while not got.ended:
            got = await other.read("c", after, at_most=200)
            after = got.events[-1][0] if got.events else after
        told = (await client.info("stats"))["total_net_output_bytes"] - before
    assert after == 100
    assert told < 3 * 100 * 100, "whoever reads a long stream by pieces fetches each event once"


async def test_a_stream_that_is_ahead_of_redis_is_known_and_one_beside_it_is_not(stack_of_one):
    broker, one, _ = stack_of_one
    for call_id in ("fast", "slow"):
        one.begin(head(call_id))
    broker.stall()
    one.append("slow", 1, b"x" * 1000)
    for n in range(1, 5):
        one.append("fast", n, b"x" * 1024 * 1024)
        assert not one.is_ahead("slow")
    one.append("fast", 5, b"x" * 1024)
    assert (one.is_ahead("fast"), one.is_ahead("slow"), one.is_ahead("none")) == (True, False, False)
    broker.go_on()
    async with asyncio.timeout(10):
        await one.catch_up("fast")
    assert not one.is_ahead("fast")
    await eventually(lambda: one.written("slow") == 1 and one.written("fast") == 5)
    assert one._ahead == 0
    broker.stall()
    for n in range(6, 12):
        one.append("fast", n, b"x" * 1024 * 1024)
    assert one.is_ahead("fast")
    broker.kill()
    async with asyncio.timeout(10):
        await one.catch_up("fast")
    assert one._ahead == 0
