"""The journal and the channel, on the real server."""

import asyncio
import contextlib
import socket
from collections.abc import Sequence

import pytest
from redis.asyncio import Redis

from events import frame, redis
from events.bus import LinkDown
from events.event import GAP, Event, changed, event, gap
from events.frame import ORIGIN, Frame
from gateway.services.tasks import Tasks
from tests.harness.replica import send_unanswered
from tests.harness.valkey import free_port, sentinel, valkey
from tests.harness.world import eventually

ID = "00000000-0000-4000-8000-00000000000a"


def kept(number: int) -> Event:
    return event("TASK_UPDATED", ID, {"number": number})


def live(number: int) -> Event:
    return event("WORKSPACE_HEARTBEAT", ID, {"number": number}, sign=True)


class Listener:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[Frame] = []
        self.ear: redis.Ear | None = None

    async def run(self, link: redis.RedisBus) -> None:
        """Listen until the connection is lost."""
        with contextlib.suppress(LinkDown):
            async with link.listening() as self.ear:
                while True:
                    self.heard.append(frame.parse(await self.ear.hear()))

    @property
    def events(self) -> list[Event]:
        return [frame.event for frame in self.heard]


async def journal(link: redis.RedisBus) -> list[Frame]:
    return [one async for one in link.read(None)]


def check_chain(frames: Sequence[Frame]) -> None:
    """Each says which kept one came before it."""
    last = ORIGIN
    for one in frames:
        assert one.prev == last
        last = one.place or last


async def listening(link: redis.RedisBus, tasks: Tasks) -> Listener:
    listener = Listener()
    tasks.spawn(listener.run(link), "listen")
    await eventually(lambda: listener.ear)
    return listener


@pytest.fixture
async def ear(link, tasks) -> Listener:
    """Somebody who hears all that is published under this prefix from now on."""
    return await listening(link, tasks)


async def test_what_is_sent_is_heard_by_everybody_in_order_and_kept_if_it_is_history(link, other_link, ear, tasks):
    second = await listening(other_link, tasks)
    sent = [kept(0), live(1), kept(2), changed(), kept(3), live(4)]
    await link.send(sent, 0)
    await eventually(lambda: len(ear.heard) == len(second.heard) == len(sent))
    assert ear.heard == second.heard
    assert ear.events == sent
    check_chain(ear.heard)
    assert await journal(link) == [one for one in ear.heard if one.id is not None]
    assert [one.event for one in ear.heard if one.id is not None] == [sent[0], sent[2], sent[4]]


async def test_the_chain_has_no_hole_when_several_publish_at_once(link, other_link, ear):
    async def publish(by: redis.RedisBus, first: int) -> None:
        for number in range(20):
            await by.send([kept(first + number), live(first + number)], 2 * number)

    await asyncio.gather(publish(link, 0), publish(other_link, 1000))
    await eventually(lambda: len(ear.heard) == 80)
    check_chain(ear.heard)
    entries = await journal(link)
    check_chain(entries)
    assert len(entries) == 40


async def test_what_is_sent_again_under_its_number_is_neither_kept_nor_heard_twice(link, ear):
    sent = [kept(0), live(1), kept(2)]
    await link.send(sent[:2], 0)
    await link.send(sent, 0)
    await link.send(sent, 0)
    await eventually(lambda: len(ear.heard) == 3)
    last = kept(3)
    await link.send([last], 3)
    await eventually(lambda: len(ear.heard) >= 4)
    assert ear.events == [*sent, last]
    assert [one.event for one in await journal(link)] == [sent[0], sent[2], last]


async def test_how_many_events_the_server_has_had_of_a_publisher_anybody_may_ask(link, other_link, client, prefix):
    await link.send([kept(0), live(1), kept(2)], 0)
    assert await other_link.has_taken(link.publisher, 3)
    assert not await other_link.has_taken(link.publisher, 4)
    assert not await link.has_taken(other_link.publisher, 1)
    [key] = await client.keys(f"{prefix}:publisher:*")
    assert 3600 < await client.ttl(key) <= 86400, "it is forgotten, but not while an answer may be waited for"


async def test_another_publisher_has_numbers_of_its_own(link, other_link):
    await link.send([kept(0)], 0)
    await other_link.send([kept(1)], 0)
    assert len(await journal(link)) == 2


async def test_a_batch_is_taken_whole_or_not_at_all_when_memory_runs_out(link, client, prefix):
    """The second batch begins below the limit and ends above it; the third begins above it."""
    size = 60_000
    first, second, third = ([event("TASK_UPDATED", ID, {"text": "x" * size})] * 200 for _ in range(3))
    await link.send(first, 0)
    used = (await client.info("memory"))["used_memory"]
    await client.config_set("maxmemory", used + 200 * size * 3 // 2)  # a batch, as it comes in, and half of it again
    try:
        await link.send(second, 200)
        with pytest.raises(LinkDown):
            await link.send(third, 400)
        assert len(await journal(link)) == 400
    finally:
        await client.config_set("maxmemory", 0)
    await link.send(third, 400)
    entries = await journal(link)
    check_chain(entries)
    assert len(entries) == 600


async def test_a_batch_that_is_refused_is_down_and_complete_after_a_retry(link, client, prefix):
    """The journal's key holds something else for a while: every script fails, and none is taken for sent."""
    sent = [kept(0), kept(1)]
    await client.set(f"{prefix}:journal", "not a stream")
    with pytest.raises(LinkDown):
        await link.send(sent, 0)
    await client.delete(f"{prefix}:journal")
    await link.send(sent, 0)
    assert [one.event for one in await journal(link)] == sent


async def test_a_publisher_is_still_heard_when_the_server_has_forgotten_or_remembers_less(link, client, prefix):
    await link.send([kept(0), kept(1), kept(2)], 0)
    [key] = await client.keys(f"{prefix}:publisher:*")
    await client.set(key, 1)  # an older snapshot
    await link.send([kept(3)], 3)
    await client.delete(key)
    await link.send([kept(4), kept(5)], 4)
    assert len(await journal(link)) == 6


async def test_a_server_that_has_forgotten_the_script_learns_it_again(link, client):
    await link.send([kept(0)], 0)
    await client.script_flush()
    await link.send([kept(1), live(2), kept(3)], 1)
    assert len(await journal(link)) == 3


async def test_a_journal_that_another_server_has_written_gets_one_gap_first(link, other_link, client, prefix, ear):
    await link.send([kept(0)], 0)
    await client.set(f"{prefix}:server", "another run id")
    await link.send([live(1), kept(2)], 1)
    await other_link.send([kept(3)], 0)
    await eventually(lambda: len(ear.heard) == 5)
    check_chain(ear.heard)
    assert [one.event.type for one in ear.heard] == [
        "TASK_UPDATED",
        GAP,
        "WORKSPACE_HEARTBEAT",
        "TASK_UPDATED",
        "TASK_UPDATED",
    ]
    assert ear.heard[1].event.payload == gap("server_changed").payload


async def test_a_new_journal_begins_without_a_gap_and_an_emptied_one_with_one(link, other_link, client):
    await link.send([kept(0)], 0)
    await other_link.send([kept(1)], 0)
    assert [one.event.type for one in await journal(link)] == ["TASK_UPDATED", "TASK_UPDATED"]
    await client.delete(*await client.keys(f"{link._journal.removesuffix(':journal')}*"))
    await link.send([kept(2)], 1)
    await other_link.send([kept(3)], 1)
    assert [one.event.type for one in await journal(link)] == [GAP, "TASK_UPDATED", "TASK_UPDATED"]


async def test_a_batch_that_may_have_been_heard_is_not_sent_to_an_emptied_server(link, client, prefix, ear):
    """Its answer was lost, and then all that Redis knew of it: the gap that tells of the loss stands for it."""
    await link.send([kept(0)], 0)
    await send_unanswered(link, [kept(1), kept(2)], 1)
    await client.delete(*await client.keys(f"{prefix}*"))
    await link.send([kept(1), kept(2)], 1)
    await link.send([kept(3)], 3)
    told = gap("taken_back").payload
    assert [one.event.payload for one in await journal(link)] == [told, kept(3).payload]
    await eventually(lambda: len(ear.heard) == 5)
    assert [one.payload for one in ear.events] == [
        *(kept(number).payload for number in range(3)),
        told,
        kept(3).payload,
    ]


async def test_a_batch_that_was_never_sent_is_sent_to_an_emptied_server_after_a_gap(link, client, prefix):
    await link.send([kept(0)], 0)
    await client.delete(*await client.keys(f"{prefix}*"))
    sent = [kept(1), kept(2)]
    await link.send(sent, 1)
    found, *entries = await journal(link)
    assert found.event.payload == gap("taken_back").payload
    assert [one.event for one in entries] == sent


async def test_the_journal_is_trimmed_to_its_length_more_or_less(servers, prefix):
    async with redis.opened(servers.redis_url, prefix=prefix, journal_length=100) as link:
        for first in range(0, 1000, 100):
            await link.send([kept(first + place) for place in range(100)], first)
        entries = await journal(link)
        assert await link.newest() == entries[-1].place
        assert await link.length() == len(entries)
    assert 100 <= len(entries) < 300
    assert entries[0].prev != ORIGIN


async def test_an_empty_journal_has_nothing_newest(link):
    assert await link.newest() == ORIGIN
    assert await link.length() == 0
    assert await journal(link) == []


async def test_reading_goes_on_after_a_place_over_any_number_of_pages(link, monkeypatch):
    monkeypatch.setattr(redis, "PAGE", 7)
    await link.send([kept(number) for number in range(30)], 0)
    entries = await journal(link)
    assert len(entries) == 30
    assert [one async for one in link.read(entries[13].place)] == entries[14:]


async def test_an_entry_that_is_not_ours_stops_no_reader(link, client, prefix, monkeypatch):
    monkeypatch.setattr(redis, "PAGE", 2)
    sent = [kept(0), kept(1)]
    await link.send(sent[:1], 0)
    await client.xadd(f"{prefix}:journal", {"p": "0-0", "f": "of a version to come"})
    await client.xadd(f"{prefix}:journal", {"other": "fields"})
    await link.send(sent[1:], 1)
    assert [one.event for one in await journal(link)] == sent


async def test_a_listener_whose_connection_is_killed_is_told(link, client, prefix):
    async with link.listening() as ear:
        for connection in await client.client_list(_type="pubsub"):
            await client.client_kill_filter(_id=connection["id"])
        with pytest.raises(LinkDown):
            await ear.hear()


async def test_a_listener_that_is_cut_ends_though_the_server_says_nothing(link, tasks):
    listener = Listener()
    running = tasks.spawn(listener.run(link), "listen")
    await eventually(lambda: listener.ear)
    listener.ear.cut()
    await eventually(running.done)
    assert running.exception() is None


async def test_who_listens_anew_reads_anew(link):
    await link.send([kept(0)], 0)
    await journal(link)
    before = link._reading
    async with link.listening():
        await journal(link)
        assert link._reading is not before


async def test_the_policy_by_which_the_server_evicts_is_known(link):
    assert await link.eviction() == "noeviction"


async def test_who_may_not_ask_for_the_policy_does_not_know_it(servers, prefix, client):
    await client.acl_setuser(
        "modest", enabled=True, nopass=True, keys=["*"], channels=["*"], commands=["+@all", "-config"]
    )
    try:
        url = servers.redis_url.replace("unix://", "unix://modest:any@")
        async with redis.opened(url, prefix=prefix, journal_length=10) as link:
            assert await link.eviction() is None
            await link.send([kept(0)], 0)
            assert await link.length() == 1
    finally:
        await client.acl_deluser("modest")


async def test_nobody_there_is_down_and_unavailable(tmp_path):
    async with redis.opened(f"unix://{tmp_path}/nobody", prefix="p", journal_length=10) as link:
        with pytest.raises(LinkDown):
            await link.send([kept(0)], 0)
        with pytest.raises(LinkDown):
            await link.has_taken("p", 1)
        for asked in (link.newest, link.length, link.eviction, link.now_ms):
            with pytest.raises(redis.JournalUnavailable):
                await asked()
        with pytest.raises(redis.JournalUnavailable):
            await journal(link)
        with pytest.raises(LinkDown):
            async with link.listening():
                pass


async def test_a_server_that_takes_connections_and_says_nothing_is_given_up(prefix, monkeypatch):
    monkeypatch.setattr(redis, "ANSWER_S", 0.05)
    with socket.socket() as mute:
        mute.bind(("127.0.0.1", 0))
        mute.listen()
        url = f"redis://127.0.0.1:{mute.getsockname()[1]}"
        async with redis.opened(url, prefix=prefix, journal_length=10) as link:
            with pytest.raises(LinkDown):
                await link.send([kept(0)], 0)
            with pytest.raises(redis.JournalUnavailable):
                await link.newest()
            with pytest.raises(LinkDown):
                async with link.listening():
                    pass


async def test_a_replica_is_not_taken_for_the_primary(tmp_path, prefix):
    with valkey(tmp_path / "replica", replicaof=f"127.0.0.1 {free_port()}") as server:
        await server.start()
        async with redis.opened(server.url, prefix=prefix, journal_length=10) as link:
            with pytest.raises(LinkDown) as raised:
                await link.send([kept(0)], 0)
    assert "slave" in str(raised.value.__cause__)


async def test_sentinels_are_asked_for_the_primary_and_one_that_is_away_is_passed_over(tmp_path, prefix):
    with valkey(tmp_path / "primary") as server, sentinel(tmp_path / "sentinel", server, "gw") as watcher:
        await server.start()
        await watcher.start()
        url = f"redis+sentinel://127.0.0.1:{free_port()},127.0.0.1:{watcher.port}/gw?db=3"
        async with redis.opened(url, prefix=prefix, journal_length=10) as link:
            await link.send([kept(0)], 0)
            assert await link.length() == 1
        async with Redis.from_url(f"{server.url}/3", protocol=2) as client:
            assert await client.xlen(f"{prefix}:journal") == 1
        url = f"redis+sentinel://127.0.0.1:{watcher.port}/unknown"
        async with redis.opened(url, prefix=prefix, journal_length=10) as link:
            with pytest.raises(LinkDown):
                await link.send([kept(0)], 0)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost",
        "redis+sentinel://",
        "redis+sentinel:///gw",
        "redis+sentinel://host/gw",
        "redis+sentinel://host:x/gw",
        "redis+sentinel://host:26379",
        "redis+sentinel://host:26379,/gw",
        "redis+sentinel://host:26379/gw?db=x",
    ],
)
async def test_a_malformed_url_is_a_value_error(url):
    with pytest.raises(ValueError):
        async with redis.opened(url, prefix="p", journal_length=10):
            pass


def large(number: int, size: int = 300_000) -> Event:
    told = event("A2A_RESPONSE", ID, {"number": number, "text": "x" * size})
    assert told.whole is not None
    return told


async def test_the_whole_of_a_large_event_is_there_when_the_event_is_heard(link, other_link):
    told = large(1)
    async with other_link.listening() as ear:
        await link.send([told], 0)
        heard = frame.parse(await ear.hear())
    assert len(heard.event.payload) < 64 * 1024
    assert heard.event.reference == told.reference
    assert await other_link.whole(told.reference or "") == told.whole


async def test_a_whole_that_is_sent_again_is_kept_once(link, client, prefix):
    told = large(1)
    for _ in range(2):
        await link.send([told], 0)
    assert await client.llen(f"{prefix}:wholes") == 1
    assert await client.get(f"{prefix}:wholes:bytes") == b"%d" % len(told.whole or b"")


async def test_wholes_go_by_age_and_the_oldest_when_they_are_too_much_together(servers, prefix, client):
    async with redis.opened(
        servers.redis_url, prefix=prefix, journal_length=100, whole_s=100, whole_bytes=1_000_000
    ) as link:
        told = [large(number) for number in range(5)]
        for sequence, one in enumerate(told):
            await link.send([one], sequence)
        kept = [await link.whole(one.reference or "") is not None for one in told]
        assert kept == [False, False, True, True, True]
        assert await client.llen(f"{prefix}:wholes") == 3
        assert int(await client.get(f"{prefix}:wholes:bytes")) == sum(len(one.whole or b"") for one in told[2:])
        for key in (f"{prefix}:whole:{told[4].reference}", f"{prefix}:wholes", f"{prefix}:wholes:bytes"):
            assert 0 < await client.ttl(key) <= 100


async def test_a_whole_that_redis_refuses_costs_the_event_nothing_but_its_rest(link, other_link, client, prefix):
    await client.set(f"{prefix}:wholes", "of the wrong type")
    told = large(1)
    async with other_link.listening() as ear:
        await link.send([told], 0)
        assert frame.parse(await ear.hear()).event.reference == told.reference
    assert await other_link.whole(told.reference or "") is None
