import asyncio
from uuid import uuid4

import orjson
import pytest

from gateway.core.calls import Kind, State
from gateway.core.endings import Ending
from gateway.core.prices import Prices
from gateway.core.refusals import Refusal
from gateway.ports import Filters, NewCall
from gateway.services import expiry
from gateway.services.activity import ActivityLog, Line
from gateway.services.directory import Directory
from gateway.services.expiry import Expiry
from gateway.services.inbox import Inbox
from gateway.services.wakes import Wakes
from tests.services.memory import Batches, Journal


async def put(stores, target: str, caller: str | None = None, *, waits_s: float = 0.0) -> str:
    new = NewCall(
        id=str(uuid4()), kind=Kind.PARKED, workspace_id=target, caller_id=caller, method="message/send", body=b"{}",
        waits_s=waits_s, lives_s=100.0,
    )  # fmt: skip
    row = Line(id=new.id, workspace_id=target, activity_type="a2a_receive", call_id=new.id).row(0.0)
    assert await stores.calls.park(new, row, room=10_000)
    return new.id


async def let_time_pass(stores) -> None:
    await stores.database.execute("update calls set expires_at = now() - interval '1 second'")


@pytest.fixture
def rows() -> Batches:
    return Batches()


@pytest.fixture
def build(bus, rows):
    def build(stores, *, stale_s: float | None = None) -> Expiry:
        activity = ActivityLog(rows, bus, capacity=10_000, every_s=0.01)
        return Expiry(
            calls=stores.calls,
            queue=stores.queue,
            delegations=stores.delegations,
            activity=activity,
            bus=bus,
            stale_s=stale_s,
        )

    return build


async def test_a_call_that_nobody_fetched_in_time_expires_and_is_told(build, stores, heard):
    target, caller = await stores.make(), await stores.make()
    id_ = await put(stores, target, caller)
    living = await put(stores, target, caller)
    await build(stores).tick()
    assert await heard.names() == []
    await stores.database.execute("update calls set expires_at = now() where id = %(id)s", id=id_)
    await build(stores).tick()
    found = await stores.calls.find(target, id_)
    assert (found.state, found.ending) == (State.EXPIRED, Ending.EXPIRED)
    assert (await stores.calls.find(target, living)).state is State.PARKED
    events = await heard()
    assert [(one.type, one.workspace_id) for one in events] == [("ACTIVITY_LOGGED", caller), ("CALL_ENDED", target)]
    said = orjson.loads(events[1].payload)
    assert (said["call_id"], said["ending"], said["status"]) == (id_, "expired", 410)
    [row] = [row for row in await stores.activity.list_newest(target, Filters()) if row.id == id_]
    assert (row.status, row.error_detail) == ("error", "expired")


async def test_a_call_that_its_agent_has_and_never_answered_ends_as_delivered(build, stores, heard):
    target = await stores.make()
    id_ = await put(stores, target, waits_s=50.0)
    assert (await stores.calls.receive(target, id_)).state is State.DISPATCHED
    await let_time_pass(stores)
    await build(stores).tick()
    found = await stores.calls.find(target, id_)
    assert (found.state, found.ending) == (State.COMPLETED, Ending.DELIVERED_TO_INBOX)
    _, said = await heard.one("CALL_ENDED")
    assert (said["ending"], said["status"]) == ("delivered_to_inbox", 200)


async def test_more_than_a_batch_ends_in_one_turn_and_each_call_by_one_replica(build, replicas, heard, monkeypatch):
    monkeypatch.setattr(expiry, "BATCH", 3)
    first, second = await replicas.open(), await replicas.open()
    target = await first.make()
    ids = [await put(first, target) for _ in range(20)]
    await let_time_pass(first)
    await asyncio.gather(build(first).tick(), build(second).tick())
    told = [orjson.loads(one.payload)["call_id"] for one in await heard() if one.type == "CALL_ENDED"]
    assert sorted(told) == sorted(ids)


async def test_whoever_ends_a_call_at_the_same_moment_it_ends_once_and_is_told_once(build, replicas, bus, heard, rows):
    first, second = await replicas.open(), await replicas.open()
    target, caller = await first.make(), await first.make()
    inbox = Inbox(
        calls=second.calls,
        activity=ActivityLog(rows, bus, capacity=10_000, every_s=1),
        directory=Directory(second.workspaces, ttl_s=300),
        bus=bus,
        prices=Prices(),
        journal=Journal(),
        leave=lambda workspace, call_id, cost: None,
        agents=Wakes(capacity=1),
        lease_s=60.0,
        wait_s=60.0,
    )
    ids = [await put(first, target, caller, waits_s=60.0 * (number % 2)) for number in range(20)]
    await let_time_pass(first)
    ends = [
        verb
        for id_ in ids
        for verb in (
            inbox.acknowledge(target, id_),
            inbox.reply(target, id_, b'{"result":1}'),
            inbox.reply(target, id_, b'{"result":2}'),
        )
    ]
    said = await asyncio.gather(*ends, build(first).tick(), return_exceptions=True)
    assert all(isinstance(one, Refusal | State | None) for one in said), said
    told = [orjson.loads(one.payload) for one in await heard() if one.type == "CALL_ENDED"]
    assert sorted(one["call_id"] for one in told) == sorted(ids)
    for one in told:
        call = await first.calls.find(target, one["call_id"])
        assert (call.ending, call.ended) == (one["ending"], True)
