"""services.streams: a reader gets a whole stream, from a relay, from its journal, or from one after the other."""

import asyncio

import orjson
import pytest

from gateway.core import answers, outcomes
from gateway.ports import StreamHead
from gateway.services import streams as streams_module
from gateway.services.streams import Opened, Reading, Streams
from tests.services.memory import Journal, agent_streams

HEAD = StreamHead(call_id="c", workspace_id="w", status=200, headers={}, id_json=b'"1"')
DONE = answers.classify(outcomes.Streamed(status=200, headers={}))
CUT = answers.classify(outcomes.Cut(status=200))


def event(number: int) -> bytes:
    return b'data: {"jsonrpc":"2.0","id":"1","result":{"n":%d}}\n\n' % number


async def all_of(reading: Reading) -> bytes:
    got = b""
    with reading:
        while not reading.over:
            got += await reading.read(0.0)
    return got


def numbers(raw: bytes) -> list[str]:
    return [line.removeprefix("id: c-") for line in raw.decode().splitlines() if line.startswith("id:")]


@pytest.fixture
def journal() -> Journal:
    return Journal()


@pytest.fixture
def here(journal) -> Streams:
    return agent_streams(journal)


@pytest.fixture
def elsewhere(journal) -> Streams:
    """Another replica."""
    return agent_streams(journal)


async def opened(streams: Streams, **fields: object) -> Opened:
    found = await streams.find("c")
    assert found is not None
    return Opened(head=found.head, relay=found.relay, **fields)  # type: ignore[arg-type]


async def test_a_stream_is_the_same_here_and_elsewhere_while_it_goes_on_and_after_its_end(here, elsewhere):
    relay = here.begin(HEAD)
    relay.feed(event(1) + event(2))
    readings = [streams.read(await opened(streams)) for streams in (here, elsewhere)]
    for reading in readings:
        assert numbers(await reading.read(0.0)) == ["1", "2"]
    relay.feed(event(3))
    here.end(relay, DONE)
    for reading in readings:
        assert await all_of(reading) == b"id: c-3\n" + event(3)
    late = await all_of(elsewhere.read(await opened(elsewhere)))
    assert late == await all_of(here.read(await opened(here)))
    assert numbers(late) == ["1", "2", "3"]
    assert len(here) == 0


async def test_who_falls_behind_what_the_relay_keeps_reads_the_journal_and_comes_back(journal):
    streams = agent_streams(journal, kept=100)
    relay = streams.begin(HEAD)
    reading = streams.read(await opened(streams))
    got = b""
    for n in range(1, 51):
        relay.feed(event(n))
        if n in (10, 11, 40):
            got += await reading.read(0.0)
    streams.end(relay, DONE)
    got += await all_of(reading)
    assert numbers(got) == [str(n) for n in range(1, 51)]


async def test_an_end_that_is_not_the_good_one_is_the_same_event_everywhere(here, elsewhere):
    relay = here.begin(HEAD)
    relay.feed(event(1))
    mine = here.read(await opened(here))
    here.end(relay, CUT)
    told = await all_of(mine)
    assert told == await all_of(elsewhere.read(await opened(elsewhere)))
    last = orjson.loads(told.strip().rpartition(b"data: ")[2])
    assert (last["id"], last["error"]["data"]["code"]) == ("1", "truncated")
    assert last["error"]["data"]["last_event_id"] == "c-1"
    assert await all_of(elsewhere.read(await opened(elsewhere, after=2))) == b"", "who has it gets nothing more"


async def test_whoever_joins_reads_under_its_own_id(here, elsewhere):
    relay = here.begin(HEAD)
    relay.feed(event(1))
    here.end(relay, CUT)
    told = await all_of(elsewhere.read(await opened(elsewhere, id_json=b"7")))
    assert [orjson.loads(line[6:])["id"] for line in told.splitlines() if line.startswith(b"data: ")] == [7, 7]


async def test_a_stream_whose_replica_has_died_ends_as_interrupted_for_those_elsewhere(here, elsewhere):
    relay = here.begin(HEAD)
    relay.feed(event(1))
    reading = elsewhere.read(await opened(elsewhere))
    assert numbers(await reading.read(0.0)) == ["1"]
    elsewhere.interrupt("c")
    last = orjson.loads((await all_of(reading)).strip().rpartition(b"data: ")[2])
    assert (last["error"]["data"]["code"], last["error"]["data"]["last_event_id"]) == ("interrupted", "c-1")
    assert await all_of(elsewhere.read(await opened(elsewhere, after=2))) == b"", "who has it gets nothing more"
    relay.feed(event(2))
    here.end(relay, DONE)
    assert "interrupted" in (await all_of(elsewhere.read(await opened(elsewhere)))).decode(), "there is one end"


async def test_a_hole_is_told_and_nobody_goes_on_behind_it(here, elsewhere, journal):
    relay = here.begin(HEAD)
    relay.feed(event(1) + event(2) + event(3))
    journal.events["c"].pop(1)
    here.end(relay, DONE)
    told = await all_of(elsewhere.read(await opened(elsewhere)))
    assert numbers(told) == ["1"]
    assert orjson.loads(told.strip().rpartition(b"data: ")[2])["error"]["data"]["code"] == "events_lost"


async def test_events_that_are_missing_at_the_end_are_a_hole_too(here, elsewhere, journal):
    relay = here.begin(HEAD)
    relay.feed(event(1) + event(2))
    journal.events["c"].pop()
    here.end(relay, DONE)
    told = await all_of(elsewhere.read(await opened(elsewhere)))
    assert orjson.loads(told.strip().rpartition(b"data: ")[2])["error"]["data"]["code"] == "events_lost"


async def test_while_redis_is_away_readers_here_go_on_and_others_wait_and_are_told(
    here, elsewhere, journal, monkeypatch
):
    relay = here.begin(HEAD)
    mine, other = here.read(await opened(here)), elsewhere.read(await opened(elsewhere))
    journal.away = True
    relay.feed(event(1))
    assert numbers(await mine.read(0.0)) == ["1"]
    assert await other.read(0.0) == b""
    monkeypatch.setattr(streams_module, "BLIND_S", 0.0)
    assert b"journal_unavailable" in await other.read(0.0)
    assert other.over


async def test_readers_are_counted(here):
    relay = here.begin(HEAD)
    with here.read(await opened(here)):
        assert (here.readers, len(relay.readers)) == (1, 1)
        relay.feed(event(1))
        here.end(relay, DONE)
        assert here.bytes > 0, "somebody may still read it"
    assert (here.readers, relay.readers, here.bytes) == (0, set(), 0)


async def test_a_journal_that_redis_has_forgotten_is_not_waited_for(here, elsewhere, journal, monkeypatch):
    monkeypatch.setattr(streams_module, "LOOK_S", 0.0)
    relay = here.begin(HEAD)
    relay.feed(event(1))
    reading = elsewhere.read(await opened(elsewhere))
    assert numbers(await reading.read(0.0)) == ["1"]
    journal.heads.clear()
    assert b"events_lost" in await reading.read(0.0)
    assert reading.over


def long_event(number: int) -> bytes:
    return b'data: {"jsonrpc":"2.0","id":"1","result":{"n":%d,"pad":"%b"}}\n\n' % (number, b"x" * 100_000)


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_what_readers_have_not_taken_is_bounded_for_all_and_said_to_who_has_no_room(journal, where):
    here, elsewhere = (agent_streams(journal, all_kept=250_000) for _ in range(2))
    relay = here.begin(HEAD)
    relay.feed(event(1) + long_event(2))
    streams = here if where == "here" else elsewhere
    with (
        streams.read(await opened(streams, after=1)) as one,
        streams.read(await opened(streams, after=1)) as two,
        streams.read(await opened(streams, after=1)) as three,
        streams.read(await opened(streams)) as four,
    ):
        for reading in (one, two):
            assert numbers(await reading.read(0.0)) == ["2"]
        told = await three.read(0.0)
        said = orjson.loads(told.removeprefix(b"data: "))["error"]["data"]
        assert (said["code"], said["retriable"], said["last_event_id"]) == ("overloaded", True, "c-1")
        assert three.over
        assert numbers(await four.read(0.0))[:1] == ["1"], "what is short comes"
        assert await one.read(0.0) == b"", "it has taken what it was given"
        with streams.read(await opened(streams, after=1)) as again:
            assert numbers(await again.read(0.0)) == ["2"]
    assert streams.room.held == 0


async def test_a_long_event_is_not_pushed_to_all_at_once_but_fetched_by_each(here):
    relay = here.begin(HEAD)
    written: list[bytes] = []

    def write(block: bytes) -> bool:
        written.append(block)
        return True

    with here.read(await opened(here)) as reading:
        await reading.read(0.0)
        async with asyncio.TaskGroup() as group:
            group.create_task(reading.push(write, 5.0))
            await asyncio.sleep(0)
            relay.feed(event(1))
            relay.feed(long_event(2))
        assert numbers(b"".join(written)) == ["1"]
        assert numbers(await reading.read(0.0)) == ["2"]
