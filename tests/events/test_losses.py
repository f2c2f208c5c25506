"""What Redis may lose, refuse or delay: who reads is told of each loss once, in its place, and of nothing else."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from itertools import pairwise

import pytest
from redis.asyncio import Redis

from events import frame, redis
from events.event import GAP, Event
from events.frame import Position
from events.hub import Hub
from events.readers import Wanted
from tests.harness.proxy import Proxy
from tests.harness.replica import PROBE_S, STYLE, WORKSPACE, Replica, numbered, replica, send_unanswered
from tests.harness.valkey import Valkey, valkey
from tests.harness.world import eventually

PREFIX = "test:{bus}"
JOURNAL = f"{PREFIX}:journal"
HOUR_MS = 3_600_000


@pytest.fixture(autouse=True)
def _quick_answers(monkeypatch) -> None:
    """As probes come five times as often as in earnest, servers are given up sooner, too."""
    monkeypatch.setattr(redis, "ANSWER_S", 0.5)


@pytest.fixture
async def server(tmp_path) -> AsyncIterator[Valkey]:
    with valkey(tmp_path / "valkey", enable_debug_command="yes") as one:
        await one.start()
        yield one


@pytest.fixture
async def operator(server) -> AsyncIterator["Redis[bytes]"]:
    async with Redis.from_url(server.url, protocol=2) as client:
        yield client


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
async def one(server, stack) -> Replica:
    return await _up(stack, server.url)


@pytest.fixture
async def other(server, stack) -> Replica:
    return await _up(stack, server.url)


async def _up(stack: AsyncExitStack, url: str, **options: int) -> Replica:
    one = await stack.enter_async_context(replica(url, PREFIX, **options))
    await eventually(lambda: one.is_up)
    return one


class Returning:
    """A reader who comes back."""

    def __init__(self, hub: Hub) -> None:
        self._hub = hub
        self._said = b""

    def write(self, blob: bytes) -> bool:
        self._said += blob
        return True

    def stir(self) -> None:
        """It pulls by itself."""

    def read_after(self, place: Position) -> list[str]:
        """What it is told of after this place, up to the present."""
        with self._hub.subscribed(Wanted(), STYLE, self) as subscription:
            subscription.rewind(place)
            while not subscription.keeps_up:
                self._said += subscription.pull(10**6)
        return self._said.decode().split(";")[:-1]


def _check_that_places_go_up(one: Replica) -> None:
    frames = [one.ring.everything[at] for at in range(one.ring.everything.start, one.ring.everything.end)]
    for earlier, later in pairwise(frames):
        assert earlier.place < later.place


# -- what is lost


async def test_an_emptied_journal_is_told_once_with_its_reason_to_who_was_there_and_to_who_comes_back(
    one, other, operator
):
    one.publish(*range(5))
    await other.heard(4)
    was_at = one.ring.everything[2].place
    await operator.flushall()
    await eventually(lambda: one.gaps and other.gaps)
    one.publish(5)
    for each in (one, other):
        await each.heard(5)
        assert (each.numbers, each.gaps) == (list(range(6)), ["taken_back"])
        assert each.ring.covers(was_at)
        back = Returning(each.hub).read_after(was_at)
        assert [word.split()[0:2] for word in back] == [["3"], ["4"], ["gap", "taken_back"], ["5"]]
        _check_that_places_go_up(each)
    assert one.ring.newest == other.ring.newest


async def test_a_stranger_who_is_first_in_an_emptied_journal_hides_nothing(one, other, server, operator, stack):
    one.publish(*range(3))
    await other.heard(2)
    lost = one.ring.newest
    body = frame.body(numbered(3))
    server_id = (await operator.info("server"))["run_id"]
    async with operator.pipeline(transaction=True) as batch:
        batch.flushall()
        batch.xadd(JOURNAL, {"p": "0-0", "f": body})
        batch.set(f"{PREFIX}:server", server_id)
        await batch.execute()
    for each in (one, other):
        await each.heard(3)
        assert each.story[3].startswith("gap taken_back ")
    one.publish(4)
    for each in (one, other):
        await each.heard(4)
        assert (each.numbers, each.gaps) == (list(range(5)), ["taken_back"])
    _, _, _, until = one.story[3].split()
    late = await _up(stack, server.url)
    assert not late.ring.covers(lost), "who comes with this is told there"
    place = frame.find_position(until)
    for each in (one, other, late):
        assert each.ring.covers(place), "who was told comes back with this, and is not told again"
        assert Returning(each.hub).read_after(place) == ["3", "4"]


@pytest.mark.parametrize("times", [1, 2])
async def test_ids_go_up_though_the_clock_of_the_next_server_is_an_hour_behind(one, other, server, operator, times):
    """What a fast clock has given is lost: an id must never name two events, nor hide one."""
    one.publish(0)
    await other.heard(0)
    ahead = f"{one.ring.newest[0] + HOUR_MS}-0"
    await operator.xadd(JOURNAL, {"p": frame.show(one.ring.newest), "f": frame.body(numbered(1))}, id=ahead)
    one.publish(2)
    await other.heard(2)
    for lost in range(times):
        server.kill()
        server.forget()
        await server.start()
        one.publish(3 + lost)
        for each in (one, other):
            await each.heard(3 + lost)
    for each in (one, other):
        assert each.numbers == list(range(3 + times))
        assert each.gaps == ["taken_back"] * times
        _check_that_places_go_up(each)
    assert one.ring.newest == other.ring.newest


async def test_entries_that_were_deleted_with_later_ids_stop_nobody(one, operator, server, stack):
    """A stream remembers the last id that it gave; who has heard of nothing cannot go beyond it."""
    one.publish(0)
    await one.heard(0)
    await stack.aclose()
    deleted = await operator.xadd(JOURNAL, {"p": "0-0", "f": "x"}, id=f"{one.ring.newest[0] + HOUR_MS}-0")
    await operator.xdel(JOURNAL, deleted)
    await operator.set(f"{PREFIX}:server", "another")
    late = await _up(stack, server.url)
    late.publish(1)
    await late.heard(1)
    assert late.gaps == ["server_changed"]
    _check_that_places_go_up(late)


@pytest.mark.parametrize("kept", [True, False])
async def test_a_batch_whose_answer_was_lost_with_its_server_is_heard_once_or_part_of_the_gap(server, stack, kept):
    async with redis.opened(server.url, prefix=PREFIX, journal_length=100) as link:
        await link.send([numbered(0)], 0)
        batch = [numbered(1), numbered(2)]
        await send_unanswered(link, batch, 1)
        server.kill()
        if not kept:
            server.forget()
        await server.start()
        for _ in range(2):
            await link.send(batch, 1)
        await link.send([numbered(3)], 3)
        found = [one.event.payload async for one in link.read(None)]
    gap = b'{"reason":"server_changed"}' if kept else b'{"reason":"taken_back"}'
    assert found == ([b"0", b"1", b"2", gap, b"3"] if kept else [gap, b"3"])


async def test_a_key_of_another_kind_holds_events_up_and_loses_what_it_replaced(one, other, operator):
    one.publish(0)
    await other.heard(0)
    await operator.set(JOURNAL, "not a stream")
    one.publish(1)
    await eventually(lambda: one.bus.away)
    await operator.delete(JOURNAL)
    for each in (one, other):
        await each.heard(1)
        assert (each.numbers, each.gaps) == ([0, 1], ["taken_back"])


# -- what is not


async def test_a_newcomer_loads_what_is_past_and_tells_its_readers_only_what_is_new(one, server, stack, operator):
    past = f"{int(time.time() * 1000) - HOUR_MS}-0"
    await operator.delete(JOURNAL)
    await operator.xadd(JOURNAL, {"p": "0-0", "f": frame.body(numbered(0))}, id=past)
    await stack.aclose()
    proxy = await stack.enter_async_context(Proxy(server.port))
    proxy.stall()
    late = await stack.enter_async_context(replica(proxy.url, PREFIX))
    async with redis.opened(server.url, prefix=PREFIX, journal_length=100) as link:
        await link.send([numbered(1)], 0)
    proxy.go_on()
    await late.heard(1)
    assert (late.numbers, late.gaps) == ([1], [])
    assert Returning(late.hub).read_after(frame.find_position(past)) == ["1"]
    assert late.ring.covers((0, 0))


@pytest.mark.parametrize("command", [("CLIENT", "PAUSE", "600", "ALL"), ("DEBUG", "SLEEP", "0.6")], ids=" ".join)
async def test_a_server_that_pauses_loses_nothing(one, other, server, command):
    one.publish(0)
    await other.heard(0)
    await server.do(*command)
    one.publish(1)
    other.publish(2)
    for each in (one, other):
        await eventually(lambda each=each: {1, 2} <= set(each.numbers))
        assert (sorted(each.numbers), each.gaps) == ([0, 1, 2], [])


async def test_a_server_that_is_out_of_memory_holds_events_up_and_loses_none(one, other, operator):
    one.publish(0)
    await other.heard(0)
    await operator.config_set("maxmemory", 1)
    one.publish(1)
    other.publish(2)
    await eventually(lambda: one.bus.away and other.bus.away)
    await operator.config_set("maxmemory", 0)
    for each in (one, other):
        await eventually(lambda each=each: {1, 2} <= set(each.numbers))
        assert (sorted(each.numbers), each.gaps) == ([0, 1, 2], [])


async def test_a_credential_that_is_refused_for_a_while_loses_nothing(one, other, operator):
    one.publish(0)
    await other.heard(0)
    await operator.execute_command("ACL", "SETUSER", "default", "resetpass", ">secret")
    for kind in ("pubsub", "normal"):
        await operator.execute_command("CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes")
    one.publish(1)
    await eventually(lambda: one.bus.away and not other.is_up)
    await operator.execute_command("ACL", "SETUSER", "default", "nopass")
    for each in (one, other):
        await each.heard(1)
        assert (each.numbers, each.gaps) == ([0, 1], [])


def _large(number: int) -> Event:
    return Event(type="TASK_UPDATED", workspace_id=WORKSPACE, payload=b"%64000d" % number)


def _large_numbers(one: Replica) -> list[int]:
    return [int(word) for word in one.words if word.startswith(" ")]


async def test_a_storm_of_large_events_cuts_listeners_again_and_again_and_loses_nothing(one, other, operator):
    """The server lets go of a listener for whom too much waits."""
    await operator.config_set("client-output-buffer-limit", "pubsub 100000 0 0")
    for number in range(400):
        one.bus.publish(_large(number))
    for each in (one, other):
        await eventually(lambda each=each: _large_numbers(each)[-1:] == [399], within_s=60)
        assert (_large_numbers(each), each.gaps) == (list(range(400)), [])


async def test_a_page_is_as_large_as_can_be_read_in_time_however_large_the_events_are(link, monkeypatch):
    monkeypatch.setattr(redis, "PAGE_BYTES", 200_000)
    pages = []
    ask = link._query

    async def counting(*command: str | int) -> object:
        answer = await ask(*command)
        pages.append(sum(len(fields[3]) for _, fields in answer))
        return answer

    monkeypatch.setattr(link, "_query", counting)
    for first in range(0, 100, 10):
        await link.send([_large(first + number) for number in range(10)], first)
    assert [int(one.event.payload) async for one in link.read(None)] == list(range(100))
    assert max(pages[1:]) < 200_000, "the first is a guess"


async def test_a_listener_that_is_killed_in_the_middle_of_every_repair_gets_there(one, server, operator, stack, tasks):
    proxy = await stack.enter_async_context(Proxy(server.port))
    other = await _up(stack, proxy.url)
    ends = asyncio.Event()

    async def kill() -> None:
        while not ends.is_set():
            await operator.execute_command("CLIENT", "KILL", "TYPE", "pubsub")
            await asyncio.sleep(0.02)

    killing = tasks.spawn(kill(), "kill")
    for first in range(0, 900, 100):
        one.publish(*range(first, first + 100))
        await one.heard(first + 99)
    ends.set()
    await eventually(killing.done)
    for each in (one, other):
        await each.heard(899)
        assert (each.numbers, each.gaps) == (list(range(900)), [])


async def test_a_stall_shorter_than_the_silence_that_is_noticed_is_nothing(one, server):
    one.publish(0)
    await one.heard(0)
    before = len(one.words)
    server.stall()
    until = time.monotonic() + PROBE_S / 4
    await eventually(lambda: time.monotonic() > until)
    server.go_on()
    one.publish(1)
    await one.heard(1)
    assert one.words[before:] == ["1"]


async def test_the_first_batch_of_an_empty_system_says_nothing_of_gaps(one, other):
    """Live events only were published before: nobody has heard of a journal."""
    assert one.subscriber.gaps == other.subscriber.gaps == 0
    one.publish(0)
    for each in (one, other):
        await each.heard(0)
        assert each.story == ["0"]
        assert each.ring.everything[0].event.type != GAP
