import asyncio
from collections.abc import Mapping
from contextlib import closing
from typing import Any
from uuid import uuid4

import psycopg2
import pytest

from gateway.core.calls import Call, State
from gateway.core.endings import Ending
from gateway.ports import Claimed, NewDelegation, NewQueued, Outgoing, QueuedEnd
from gateway.store.calls import CallStore
from gateway.store.delegation import DelegationClaims, DelegationStore
from gateway.store.queue import QueueStore
from sql import load
from tests.store.test_calls import ended
from tests.store.test_queue import DONE, let_time_pass, make, row

WAY = Outgoing(headers={"Content-Type": "application/json"}, limit_s=12.5, by_deadline=False)
SOMEBODY = "00000000-0000-4000-8000-000000000007"
REJECTED = QueuedEnd(to=State.FAILED, ending=Ending.REJECTED, error="no_url", answer=DONE.answer, counts=False)


class Desk:
    """One workspace that leaves tasks to another, and both stores that keep them."""

    def __init__(self, database: Any, source_id: str, target_id: str) -> None:
        self.database = database
        self.source_id = source_id
        self.target_id = target_id
        self.store = DelegationStore(database)
        self.queue = QueueStore(database)
        self.claims = DelegationClaims(database, self.queue)

    def new(self, **fields: Any) -> NewDelegation:
        return NewDelegation(
            **{
                "id": str(uuid4()), "source_id": self.source_id, "target_id": self.target_id,
                "method": "message/send", "body": b'{"n": 1.50}', "summary": "do it", "result_id": str(uuid4()),
                "lives_s": 60.0, "outgoing": WAY, **fields,
            }
        )  # fmt: skip

    async def create(self, *, state: State = State.PENDING, room: int = 100, **fields: Any) -> Call | bool | str:
        new = self.new(**fields)
        rows = [row(new.id, self.target_id)]
        made = await self.store.create(new, rows, state=state, lane=self.source_id, priority=50, room=room)
        return new.id if made is True else made

    async def one(self, **fields: Any) -> str:
        made = await self.create(**fields)
        assert isinstance(made, str)
        return made

    async def claim(self, *, limit: int = 100, lease_s: float = 60.0) -> list[Claimed]:
        return list(await self.claims.claim(self.target_id, eager=False, limit=limit, lease_s=lease_s))

    async def find(self, id_: str) -> Call:
        found = await self.store.find(self.source_id, id_)
        assert found is not None
        return found


@pytest.fixture
async def desk(migrated) -> Desk:
    return Desk(migrated, await make(migrated), await make(migrated))


async def test_one_is_written_with_its_history_or_not_at_all(desk):
    id_ = await desk.one()
    found = await desk.find(id_)
    assert (found.state, found.carried, found.summary, found.caller_id) == (
        State.PENDING, True, "do it", desk.source_id,
    )  # fmt: skip
    assert await desk.database.fetch("select id from activity") == [{"id": id_}]
    bad = desk.new()
    with pytest.raises(Exception, match="activity_activity_type_check"):
        await desk.store.create(
            bad, [row(bad.id, desk.target_id, activity_type="made up")], state=State.PENDING, lane="", priority=50,
            room=9,
        )  # fmt: skip
    assert await desk.store.find(desk.source_id, bad.id) is None
    assert await desk.store.find(desk.target_id, id_) is None


async def test_as_many_wait_as_may_in_whatever_way(desk):
    assert await desk.one(room=1)
    assert await desk.create(room=1) is False
    [one] = await desk.claim()
    await desk.claims.mark_sent(one.call.id, one.claim)
    assert await desk.one(room=1), "what is out does not wait"
    await desk.claims.put_back(one.call.id, one.claim, delay_s=0.0, error="agent_busy", busy=True, counts=False)
    [other] = await desk.claim()
    await desk.claims.end(other.call.id, other.claim, REJECTED, ended)
    assert await desk.create(room=1) is False, "one waits for its busy agent"


async def test_nothing_is_left_to_who_is_gone(desk):
    await desk.database.execute("update workspaces set status = 'removed', removed_at = now()")
    assert await desk.create() is False
    assert not await desk.store.record(desk.new(outgoing=None), [])


async def test_of_many_with_one_key_one_is_made_until_it_fails(desk):
    made = await asyncio.gather(*(desk.create(key="k") for _ in range(3)))
    [id_] = [one for one in made if isinstance(one, str)]
    assert {one.id for one in made if isinstance(one, Call)} == {id_}
    assert len(await desk.database.fetch("select id from activity")) == 1
    assert isinstance(await desk.create(key="another"), str)
    [one, _] = await desk.claim()
    assert (await desk.claims.end(one.call.id, one.claim, REJECTED, ended)).state is State.FAILED
    again = await desk.one(key="k")
    assert again != id_
    [one] = [one for one in await desk.claim() if one.call.id == again]
    await desk.claims.mark_sent(one.call.id, one.claim)
    await desk.claims.end(one.call.id, one.claim, DONE, ended)
    same = await desk.create(key="k")
    assert isinstance(same, Call)
    assert (same.id, same.state) == (again, State.COMPLETED)


async def test_what_is_due_is_claimed_by_one_however_many_are_out(desk):
    ids = [await desk.one() for _ in range(6)]
    assert await desk.claims.list_waiting() == {desk.target_id: True}
    found = [one for some in await asyncio.gather(*(desk.claim(limit=4) for _ in range(3))) for one in some]
    assert sorted(one.call.id for one in found) == sorted(ids)
    assert (found[0].body, found[0].outgoing) == (b'{"n": 1.50}', WAY)
    assert await desk.claims.list_waiting() == {}
    assert await desk.claim() == []


async def test_what_a_dead_process_did_not_send_is_due_again_and_what_it_sent_is_interrupted(desk):
    for _ in range(2):
        await desk.one()
    sent, unsent = await desk.claim()
    assert await desk.claims.mark_sent(sent.call.id, sent.claim)
    assert await desk.claims.mark_sent(sent.call.id, sent.claim), "said once more, since the reply was lost"
    await let_time_pass(desk.database, "lease_until")
    assert await desk.queue.free_lost(limit=9) == []
    [lost] = await desk.queue.end_lost(limit=9, history=ended)
    assert (lost.id, lost.ending) == (sent.call.id, Ending.INTERRUPTED)
    [again] = await desk.claim()
    assert again.call.id == unsent.call.id
    assert not await desk.claims.mark_sent(unsent.call.id, unsent.claim)
    assert await desk.claims.mark_sent(again.call.id, again.claim)
    assert await desk.claims.end(sent.call.id, sent.claim, DONE, ended) is None, "it has ended once"


async def test_one_that_is_called_off_is_not_taken_again_when_its_process_is_gone(desk):
    id_ = await desk.one()
    await desk.claim(lease_s=0.0)
    await CallStore(desk.database).call_off(desk.target_id, id_)
    assert await desk.claim() == []
    assert await desk.claims.list_waiting() == {}
    [off] = await desk.queue.end_called_off(limit=10, history=ended)
    assert (off.id, off.ending, await desk.claims.list_waiting()) == (id_, Ending.CANCELLED, {})


async def test_a_lease_that_is_renewed_is_kept_before_and_after_sending(desk):
    for _ in range(2):
        await desk.one()
    claims = await desk.claim()
    await desk.claims.mark_sent(claims[0].call.id, claims[0].claim)
    await let_time_pass(desk.database, "lease_until")
    await desk.claims.renew({one.call.id: one.claim for one in claims}, lease_s=60.0)
    assert await desk.claim() == []
    assert await desk.queue.end_lost(limit=9, history=ended) == []


async def test_a_task_whose_agent_is_busy_has_its_place_in_the_turn_that_is_under_way(desk):
    held = [
        NewQueued(
            id=str(uuid4()), workspace_id=desk.target_id, caller_id=None, lane="x", priority=50, method="m", body=b"",
            outgoing=WAY, delay_s=0.0, lives_s=60.0,
        )
        for _ in range(2)
    ]  # fmt: skip
    await desk.queue.hold(held[0], row(held[0].id, desk.target_id), error="agent_busy", room=9)
    [out] = await desk.queue.claim(desk.target_id, eager=True, limit=1, lease_s=60.0)
    await desk.queue.hold(held[1], row(held[1].id, desk.target_id), error="agent_busy", room=9)
    id_ = await desk.one()
    [one] = await desk.claim()
    await desk.claims.mark_sent(one.call.id, one.claim)
    assert await desk.claims.put_back(one.call.id, one.claim, delay_s=0.0, error="agent_busy", busy=True, counts=False)
    assert out.call.id == held[0].id
    assert await desk.queue.position(desk.target_id, id_) == 1, "who is out has had its turn"


async def test_what_was_not_sent_is_put_off_and_what_was_waits_its_turn_in_the_queue(desk):
    for lane in ("x", "x", "x"):
        held = NewQueued(
            id=str(uuid4()), workspace_id=desk.target_id, caller_id=None, lane=lane, priority=50, method="m", body=b"",
            outgoing=WAY, delay_s=0.0, lives_s=60.0,
        )  # fmt: skip
        await desk.queue.hold(held, row(held.id, desk.target_id), error="agent_busy", room=9)
    [first] = await desk.queue.claim(desk.target_id, eager=True, limit=1, lease_s=60.0)
    await desk.queue.end(first.call.id, first.claim, DONE, ended)
    ids = [await desk.one() for _ in range(2)]
    one, other = await desk.claim()
    assert await desk.claims.put_back(one.call.id, one.claim, delay_s=60.0, error="draining", busy=False, counts=False)
    assert (await desk.find(ids[0])).state is State.PENDING
    assert await desk.claims.list_waiting() == {}
    await let_time_pass(desk.database, "not_before")
    [one] = await desk.claim()
    for some in (one, other):
        await desk.claims.mark_sent(some.call.id, some.claim)
        busy = {"delay_s": 0.0, "error": "agent_busy", "busy": True, "counts": False}
        assert await desk.claims.put_back(some.call.id, some.claim, **busy)
        assert not await desk.claims.put_back(some.call.id, some.claim, **busy)
    positions = [await desk.queue.position(desk.target_id, id_) for id_ in ids]
    assert positions == [2, 4], "they take turns with those that wait already, and come in the order of being busy"
    order = []
    while some := await desk.queue.claim(desk.target_id, eager=True, limit=9, lease_s=60.0):
        order += [one.call.id for one in some]
        assert len(some) == 1, "out of the queue no more than it may work on"
        await desk.queue.mark_sent(some[0].call.id, some[0].claim)
        assert (await desk.queue.end(some[0].call.id, some[0].claim, DONE, ended)).state is State.COMPLETED
    assert [order.index(id_) for id_ in ids] == [1, 3]


async def test_what_is_out_for_the_first_time_does_not_count_as_out_of_the_queue(desk):
    for _ in range(2):
        await desk.one()
    one, other = await desk.claim()
    for some in (one, other):
        await desk.claims.mark_sent(some.call.id, some.claim)
    await desk.claims.put_back(one.call.id, one.claim, delay_s=0.0, error="agent_busy", busy=True, counts=False)
    assert len(await desk.queue.claim(desk.target_id, eager=True, limit=9, lease_s=60.0)) == 1


async def test_what_nobody_ends_expires_but_not_what_is_out(desk):
    pending, out = [await desk.one() for _ in range(2)]
    parked = await desk.one(state=State.PARKED, outgoing=None)
    acknowledged = await desk.one(state=State.PARKED, outgoing=None)
    recorded = desk.new(outgoing=None)
    assert await desk.store.record(recorded, [row(recorded.id, desk.target_id)])
    assert not await desk.store.record(recorded, [])
    calls = CallStore(desk.database)
    assert (await calls.receive(desk.target_id, acknowledged)).state is State.DISPATCHED
    [first, second] = await desk.claim()
    await desk.claims.mark_sent(second.call.id, second.claim)
    assert second.call.id == out
    assert await desk.store.end_overdue(limit=9, history=ended) == []
    await let_time_pass(desk.database, "expires_at")
    found = await desk.store.end_overdue(limit=9, history=ended)
    assert sorted(call.id for call in found) == sorted([parked, acknowledged, recorded.id])
    await let_time_pass(desk.database, "lease_until")
    [call] = await desk.store.end_overdue(limit=9, history=ended)
    assert (call.id, call.state) == (pending, State.EXPIRED)
    assert first.call.id == pending


async def test_who_has_it_says_how_it_ended_and_who_is_only_sent_it_does_not(desk):
    sent, parked = await desk.one(), await desk.one(state=State.PARKED, outgoing=None)
    [claimed] = await desk.claim()
    await desk.claims.mark_sent(claimed.call.id, claimed.claim)
    how = {"to": State.FAILED, "ending": Ending.AGENT_ERROR, "answer": None, "error": "no", "history": ended}
    assert await desk.store.end(sent, {State.DISPATCHED, State.PARKED}, **how) is None
    assert await desk.store.tell(sent, "queued") is None
    done = await desk.store.end(parked, {State.DISPATCHED, State.PARKED}, **how)
    assert (done.state, done.last_error) == (State.FAILED, "no")
    assert await desk.store.end(parked, {State.DISPATCHED, State.PARKED}, **how) is None
    calls = CallStore(desk.database)
    answered = {"to": State.COMPLETED, "ending": Ending.COMPLETED, "answer": b"{}", "history": ended}
    assert await calls.end(desk.target_id, sent, {State.DISPATCHED, State.PARKED}, **answered) is None
    assert not await calls.keep(desk.target_id, sent, lease_s=0.0)
    assert await desk.claims.end(sent, claimed.claim, DONE, ended) is not None


async def test_the_newest_are_listed_without_their_bodies(desk, migrated):
    ids = [await desk.one() for _ in range(4)]
    other = Desk(migrated, await make(migrated), desk.target_id)
    await other.one()
    result_id = (await desk.find(ids[2])).result_id
    await migrated.execute(
        "insert into activity (id, workspace_id, activity_type, summary) values (%(id)s, %(w)s, 'a2a_receive', 'said')",
        id=result_id, w=desk.source_id,
    )  # fmt: skip
    rows = await desk.store.list_newest(desk.source_id, limit=3)
    assert [(one.id, one.preview) for one in rows] == [(ids[3], None), (ids[2], "said"), (ids[1], None)]
    assert {(one.source_id, one.target_id, one.summary) for one in rows} == {(desk.source_id, desk.target_id, "do it")}


PLAN: Mapping[str, Any] = {
    "id": SOMEBODY, "kind": "delegation", "state": "pending", "workspace_id": SOMEBODY, "caller_id": SOMEBODY,
    "method": "m", "body": b"{}", "lane": "a", "priority": 50, "outgoing": "{}", "error": "agent_busy", "busy": 1,
    "delay_s": 1.0, "lives_s": 60.0, "room": 100, "limit": 10, "lease_s": 60.0, "to": "expired", "ending": "expired",
    "sources": ["dispatched"], "answer": None, "claim": SOMEBODY, "attempts": 1, "summary": "s", "task_key": "k",
    "result_id": SOMEBODY, "told": "queued",
}  # fmt: skip


@pytest.fixture
def planner(migrated_database_url: str) -> Any:
    """Shows how a query would be run where there are many calls of many workspaces, a few of which wait or are out."""
    with closing(psycopg2.connect(migrated_database_url)) as session, session.cursor() as cursor:
        cursor.execute(
            """insert into workspaces (id, name, status, runtime)
               select gen_random_uuid(), 'one', 'online', '' from generate_series(1, 200);
               insert into calls (id, kind, state, ending, ended_at, workspace_id, caller_id, method, body, expires_at,
                                  lane, not_before, lease_until, dispatched_at, claim, task_key)
               select gen_random_uuid(), 'delegation',
                      case n % 20 when 0 then 'pending' when 1 then 'dispatched' else 'completed' end,
                      case when n % 20 < 2 then null else 'completed' end,
                      case when n % 20 < 2 then null else now() end,
                      w.id, w.id, 'message/send', repeat('x', 200)::bytea, now() + make_interval(secs => n - 10),
                      n % 3, now(), now() + make_interval(secs => n - 10), case n % 2 when 0 then now() end,
                      case when n % 20 = 1 then gen_random_uuid() end, n
                 from workspaces w, generate_series(1, 100) n"""
        )
        cursor.execute("analyze")

        def plan(query: str) -> str:
            cursor.execute("explain " + query, PLAN)
            return "\n".join(line for (line,) in cursor.fetchall())

        yield plan


def test_no_query_reads_all_calls(planner: Any):
    for name, query in load("delegation").items():
        plan = planner(query)
        assert "Seq Scan on calls" not in plan, f"{name}\n{plan}"
        assert name == "record" or "on calls" in plan, name
