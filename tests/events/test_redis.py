"""The journal and the channel, on the real server."""

import asyncio
from collections.abc import Sequence

import pytest

from events import frame, redis
from events.bus import LinkDown
from events.event import Event, changed, event
from events.frame import Frame
from tests.harness.world import eventually

ID = "00000000-0000-4000-8000-00000000000a"


def kept(number: int) -> Event:
    return event("TASK_UPDATED", ID, {"number": number})


def live(number: int) -> Event:
    return event("WORKSPACE_HEARTBEAT", ID, {"number": number}, sign=True)


class Ear:
    """Keeps what it hears, and how often it is told of a loss."""

    def __init__(self) -> None:
        self.heard: list[Frame] = []
        self.losses: list[str] = []

    def hear(self, frame: Frame) -> None:
        self.heard.append(frame)

    def lost(self, reason: str) -> None:
        self.losses.append(reason)

    @property
    def events(self) -> list[Event]:
        return [frame.event for frame in self.heard]


async def journal(link: redis.RedisBus) -> list[Frame]:
    return [one async for one in link.read((0, 0))]


def check_chain(frames: Sequence[Frame]) -> None:
    """Each says which kept one came before it."""
    last = "0-0"
    for one in frames:
        assert one.prev == last
        last = one.id or last


@pytest.fixture
async def ear(link, tasks):
    """Somebody who hears all that is published under this prefix from now on."""
    ear, ready = Ear(), asyncio.Event()
    tasks.spawn(link.listen(ear, retry_s=lambda: 0.01, ready=ready), "listen")
    await ready.wait()
    return ear


async def test_what_is_sent_is_heard_by_everybody_in_order_and_kept_if_it_is_history(link, other_link, ear, tasks):
    second, ready = Ear(), asyncio.Event()
    tasks.spawn(other_link.listen(second, retry_s=lambda: 0.01, ready=ready), "listen")
    await ready.wait()
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


async def test_the_journal_is_trimmed_to_its_length_more_or_less(servers, prefix):
    async with redis.opened(servers.redis_url, prefix=prefix, journal_length=100) as link:
        for first in range(0, 1000, 100):
            await link.send([kept(first + place) for place in range(100)], first)
        entries = await journal(link)
        span = await link.span()
    assert 100 <= len(entries) < 300
    assert span == (entries[0].prev, entries[-1].id)
    assert entries[0].prev != "0-0"


async def test_an_empty_journal_spans_nothing(link):
    assert await link.span() is None
    assert await journal(link) == []


async def test_reading_goes_on_after_a_place_over_any_number_of_pages(link, monkeypatch):
    monkeypatch.setattr(redis, "PAGE", 7)
    await link.send([kept(number) for number in range(30)], 0)
    entries = await journal(link)
    assert len(entries) == 30
    place = frame.find_position(entries[13].id)
    assert [one async for one in link.read(place)] == entries[14:]


async def test_an_entry_that_is_not_ours_stops_no_reader(link, client, prefix, monkeypatch):
    monkeypatch.setattr(redis, "PAGE", 2)
    sent = [kept(0), kept(1)]
    await link.send(sent[:1], 0)
    await client.xadd(f"{prefix}:journal", {"p": "0-0", "f": "of a version to come"})
    await client.xadd(f"{prefix}:journal", {"other": "fields"})
    await link.send(sent[1:], 1)
    assert [one.event for one in await journal(link)] == sent


async def test_a_message_that_is_no_frame_stops_no_listener(link, ear, client, prefix):
    await client.publish(f"{prefix}:events", b"2 what comes later")
    await link.send([kept(0)], 0)
    await eventually(lambda: ear.heard)
    assert link.up


async def test_a_listener_whose_connection_is_killed_connects_again_and_says_so(link, ear, client, prefix):
    await link.send([kept(0)], 0)
    await eventually(lambda: ear.heard)
    assert (link.up, ear.losses) == (True, [])
    for connection in await client.client_list(_type="pubsub"):
        await client.client_kill_filter(_id=connection["id"])
    await eventually(lambda: ear.losses and link.up)
    await link.send([kept(1)], 1)
    await eventually(lambda: len(ear.heard) == 2)
    assert ear.losses == ["reconnected"]


async def test_a_listener_that_died_says_that_it_may_have_missed_something_when_it_listens_again(link, tasks):
    class Fragile(Ear):
        def hear(self, frame: Frame) -> None:
            raise ZeroDivisionError

    ready = asyncio.Event()
    fragile = tasks.spawn(_dies(link.listen(Fragile(), retry_s=lambda: 0.01, ready=ready)), "listen")
    await ready.wait()
    await link.send([kept(0)], 0)
    await fragile
    assert not link.up
    ear = Ear()
    tasks.spawn(link.listen(ear, retry_s=lambda: 0.01), "listen again")
    await eventually(lambda: link.up)
    assert ear.losses == ["reconnected"]


async def _dies(work) -> None:
    with pytest.raises(ZeroDivisionError):
        await work


async def test_nobody_there_is_down_and_unavailable_and_the_listener_keeps_trying(tmp_path, tasks):
    tries = []

    def retry_s() -> float:
        tries.append(1)
        return 0.001

    async with redis.opened(f"unix://{tmp_path}/nobody", prefix="p", journal_length=10) as link:
        with pytest.raises(LinkDown):
            await link.send([kept(0)], 0)
        with pytest.raises(redis.JournalUnavailable):
            await link.span()
        with pytest.raises(redis.JournalUnavailable):
            await journal(link)
        listening = tasks.spawn(link.listen(Ear(), retry_s=retry_s), "listen")
        await eventually(lambda: len(tries) > 3)
        assert not link.up
        listening.cancel()


async def test_a_malformed_url_is_a_value_error():
    with pytest.raises(ValueError, match="scheme"):
        async with redis.opened("http://localhost", prefix="p", journal_length=10):
            pass
