"""Who reads which feed, with a real database and real connections: one replica, while somebody wants it."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from typing import Any, Final

import pytest

from gateway.core.address import Reach
from gateway.core.feeds import How, Rules, State
from gateway.core.outcomes import Streamed
from gateway.core.workspaces import Status
from gateway.net import connector, event_feed
from gateway.ports import FeedListener, FeedSource, StoreUnavailable
from gateway.services.feeds import Feeds, Times
from gateway.services.subscription import Manner
from gateway.services.tasks import Tasks
from gateway.store.feeds import FeedStore
from gateway.store.vault import FernetVault, new_key
from tests.harness import feeds as agents
from tests.harness.feeds import HEAD, LAST, FeedAgent, block, refusal, says, stays
from tests.harness.world import eventually, until

LEASE_S: Final = 60.0


class Replica:
    """One process's feeds; `wants` is what is wanted here."""

    def __init__(self, stack: AsyncExitStack, feeds: Feeds, wants: set[str], tasks: Tasks, store: "Flaky") -> None:
        self._stack = stack
        self.feeds = feeds
        self.wants = wants
        self.tasks = tasks
        self.store = store

    async def turns(self, condition: Callable[[], object], within_s: float = 10.0) -> None:
        """Turn until this holds, each time as if a part of all leases were over."""

        async def turn() -> bool:
            self.age()
            await self.feeds.tick()
            return bool(condition())

        await until(turn, bool, within_s)

    def age(self) -> None:
        """Let a part of all leases be over."""
        for subscription, _ in self.feeds._held.values():
            subscription.renewed_at = 0.0

    def state(self) -> dict[str, int]:
        return {state: count for state, count in self.feeds.states.items() if count}

    def run(self) -> None:
        self.tasks.spawn(self.feeds.run(), "feeds")

    async def die(self) -> None:
        """Go without a word: tasks and connections end, leases do not."""
        await self._stack.aclose()


class Flaky(FeedStore):
    """The real one, which can be away."""

    away = False

    async def renew(self, *args: Any, **options: Any) -> Any:
        if self.away:
            raise StoreUnavailable("away")
        return await super().renew(*args, **options)

    async def release(self, *args: Any, **options: Any) -> None:
        if self.away:
            raise StoreUnavailable("away")
        await super().release(*args, **options)


@pytest.fixture
def vault() -> FernetVault:
    return FernetVault(new_key().encode())


@pytest.fixture
async def start(stores, replicas, bus, vault) -> AsyncIterator[Callable[..., Any]]:
    async with AsyncExitStack() as all_of_them:

        async def one(
            *, pinned: bool = False, lease_s: float = LEASE_S, linger_s: float = 0.2, **other: Any
        ) -> Replica:
            database = (await replicas.open()).database
            stack = await all_of_them.enter_async_context(AsyncExitStack())
            reach = Reach.SAME_NETWORK
            feed = await stack.enter_async_context(
                event_feed.opened(
                    connector.connector(reach=reach), reach=reach, connect_s=5, first_byte_s=5, silence_s=30,
                    limit_bytes=10_000,
                )
            )  # fmt: skip
            tasks = await stack.enter_async_context(Tasks())
            wants: set[str] = set()
            store = Flaky(database)
            feeds = Feeds(
                store=store,
                liveness=stores.liveness,
                feed=other.get("feed", feed),
                bus=bus,
                vault=vault,
                is_wanted=wants.__contains__,
                pinned=pinned,
                manner=Manner(
                    rules=Rules(healthy_s=10.0, pace_s=0.001),
                    keeps=(),
                    per_s=1e6,
                    gave_up_s=other.get("gave_up_s", 3600),
                ),
                times=Times(lease_s=lease_s, linger_s=linger_s),
                capacity=other.get("capacity", 100),
                spawn=tasks.spawn,
            )
            return Replica(stack, feeds, wants, tasks, store)

        yield one


@pytest.fixture
async def agent() -> AsyncIterator[FeedAgent]:
    async with agents.running() as one:
        yield one


@pytest.fixture
def make(stores) -> Callable[..., Any]:
    async def one(agent: FeedAgent, **fields: Any) -> str:
        id_ = await stores.make(**fields)
        await stores.workspaces.edit(id_, {"events_url": agent.url})
        return id_

    return one


async def test_it_is_read_while_somebody_wants_it(start, make, agent: FeedAgent):
    replica, id_ = await start(), await make(agent)
    await replica.feeds.tick()
    assert replica.state() == {"stopped": 1}
    replica.wants.add(id_)
    await replica.turns(lambda: replica.state() == {"live": 1})
    await replica.feeds.tick()
    assert len(agent.there) == 1
    replica.wants.clear()
    await replica.turns(lambda: replica.state() == {"stopped": 1})
    await eventually(lambda: not agent.there)


@pytest.mark.timeout(400)
async def test_started_and_stopped_a_thousand_times_it_is_read_once_at_any_time(start, make, agent: FeedAgent):
    replica, id_ = await start(linger_s=0.001), await make(agent)
    before = len(replica.tasks)
    for number in range(1000):
        replica.wants.add(id_)
        await replica.turns(lambda: len(replica.feeds))
        if number % 2:  # the others are stopped before they are connected, or while they are
            await eventually(lambda: agent.there or replica.feeds.states["stopped"])
        replica.wants.clear()
        await replica.turns(lambda: not replica.feeds)
    assert agent.most == 1
    assert len(agent.visits) >= 500
    assert len(replica.tasks) == before
    assert replica.tasks.deaths == 0
    await eventually(lambda: not agent.there)


async def test_of_two_replicas_that_want_it_one_reads_and_both_keep_it(start, make, agent: FeedAgent):
    one, other = await start(), await start()
    id_ = await make(agent)
    for replica in (one, other):
        replica.wants.add(id_)
        replica.run()
    await eventually(lambda: agent.there)
    one_has_it = len(one.feeds) == 1
    holder, waiting = (one, other) if one_has_it else (other, one)
    holder.wants.clear()  # the other one still wants it
    await eventually(lambda: agent.there and len(holder.feeds) + len(waiting.feeds) == 1)
    assert agent.most == 1


async def test_while_demand_moves_between_replicas_it_is_read_once_at_any_time(start, make, agent: FeedAgent):
    fleet = [await start(lease_s=2.0) for _ in range(3)]
    id_ = await make(agent)
    for turn in range(60):
        for number, replica in enumerate(fleet):
            (replica.wants.add if (turn // 3) % 3 == number else replica.wants.discard)(id_)
            replica.age()
            await replica.feeds.tick()
        assert sum(len(replica.feeds) for replica in fleet) <= 1
    assert agent.most == 1
    assert agent.visits


async def test_when_its_replica_dies_another_one_takes_it_within_the_lease(start, make, agent: FeedAgent):
    one, other = await start(lease_s=2.0), await start(lease_s=2.0)
    id_ = await make(agent)
    one.wants.add(id_)
    await one.turns(lambda: agent.there)
    other.wants.add(id_)
    other.run()
    await one.die()
    began = asyncio.get_running_loop().time()
    await eventually(lambda: len(agent.visits) == 2 and agent.there)
    assert asyncio.get_running_loop().time() - began < 2.0 + 1.0 + 1.5  # the lease, a turn, and a slow machine
    assert agent.most == 1


async def test_a_replica_that_cannot_renew_lets_go_before_another_one_takes_it(start, make, agent: FeedAgent):
    one, other = await start(lease_s=2.0), await start(lease_s=2.0)
    id_ = await make(agent)
    one.wants.add(id_)
    one.run()
    await eventually(lambda: agent.there)
    one.store.away = True
    other.wants.add(id_)
    other.run()
    await eventually(lambda: len(other.feeds) == 1 and agent.there)
    assert agent.most == 1
    one.store.away = False
    await eventually(lambda: len(one.feeds) == 0)
    assert len(agent.there) == 1


async def test_what_it_brings_counts_as_life_in_the_database(start, make, stores, agent: FeedAgent, heard):
    replica, id_ = await start(), await make(agent)
    replica.wants.add(id_)
    await replica.turns(lambda: agent.there and replica.feeds.states["live"])
    assert await stores.liveness.silence([id_]) == {}
    await agent.say(block("1", "e-1"))
    await eventually(lambda: replica.feeds._held[id_][0]._last_id == "e-1")
    replica.age()
    await replica.feeds.tick()
    assert (await stores.liveness.silence([id_]))[id_] < 10
    told, payload = await heard.one("AGENT_EVENT")
    assert (told.workspace_id, told.sign, payload) == (id_, True, {"type": "message", "data": 1})
    assert replica.feeds.events == 1


async def test_the_next_one_goes_on_where_the_last_one_was(start, make, agent: FeedAgent):
    one, other = await start(), await start()
    id_ = await make(agent)
    one.wants.add(id_)
    await one.turns(lambda: agent.there and one.feeds.states["live"])
    await agent.say(block("1", "e-1"))
    await eventually(lambda: one.feeds._held[id_][0]._last_id == "e-1")
    await one.feeds.close()
    other.wants.add(id_)
    await other.turns(lambda: len(agent.visits) == 2)
    assert [visit.headers.get("last-event-id") for visit in agent.visits] == [None, "e-1"]


async def test_a_removed_workspace_is_let_go(start, make, stores, agent: FeedAgent):
    replica, id_ = await start(), await make(agent)
    replica.wants.add(id_)
    await replica.turns(lambda: agent.there)
    await stores.remove(id_)
    replica.feeds.doubt(id_)
    await replica.turns(lambda: not agent.there and not replica.feeds)
    assert replica.state() == {}


async def test_a_feed_that_moves_is_read_at_its_new_place(start, make, stores, agent: FeedAgent):
    replica, id_ = await start(), await make(agent)
    replica.wants.add(id_)
    await replica.turns(lambda: replica.feeds.states["live"])
    async with agents.running() as elsewhere:
        await stores.workspaces.edit(id_, {"events_url": elsewhere.url})
        replica.feeds.doubt(id_)
        await replica.turns(lambda: elsewhere.there and not agent.there)
        await replica.feeds.close()


async def test_a_feed_that_is_declared_again_goes_on(start, make, stores, agent: FeedAgent):
    replica, id_ = await start(), await make(agent)
    replica.wants.add(id_)
    await replica.turns(lambda: replica.feeds.states["live"])
    await stores.workspaces.edit(id_, {"events_url": agent.url})
    replica.feeds.doubt(id_)
    for _ in range(3):
        await replica.feeds.tick()
    assert len(agent.visits) == 1


async def test_one_that_was_given_up_is_tried_when_it_is_declared_again(start, make, stores, agent: FeedAgent):
    agent.behave = says(refusal(401))
    replica, id_ = await start(), await make(agent)
    replica.wants.add(id_)
    await replica.turns(lambda: replica.state() == {"gave_up": 1} and not replica.feeds)
    for _ in range(3):
        await replica.feeds.tick()
    assert len(agent.visits) == 1
    agent.behave = stays()
    await stores.workspaces.edit(id_, {"events_url": agent.url})
    replica.feeds.doubt(id_)
    await replica.turns(lambda: replica.state() == {"live": 1})


async def test_one_that_was_given_up_is_tried_again_after_its_time(start, make, agent: FeedAgent):
    agent.behave = says(refusal(404))
    replica, id_ = await start(gave_up_s=0.01), await make(agent)
    replica.wants.add(id_)
    await replica.turns(lambda: len(agent.visits) >= 3)


async def test_one_that_is_declared_again_while_it_waits_is_tried_at_once(start, make, stores, agent: FeedAgent):
    agent.behave = says(refusal(503, b"Retry-After: 60"))
    replica, id_ = await start(), await make(agent)
    replica.wants.add(id_)
    await replica.turns(lambda: replica.state() == {"backoff": 1})
    agent.behave = stays()
    await stores.workspaces.edit(id_, {"events_url": agent.url})
    replica.feeds.doubt(id_)
    await replica.turns(lambda: replica.state() == {"live": 1})


async def test_a_hundred_clean_ends_are_followed_by_a_hundred_connections_one_at_a_time(start, make, agent: FeedAgent):
    agent.behave = says(HEAD + block("1") + LAST)
    replica, id_ = await start(), await make(agent)
    replica.wants.add(id_)
    await replica.turns(lambda: len(agent.visits) > 100)
    agent.behave = stays()
    await replica.turns(lambda: replica.state() == {"live": 1})
    assert agent.most == 1
    assert replica.feeds.connects == len(agent.visits)
    assert len(replica.tasks) == 1


async def test_it_shows_the_inbound_secret_if_there_is_one(start, make, stores, vault, agent: FeedAgent):
    replica, id_ = await start(), await make(agent)
    await stores.workspaces.register(
        id_, url=None, agent_card={}, delivery_mode="poll", inbound_secret=vault.seal("s3cr3t")
    )
    replica.wants.add(id_)
    await replica.turns(lambda: agent.visits)
    assert agent.visits[0].headers["authorization"] == "Bearer s3cr3t"


async def test_pinned_it_is_read_though_nobody_wants_it(start, make, stores, agent: FeedAgent):
    by_metadata, by_setting = await start(), await start(pinned=True)
    await make(agent)
    pinned = await make(agent)
    await stores.workspaces.update_runtime_metadata(pinned, {"capabilities": {"feed_pinned": True}})
    await by_metadata.turns(lambda: by_metadata.state() == {"live": 1, "stopped": 1})
    await by_setting.turns(lambda: by_setting.state() == {"live": 1, "stopped": 1})


async def test_no_more_are_read_than_there_is_room_for(start, make, agent: FeedAgent):
    one, other = await start(pinned=True, capacity=2), await start(pinned=True)
    for _ in range(5):
        await make(agent)
    await one.turns(lambda: one.feeds.states["live"] == 2)
    await one.feeds.tick()
    assert len(one.feeds) == 2
    await other.turns(lambda: other.feeds.states["live"] == 3)


async def test_a_workspace_that_sleeps_is_let_go(start, make, stores, agent: FeedAgent):
    replica, id_ = await start(), await make(agent)
    replica.wants.add(id_)
    await replica.turns(lambda: agent.there)
    assert await stores.workspaces.move(id_, Status.PAUSED)
    replica.feeds.doubt(id_)
    await replica.turns(lambda: not agent.there and not replica.feeds)


async def test_at_the_end_all_connections_end_and_others_may_take_them_at_once(start, make, stores, agent: FeedAgent):
    one, other = await start(pinned=True), await start(pinned=True)
    ids = [await make(agent) for _ in range(5)]
    await one.turns(lambda: one.feeds.states["live"] == 5)
    async with asyncio.timeout(1):
        await one.feeds.close()
    await eventually(lambda: not agent.there, within_s=1)
    await one.feeds.tick()  # nothing is taken any more
    assert not one.feeds
    shown = [await stores.workspaces.find(id_) for id_ in ids]
    assert {workspace.feed.state for workspace in shown} == {State.STOPPED}
    await other.turns(lambda: other.feeds.states["live"] == 5)


async def test_at_the_end_a_database_that_is_away_holds_nobody_up(start, make, agent: FeedAgent):
    replica, id_ = await start(), await make(agent)
    replica.wants.add(id_)
    await replica.turns(lambda: agent.there)
    replica.store.away = True
    async with asyncio.timeout(1):
        await replica.feeds.close()
    await eventually(lambda: not agent.there, within_s=1)


async def test_what_was_told_on_is_counted_though_the_report_was_lost(start, make, stores, agent: FeedAgent):
    replica, id_ = await start(), await make(agent)
    replica.wants.add(id_)
    await replica.turns(lambda: replica.feeds.states["live"])
    await agent.say(block("1", "e-1"))
    await eventually(lambda: replica.feeds._held[id_][0]._last_id == "e-1")
    replica.store.away = True
    replica.age()
    with pytest.raises(StoreUnavailable):
        await replica.feeds.tick()
    replica.store.away = False
    replica.age()
    await replica.feeds.tick()
    workspace = await until(lambda: stores.workspaces.find(id_), lambda one: one.feed.events == 1)
    assert workspace.feed.state is State.LIVE
    assert replica.feeds.events == 1


class Slow:
    """A feed whose connections take their time to end."""

    def __init__(self) -> None:
        self.begun = 0
        self.reading = 0
        self.may_end = asyncio.Event()

    async def read(self, source: FeedSource, listener: FeedListener) -> How:
        self.begun += 1
        self.reading += 1
        assert self.reading == 1
        try:
            listener.opened()
            await asyncio.Event().wait()
        finally:
            await self.may_end.wait()
            self.reading -= 1
        return Streamed(status=200, headers={})


async def test_a_successor_begins_when_its_predecessor_has_ended_and_stays(start, make, stores, agent: FeedAgent):
    slow = Slow()
    replica, id_ = await start(feed=slow), await make(agent)
    other = await start(feed=slow)
    for one in (replica, other):
        one.wants.add(id_)
    await replica.turns(lambda: replica.state() == {"live": 1})
    await stores.workspaces.edit(id_, {"events_url": agent.url + "/2"})
    for one in (replica, other):
        one.feeds.doubt(id_)
    for _ in range(5):
        await replica.feeds.tick()
        await other.feeds.tick()
    assert slow.begun == 1
    slow.may_end.set()
    await replica.turns(lambda: slow.begun == 2 and replica.state() == {"live": 1})
    for _ in range(5):  # nothing of the old one takes the new one away
        await replica.feeds.tick()
    assert (slow.begun, slow.reading, len(replica.feeds)) == (2, 1, 1)
