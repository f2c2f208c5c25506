"""One feed as it is read: told on once, tried again, slowed down, and left when its lease is over. Time is not real."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from itertools import pairwise
from typing import Any, Final

import orjson
import pytest

from events.event import Event
from gateway.core.feeds import How, Rules, State
from gateway.core.outcomes import Answered, Cut, Streamed
from gateway.core.sse import ServerEvent
from gateway.ports import FeedListener, FeedSource, GrantedFeed
from gateway.services.subscription import Manner, Subscription
from gateway.services.tasks import Tasks

LONG_S: Final = 1e6
CLOSED: Final = Streamed(status=200, headers={})
CUT: Final = Cut(status=200)
Script = Callable[[FeedListener], Awaitable[How]]


class Scripted:
    """A feed whose connections go one after the other as the test says; then it is connected for ever."""

    def __init__(self, *scripts: Script | How) -> None:
        self._scripts = list(scripts)
        self.asked: list[FeedSource] = []
        self.at: list[float] = []
        self.reading = 0

    async def read(self, source: FeedSource, listener: FeedListener) -> How:
        self.asked.append(source)
        self.at.append(asyncio.get_running_loop().time())
        self.reading += 1
        assert self.reading == 1
        try:
            if not self._scripts:
                listener.opened()
                await asyncio.Event().wait()
            script = self._scripts.pop(0)
            return await script(listener) if callable(script) else script
        finally:
            self.reading -= 1


def brings(*events: ServerEvent, how: How | None = None) -> Script:
    async def script(listener: FeedListener) -> How:
        listener.opened()
        for one in events:
            await listener.heard(one)
        listener.passed(events[-1].id or "" if events else "", 0)
        return how or CLOSED

    return script


def came(data: str, id_: str | None = None) -> ServerEvent:
    return ServerEvent(type="message", data=data.encode(), id=id_)


class Bench:
    """A subscription with all that it needs."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self.published: list[Event] = []
        self.stirs = 0

    def start(self, feed: Scripted, *, lasts_s: float = LONG_S, per_s: float = 1e6, **grant: Any) -> Subscription:
        loop = asyncio.get_running_loop()
        one = Subscription(
            GrantedFeed(**{"workspace_id": "w", "url": "http://a/", "declared": "1", "last_id": "", **grant}),
            secret=None,
            feed=feed,
            publish=self.published.append,
            manner=Manner(rules=Rules(healthy_s=10.0, pace_s=1.0), keeps=(), per_s=per_s, gave_up_s=60.0),
            good_until=loop.time() + lasts_s,
            stirred=self._stir,
        )
        self.task = self._tasks.spawn(one.run(), "feed")
        return one

    def _stir(self) -> None:
        self.stirs += 1

    @property
    def told(self) -> list[Any]:
        return [orjson.loads(one.payload)["data"] for one in self.published]


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Tasks() as tasks:
        yield Bench(tasks)
    assert tasks.deaths == 0


async def test_events_are_told_on_as_signs_of_life_of_its_workspace(bench: Bench):
    bench.start(Scripted(brings(came("1", "a"), came("2"))))
    await asyncio.sleep(1)
    assert bench.told == [1, 2]
    assert {(one.type, one.workspace_id, one.sign) for one in bench.published} == {("AGENT_EVENT", "w", True)}


async def test_what_comes_again_is_told_once_and_it_goes_on_where_it_was(bench: Bench):
    feed = Scripted(brings(came("1", "a"), came("2", "b"), how=CUT), brings(came("2", "b"), came("3", "c")))
    one = bench.start(feed, last_id="z")
    await asyncio.sleep(5)
    assert bench.told == [1, 2, 3]
    assert [source.last_id for source in feed.asked] == ["z", "b", "c"]
    assert one.duplicates == 1
    report = one.report()
    assert (report.last_id, report.events, one.report().events) == ("c", 3, 0)
    one.unreport(report)
    assert one.report().events == 3


async def test_failures_are_waited_for_ever_longer_until_one_has_lasted(bench: Bench):
    async def lasts(listener: FeedListener) -> How:
        listener.opened()
        await asyncio.sleep(11)
        return CUT

    feed = Scripted(CUT, CUT, CUT, lasts, CUT)
    bench.start(feed)
    await asyncio.sleep(100)
    waits = [later - earlier for earlier, later in pairwise(feed.at)]
    waits[3] -= 11
    for wait, most in zip(waits, [1, 1.5, 2.25, 1, 1.5], strict=True):  # the fourth begins anew
        assert most / 2 <= wait <= most


async def test_what_refuses_for_good_is_given_up(bench: Bench):
    feed = Scripted(Answered(status=401, headers={}, body=b""))
    one = bench.start(feed)
    await asyncio.sleep(100)
    assert bench.task.done()
    report = one.report()
    assert (report.state, report.reason, report.rests_s) == (State.GAVE_UP, "http_401", 60.0)
    assert len(feed.asked) == 1


async def test_who_waits_can_be_poked(bench: Bench):
    feed = Scripted(*[CUT] * 12)
    one = bench.start(feed)
    await asyncio.sleep(30)
    tried = len(feed.asked)
    for _ in range(12 - tried):
        one.poke()
        await asyncio.sleep(0.001)
    assert len(feed.asked) == 12
    one.poke()
    await asyncio.sleep(0.001)
    assert one.standing.state is State.LIVE


async def test_it_ends_when_its_lease_is_over_unless_that_is_renewed(bench: Bench):
    feed = Scripted()
    one = bench.start(feed, lasts_s=10)
    await asyncio.sleep(9)
    one.extend(asyncio.get_running_loop().time() + 10)
    await asyncio.sleep(9)
    assert feed.reading == 1
    await asyncio.sleep(2)
    assert (feed.reading, one.standing.state, one.standing.reason) == (0, State.STOPPED, "lease_over")
    one.extend(asyncio.get_running_loop().time() + 10)
    assert bench.task.done()


async def test_it_ends_while_it_waits_too(bench: Bench):
    one = bench.start(Scripted(*[CUT] * 100), lasts_s=50)
    await asyncio.sleep(51)
    assert bench.task.done()
    assert one.standing.reason == "lease_over"


async def test_nothing_is_told_after_the_lease_though_its_timer_was_held_up(bench: Bench):
    loop = asyncio.get_running_loop()

    async def late(listener: FeedListener) -> How:
        listener.opened()
        one.extend(loop.time() + 5)
        one._good_until = loop.time()  # the clock has gone on while this process stood still
        await listener.heard(came("1"))
        return CLOSED

    one = bench.start(Scripted(late))
    await asyncio.sleep(1)
    assert bench.published == []
    assert bench.task.done()


async def test_a_feed_that_brings_too_much_is_read_more_slowly(bench: Bench):
    bench.start(Scripted(brings(*(came(str(number)) for number in range(100)))), per_s=10)
    await asyncio.sleep(0.01)
    assert 10 <= len(bench.published) <= 12  # a second's worth at once
    await asyncio.sleep(5)
    assert 55 <= len(bench.published) <= 65


async def test_a_bug_of_ours_gives_it_up_and_connects_no_more(bench: Bench):
    async def breaks(listener: FeedListener) -> How:
        raise RuntimeError("a bug")

    one = bench.start(Scripted(breaks))
    await asyncio.sleep(1)
    assert bench.task.done()
    assert (one.standing.state, one.standing.reason) == (State.GAVE_UP, "internal")


async def test_each_change_of_state_stirs_who_holds_it(bench: Bench):
    one = bench.start(Scripted(CUT))
    one.renewed_at = 5.0
    await asyncio.sleep(10)
    assert one.standing.state is State.LIVE
    assert bench.stirs == 3  # backoff, connecting, live; it has begun with connecting
    assert one.renewed_at < 0


@pytest.mark.parametrize("after_s", [0.0, 0.1, 5.0])
async def test_it_can_be_stopped_wherever_it_is(bench: Bench, after_s: float):
    feed = Scripted(CUT, brings(came("1"), how=CUT), *[CUT] * 5)
    one = bench.start(feed)
    await asyncio.sleep(after_s)
    bench.task.cancel()
    await asyncio.wait([bench.task])
    assert feed.reading == 0
    assert one.standing.state in (State.STOPPED, State.CONNECTING)  # the latter: it had not begun
