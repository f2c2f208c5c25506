"""Who reads a feed, in PostgreSQL: one process, until its lease runs out or it lets go."""

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest

from gateway.core.feeds import Feed, State
from gateway.core.workspaces import ATTENDED, Status
from gateway.ports import FeedReport, NewWorkspace
from gateway.store.db import Database
from gateway.store.feeds import FeedStore
from gateway.store.workspaces import WorkspaceStore

A, B = str(uuid4()), str(uuid4())
LONG_S, OVER_S = 60.0, -1.0
URL = "https://agent.example/events"


@pytest.fixture
def store(migrated: Database) -> FeedStore:
    return FeedStore(migrated)


@pytest.fixture
def workspaces(migrated: Database) -> WorkspaceStore:
    return WorkspaceStore(migrated)


@pytest.fixture
def make(workspaces: WorkspaceStore) -> Callable[..., Any]:
    async def one(status: Status = Status.ONLINE, url: str | None = URL) -> str:
        id_ = str(uuid4())
        await workspaces.create(NewWorkspace(id=id_, name="one", status=status, runtime="external"), None)
        if url is not None:
            await workspaces.edit(id_, {"events_url": url})
        return id_

    return one


def report(id_: str, state: State = State.LIVE, **other: Any) -> FeedReport:
    return FeedReport(**{"workspace_id": id_, "state": state, "reason": None, "last_id": "", "events": 0, **other})


async def claim(store: FeedStore, by: str, *, lease_s: float = LONG_S, besides: tuple[str, ...] = ()) -> list[str]:
    granted = await store.claim(by, lease_s=lease_s, besides=besides, limit=100)
    return [one.workspace_id for one in granted]


async def shown(workspaces: WorkspaceStore, id_: str) -> Feed:
    workspace = await workspaces.find(id_)
    assert workspace is not None
    assert workspace.feed is not None
    return workspace.feed


async def test_the_database_knows_the_same_states(migrated: Database, store: FeedStore, make):
    id_ = await make()
    await store.want([id_], linger_s=LONG_S)
    for state in State:
        await migrated.execute("update feeds set state = %(state)s", state=state.value)
    row = await migrated.fetch_one(
        "select pg_get_constraintdef(oid) as words from pg_constraint where conname = 'feeds_state_check'"
    )
    assert row is not None
    assert row["words"].count("'") == 2 * len(State)


async def test_a_feed_that_nobody_wants_is_nobodys(store: FeedStore, workspaces, make):
    id_ = await make()
    assert await claim(store, A) == []
    await store.want([id_], linger_s=OVER_S)
    assert await claim(store, A) == []
    assert (await shown(workspaces, id_)).state is State.STOPPED
    await store.want([id_], linger_s=LONG_S)
    assert await claim(store, A) == [id_]
    assert (await shown(workspaces, id_)).state is State.CONNECTING


async def test_of_many_who_come_at_once_each_feed_has_one(store: FeedStore, make):
    ids = [await make() for _ in range(20)]
    await store.want(ids, linger_s=LONG_S)
    taken = [one for some in await asyncio.gather(*(claim(store, str(uuid4())) for _ in range(4))) for one in some]
    assert sorted(taken) == sorted(ids)
    assert await claim(store, B) == []


async def test_a_lease_that_ran_out_goes_to_the_next_who_asks(store: FeedStore, workspaces, make):
    id_ = await make()
    await store.want([id_], linger_s=LONG_S)
    assert await claim(store, A, lease_s=OVER_S) == [id_]
    assert (await shown(workspaces, id_)).state is State.STOPPED
    assert await claim(store, B) == [id_]
    assert await store.renew(A, [report(id_, events=3)], lease_s=LONG_S) == {}
    await store.release(A, [report(id_, State.STOPPED)])
    assert await claim(store, A) == []
    assert await store.renew(B, [report(id_)], lease_s=LONG_S) == {id_: True}


async def test_who_holds_it_is_told_that_nobody_wants_it_any_more(store: FeedStore, migrated: Database, make):
    id_ = await make()
    await store.want([id_], linger_s=LONG_S)
    await claim(store, A)
    await migrated.execute("update feeds set wanted_until = now() - interval '1 second'")
    assert await store.renew(A, [report(id_)], lease_s=LONG_S) == {id_: False}


async def test_to_want_it_again_is_written_when_it_tells_something(store: FeedStore, migrated: Database, make):
    id_ = await make()

    async def version() -> Any:
        row = await migrated.fetch_one("select xmin::text as xmin from feeds where workspace_id = %(id)s", id=id_)
        assert row is not None
        return row["xmin"]

    await store.want([id_], linger_s=60.0)
    first = await version()
    await store.want([id_], linger_s=60.0)
    assert await version() == first
    await migrated.execute("update feeds set wanted_until = now() + interval '40 seconds'")
    shorter = await version()
    await store.want([id_], linger_s=60.0)
    assert await version() != shorter


async def test_whoever_takes_it_next_goes_on_where_it_was_unless_it_is_elsewhere(store: FeedStore, workspaces, make):
    id_ = await make()
    await store.want([id_], linger_s=LONG_S)
    await claim(store, A)
    await store.renew(A, [report(id_, last_id="e-7", events=5)], lease_s=LONG_S)
    await store.release(A, [report(id_, State.STOPPED, last_id="e-9", events=2)])
    assert (await shown(workspaces, id_)).events == 7
    [granted] = await store.claim(B, lease_s=LONG_S, besides=(), limit=1)
    assert (granted.last_id, granted.url) == ("e-9", URL)
    await store.release(B, [report(id_, State.STOPPED, last_id="e-9")])
    await workspaces.edit(id_, {"events_url": URL + "/2"})
    [granted] = await store.claim(B, lease_s=LONG_S, besides=(), limit=1)
    assert (granted.last_id, granted.url) == ("", URL + "/2")


async def test_what_was_given_up_rests_until_its_time_or_until_it_is_declared_anew(
    store: FeedStore, migrated: Database, workspaces, make
):
    id_ = await make()
    await store.want([id_], linger_s=LONG_S)

    async def give_up() -> None:
        await store.release(A, [report(id_, State.GAVE_UP, reason="http_401", rests_s=LONG_S)])
        assert await claim(store, A) == []
        told = await shown(workspaces, id_)
        assert (told.state, told.reason) == (State.GAVE_UP, "http_401")
        assert [one.gave_up for one in await store.list_declared(None)] == [True]

    assert await claim(store, A) == [id_]
    await give_up()
    await workspaces.register(id_, url=None, agent_card={}, delivery_mode="poll", inbound_secret=None)
    assert await claim(store, A) == [id_]
    assert [one.gave_up for one in await store.list_declared(None)] == [False]
    await give_up()
    await migrated.execute("update feeds set not_before = now() - interval '1 second'")
    assert await claim(store, A) == [id_]


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.REMOVED])
async def test_no_feed_is_read_where_no_agent_is(store: FeedStore, make, status: Status):
    id_ = await make(status)
    await store.want([id_], linger_s=LONG_S)
    there = status in ATTENDED
    assert [one.workspace_id for one in await store.list_declared([id_])] == [id_] * there
    assert await claim(store, A) == [id_] * there


async def test_a_removed_workspace_has_no_feed(store: FeedStore, workspaces, make):
    id_ = await make()
    await store.want([id_], linger_s=LONG_S)
    await workspaces.remove_tree(id_)
    assert await store.list_declared(None) == []
    assert await claim(store, A) == []


async def test_a_runtime_may_have_its_feed_pinned(store: FeedStore, workspaces, make):
    plain, pinned, odd = await make(), await make(), await make()
    await make(url=None)
    await workspaces.update_runtime_metadata(pinned, {"capabilities": {"feed_pinned": True}})
    await workspaces.update_runtime_metadata(odd, {"capabilities": {"feed_pinned": "yes"}})
    assert {one.workspace_id: one.pinned for one in await store.list_declared(None)} == {
        plain: False, pinned: True, odd: False,
    }  # fmt: skip


async def test_since_is_when_the_state_moved(store: FeedStore, workspaces, make):
    id_ = await make()
    await store.want([id_], linger_s=LONG_S)
    await claim(store, A)
    await store.renew(A, [report(id_)], lease_s=LONG_S)
    first = (await shown(workspaces, id_)).since
    await store.renew(A, [report(id_)], lease_s=LONG_S)
    assert (await shown(workspaces, id_)).since == first
    await store.renew(A, [report(id_, State.BACKOFF, reason="reset")], lease_s=LONG_S)
    moved = await shown(workspaces, id_)
    assert moved.since > first
    assert moved.reason == "reset"


async def test_one_that_is_told_to_be_left_alone_is_not_taken(store: FeedStore, make):
    id_ = await make()
    await store.want([id_], linger_s=LONG_S)
    assert await claim(store, A, besides=(id_,)) == []
