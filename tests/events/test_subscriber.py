"""The subscriber, on servers that are stalled, killed, emptied and replaced: nothing is lost without a word."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack

import pytest
from redis.asyncio import Redis

from events import frame, redis
from events.event import GAP
from events.frame import ORIGIN, Position
from events.redis import JournalUnavailable
from events.subscriber import PROBES_MISSED, State
from tests.harness.proxy import Proxy
from tests.harness.replica import PROBE_S, Replica, numbered, replica
from tests.harness.valkey import Valkey, sentinel, valkey
from tests.harness.world import eventually

PREFIX = "test:{bus}"
JOURNAL = f"{PREFIX}:journal"
NOTICED_S = (PROBES_MISSED + 1) * PROBE_S
"""By when a silent connection must be noticed: as 6 s are to probes every 2 s."""


@pytest.fixture(autouse=True)
def _quick_answers(monkeypatch) -> None:
    """As probes come five times as often as in earnest, servers are given up sooner, too."""
    monkeypatch.setattr(redis, "ANSWER_S", 0.5)


@pytest.fixture
async def server(tmp_path) -> AsyncIterator[Valkey]:
    with valkey(tmp_path / "valkey") as one:
        await one.start()
        yield one


@pytest.fixture
async def operator(server) -> AsyncIterator["Redis[bytes]"]:
    """Somebody who does to the server what operators and accidents do."""
    async with Redis.from_url(server.url, protocol=2) as client:
        yield client


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def one(server, stack) -> Replica:
    """A replica that hears."""
    return await _up(stack, server.url)


async def _up(stack: AsyncExitStack, url: str, **options: int) -> Replica:
    one = await stack.enter_async_context(replica(url, PREFIX, **options))
    await eventually(lambda: one.is_up)
    return one


async def _add_unheard(operator: "Redis[bytes]", number: int) -> None:
    """Put an event into the journal that is published to nobody."""
    [(last, _)] = await operator.xrevrange(JOURNAL, count=1) or [(b"0-0", {})]
    await operator.xadd(JOURNAL, {"p": last, "f": frame.body(numbered(number))})


def _check_that_a_gap_follows(one: Replica, place: Position) -> None:
    """A reader who was at this place is told of the loss, whatever else it has missed."""
    assert one.ring.covers(place)
    assert one.ring.everything[one.ring.everything.after(place)].event.type == GAP


async def _until(ask: Callable[[], Awaitable[object]]) -> None:
    """Wait until a question is answered with something, by a server that may have to be found again."""
    deadline = time.monotonic() + 20
    while True:
        with contextlib.suppress(JournalUnavailable):
            if await ask():
                return
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.01)


async def _is_linked(second: "Redis[bytes]") -> bool:
    said = await second.info("replication")
    return said["master_link_status"] == "up"


async def _kill_listeners(operator: "Redis[bytes]") -> None:
    for connection in await operator.client_list(_type="pubsub"):
        await operator.client_kill_filter(_id=connection["id"])


async def test_what_one_publishes_all_hear(one, server, stack):
    other = await _up(stack, server.url)
    one.publish(*range(5))
    await other.heard(4)
    other.publish(*range(5, 10))
    for each in (one, other):
        await each.heard(9)
        assert each.story == [str(number) for number in range(10)]
        assert each.subscriber.repairs == each.subscriber.gaps == 0


async def test_who_starts_has_the_journal_and_so_have_readers_that_came_before_it_was_up(one, server, stack):
    one.publish(*range(5))
    await one.heard(4)
    late = await _up(stack, server.url)
    assert late.ring.newest == one.ring.newest
    assert late.ring.covers(ORIGIN)
    await late.heard(4)
    assert late.story == one.story


async def test_who_starts_on_a_trimmed_journal_does_not_say_that_it_covers_the_beginning(server, stack):
    one = await _up(stack, server.url, journal_length=10)
    one.publish(*range(500))
    await one.heard(499)
    late = await _up(stack, server.url)
    assert not late.ring.covers(ORIGIN)
    assert late.ring.covers(late.ring.floor)
    assert len(late.ring) < 500


async def test_a_killed_listener_repairs_itself_and_nobody_is_told_of_anything(one, operator):
    for round_ in range(5):
        one.publish(2 * round_)
        await _kill_listeners(operator)
        one.publish(2 * round_ + 1)
        await one.heard(2 * round_ + 1)
    await eventually(lambda: one.is_up)
    assert one.story == [str(number) for number in range(10)]


async def test_what_was_published_while_nobody_listened_is_repaired(one, server, operator, stack):
    proxy = await stack.enter_async_context(Proxy(server.port))
    other = await _up(stack, proxy.url)
    proxy.stall()
    one.publish(*range(50))
    await one.heard(49)
    assert other.numbers == []
    assert await other.blind_after() < NOTICED_S
    await eventually(lambda: other.state == "bus degraded")
    proxy.go_on()
    await other.heard(49)
    await eventually(lambda: other.state == "bus ok")
    assert other.numbers == list(range(50))
    assert other.gaps == []


async def test_a_stalled_server_is_noticed_and_no_loss(one, server):
    one.publish(0)
    await one.heard(0)
    server.stall()
    one.publish(1)
    assert await one.blind_after() < NOTICED_S
    one.publish(2)
    await eventually(lambda: one.bus.away)
    server.go_on()
    await one.heard(2)
    await eventually(lambda: one.is_up)
    assert one.numbers == [0, 1, 2]
    assert one.gaps == []
    assert one.subscriber.up.is_set()


async def test_a_server_that_was_killed_and_kept_all_is_said_to_be_another_and_nothing_is_missing(one, server, stack):
    other = await _up(stack, server.url)
    one.publish(*range(5))
    await other.heard(4)
    server.kill()
    assert await one.blind_after() < NOTICED_S
    one.publish(5)
    other.publish(6)
    await server.start()
    for each in (one, other):
        await eventually(lambda each=each: {5, 6} <= set(each.numbers))
        assert sorted(each.numbers) == list(range(7))
        assert each.gaps == ["server_changed"]
        assert each.changes == 1, "the caches read again"


async def test_a_server_that_was_killed_and_kept_nothing_is_a_loss_and_goes_on(one, server):
    one.publish(*range(5))
    await one.heard(4)
    lost = one.ring.newest
    server.kill()
    server.forget()
    await server.start()
    one.publish(5)
    await one.heard(5)
    assert one.numbers == list(range(6))
    assert one.gaps
    assert one.story[5].startswith("gap "), "before anything later"
    _check_that_a_gap_follows(one, lost)


async def test_what_was_lost_before_anybody_heard_it_is_said_in_the_journal_by_who_published_it(one, server, stack):
    one.publish(0)
    await one.heard(0)
    server.kill()
    server.forget()
    await server.start()
    await _until(one.link.length)
    late = await _up(stack, server.url)
    assert b"taken_back" in late.ring.everything[0].event.payload


async def test_an_emptied_server_is_a_loss_that_is_told_once(one, server, operator, stack):
    other = await _up(stack, server.url)
    one.publish(*range(5))
    await other.heard(4)
    await operator.flushall()
    for each in (one, other):
        await eventually(lambda each=each: each.gaps)
    one.publish(5)
    other.publish(6)
    for each in (one, other):
        await eventually(lambda each=each: {5, 6} <= set(each.numbers))
        assert sorted(each.numbers) == list(range(7))
        assert len(each.gaps) == 1
        assert each.story[5].startswith("gap ")


async def test_a_journal_that_was_trimmed_meanwhile_is_a_loss_that_is_told_once_in_its_place(server, stack):
    proxy = await stack.enter_async_context(Proxy(server.port))
    other = await _up(stack, proxy.url, journal_length=10)
    one = await _up(stack, server.url, journal_length=10)
    one.publish(*range(10))
    await other.heard(9)
    proxy.stall()
    one.publish(*range(10, 1000))
    await one.heard(999)
    assert one.gaps == []
    await other.blind_after()
    proxy.go_on()
    await other.heard(999)
    assert other.story[10].startswith("gap missing ")
    kept = [int(word) for word in other.story[11:]]
    assert kept == list(range(kept[0], 1000))
    assert other.numbers == [*range(10), *kept]
    assert 10 < kept[0] < 1000
    assert other.subscriber.gaps == 1


async def test_a_server_that_forgot_the_script_is_no_loss(one, operator):
    one.publish(0)
    await one.heard(0)
    await operator.script_flush()
    one.publish(1)
    await one.heard(1)
    assert one.story == ["0", "1"]


async def test_a_lost_last_event_is_noticed_through_a_probe(one, operator):
    one.publish(0)
    await one.heard(0)
    probe = one.prober._number
    await _add_unheard(operator, 1)
    await one.heard(1)
    assert one.story == ["0", "1"]
    assert one.subscriber.repairs == 1
    assert one.prober._number <= probe + 2


async def test_a_lost_event_is_heard_before_the_next_one(one, operator):
    one.publish(0)
    await one.heard(0)
    for number in range(1, 6):
        await _add_unheard(operator, number)
    one.publish(6)
    await one.heard(6)
    assert one.story == [str(number) for number in range(7)]


async def test_what_comes_twice_or_is_no_frame_is_not_heard(one, operator):
    one.publish(0, 1)
    await one.heard(1)
    for id_, fields in await operator.xrange(JOURNAL):
        await operator.publish(f"{PREFIX}:events", b"1 %b %b %b" % (id_, fields[b"p"], fields[b"f"]))
    await operator.publish(f"{PREFIX}:events", b"2 what comes later")
    one.publish(2)
    await one.heard(2)
    assert one.story == ["0", "1", "2"]


@pytest.mark.parametrize("goes_on", [False, True])
async def test_a_journal_that_was_taken_back_is_a_loss_though_the_connection_stays(one, operator, goes_on):
    one.publish(0, 1)
    await one.heard(1)
    older = await operator.dump(JOURNAL)
    one.publish(2, 3)
    await one.heard(3)
    lost = one.ring.newest
    await operator.restore(JOURNAL, 0, older, replace=True)
    if goes_on:
        one.publish(4)
    await eventually(lambda: one.gaps)
    one.publish(5)
    await one.heard(5)
    assert one.numbers == [0, 1, 2, 3, *([4] if goes_on else []), 5]
    assert len(one.gaps) == 1
    assert one.story[4].startswith("gap taken_back ")
    _check_that_a_gap_follows(one, lost)


async def test_who_starts_before_the_server_hears_once_it_is_there(tmp_path, stack):
    with valkey(tmp_path / "late") as server:
        one = await stack.enter_async_context(replica(server.url, PREFIX))
        one.publish(0)
        await eventually(lambda: one.bus.failures > 2)
        assert one.subscriber.state is State.BLIND
        await server.start()
        await one.heard(0)
        await eventually(lambda: one.is_up)
        assert one.gaps == []
        await stack.aclose()


async def test_readers_are_told_of_a_state_that_lasts_once(one, server):
    before = len(one.words)
    server.kill()
    await eventually(lambda: one.words[before:] == ["bus degraded"])
    await server.start()
    await eventually(lambda: "bus ok" in one.words[before:])
    assert [word for word in one.words[before:] if word.startswith("bus ")] == ["bus degraded", "bus ok"]


@pytest.fixture
async def watched(tmp_path, stack) -> tuple[Valkey, Valkey, str]:
    """A primary, its replica, and the URL of the sentinel that watches them."""
    primary = stack.enter_context(valkey(tmp_path / "primary"))
    await primary.start()
    second = stack.enter_context(valkey(tmp_path / "second", replicaof=f"127.0.0.1 {primary.port}"))
    await second.start()
    async with Redis.from_url(second.url, protocol=2) as asked:
        await _until(lambda: _is_linked(asked))
    watcher = stack.enter_context(sentinel(tmp_path / "sentinel", primary, "gw"))
    await watcher.start()
    async with Redis.from_url(watcher.url, protocol=2) as asked:
        await _until(lambda: asked.execute_command("SENTINEL", "REPLICAS", "gw"))
    return primary, second, f"redis+sentinel://127.0.0.1:{watcher.port}/gw"


async def test_a_failover_that_loses_nothing_is_complete_and_told_at_most_as_another_server(watched, stack):
    primary, _, url = watched
    one = await _up(stack, url)
    one.publish(*range(5))
    await one.heard(4)
    async with Redis.from_url(primary.url, protocol=2) as operator:
        assert await operator.wait(1, 5000) == 1
    primary.kill()
    one.publish(5)
    await one.heard(5, within_s=30)
    assert one.numbers == list(range(6))
    assert one.gaps == ["server_changed"]


async def test_a_failover_that_loses_entries_is_told_and_goes_on(watched, stack):
    primary, second, url = watched
    one = await _up(stack, url)
    one.publish(*range(3))
    await one.heard(2)
    async with Redis.from_url(primary.url, protocol=2) as operator:
        assert await operator.wait(1, 5000) == 1
        second.stall()
        await operator.client_kill_filter(_type="replica")
    one.publish(3, 4)
    await one.heard(4)
    lost = one.ring.newest
    primary.kill()
    second.go_on()
    await eventually(lambda: not one.is_up)
    one.publish(5)
    await one.heard(5, within_s=30)
    assert one.numbers == list(range(6))
    assert (
        one.story.index("4")
        < next(at for at, word in enumerate(one.story) if word.startswith("gap "))
        < one.story.index("5")
    )
    _check_that_a_gap_follows(one, lost)
    late = await _up(stack, url)
    heard = [late.ring.everything[at].event for at in range(late.ring.everything.start, late.ring.everything.end)]
    assert [event.payload for event in heard] == [b"0", b"1", b"2", b'{"reason":"server_changed"}', b"5"]
