import asyncio
import re
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any
from uuid import uuid4

import psycopg2
import pytest

from gateway.core.answers import Answer
from gateway.core.calls import END_STATES, MOVES, Call, State
from gateway.core.claims import Claim
from gateway.core.endings import Ending
from gateway.core.queue import FRONT, Place
from gateway.core.workspaces import Status
from gateway.ports import Claimed, NewQueued, NewWorkspace, Outgoing, Placed, QueuedEnd, Same, StoreConflict
from gateway.store.calls import CallStore
from gateway.store.queue import QueueStore
from gateway.store.workspaces import WorkspaceStore
from sql import load
from tests.store.test_calls import ended, looks

SOMEBODY = "00000000-0000-4000-8000-000000000007"
WAY = Outgoing(headers={"Content-Type": "application/json"}, limit_s=12.5, by_deadline=False)
DONE = QueuedEnd(
    to=State.COMPLETED,
    ending=Ending.COMPLETED,
    error=None,
    answer=Answer(status=201, body=b"{}", headers={"A2A-Version": "1.0"}),
    counts=True,
)


@pytest.fixture
def store(migrated) -> QueueStore:
    return QueueStore(migrated)


@pytest.fixture
async def one(migrated) -> str:
    return await make(migrated)


async def make(migrated: Any, **fields: Any) -> str:
    new = NewWorkspace(id=str(uuid4()), name="one", status=Status.ONLINE, runtime="", **fields)
    await WorkspaceStore(migrated).create(new, None)
    return new.id


async def hold(store: QueueStore, workspace_id: str, lane: str = "a", *, room: int = 1000, **fields: Any) -> str:
    call = NewQueued(
        **{
            "id": str(uuid4()), "workspace_id": workspace_id, "caller_id": None, "lane": lane, "priority": 50,
            "method": "message/send", "body": b'{"n": 1.50}\n', "outgoing": WAY, "delay_s": 0.0, "lives_s": 60.0,
            **fields,
        }
    )  # fmt: skip
    assert await store.hold(call, row(call.id, workspace_id), error="agent_busy", room=room) is not None
    return call.id


def row(id_: str, workspace_id: str, **fields: object) -> dict[str, Any]:
    nothing = dict.fromkeys((
        "source_id", "target_id", "method", "summary", "status", "duration_ms", "error_detail", "request_body",
        "response_body", "metadata",
    ))  # fmt: skip
    counts = {"calls": 1, "input_tokens": 0, "output_tokens": 0, "millionths": 0, "age_s": 0.0}
    own = {"id": id_, "call_id": id_, "workspace_id": workspace_id, "activity_type": "a2a_receive"}
    return {**nothing, **counts, **own, **fields}


async def claim(store: QueueStore, workspace_id: str, *, eager: bool = False, limit: int = 100) -> list[Claimed]:
    return list(await store.claim(workspace_id, eager=eager, limit=limit, lease_s=60.0))


def ids(claimed: Sequence[Claimed]) -> list[str]:
    return [one.call.id for one in claimed]


async def finish(store: QueueStore, one: Claimed, end: QueuedEnd = DONE) -> Call | None:
    return await store.end(one.call.id, one.claim, end, ended)


async def back(store: QueueStore, one: Claimed, *, delay_s: float = 0.0, **fields: Any) -> bool:
    how = {"error": "agent_busy", "busy": True, "counts": False, **fields}
    return await store.put_back(one.call.id, one.claim, delay_s=delay_s, **how)


async def let_time_pass(migrated: Any, column: str) -> None:
    await migrated.execute(f"update calls set {column} = now() - interval '10 seconds' where {column} is not null")


async def drained(store: QueueStore, workspace_id: str) -> list[str]:
    """All that wait, in the order in which they are sent, one at a time."""
    order = []
    while some := await claim(store, workspace_id, eager=True, limit=1):
        order += ids(some)
        assert await finish(store, some[0]) is not None
    return order


async def test_a_call_waits_byte_for_byte_and_comes_out_with_how_it_goes(store, one, migrated):
    id_ = await hold(store, one, caller_id=SOMEBODY)
    [got] = await claim(store, one)
    assert (got.call.id, got.body, got.outgoing, got.call.caller_id) == (id_, b'{"n": 1.50}\n', WAY, SOMEBODY)
    assert (got.call.state, got.call.attempts, got.call.busy) == (State.DISPATCHED, 0, 1)
    assert 50 < got.left_s <= 60
    assert await migrated.fetch("select id, call_id from activity") == [{"id": id_, "call_id": id_}]


async def test_neither_a_call_nor_its_row_is_there_without_the_other(store, one, migrated):
    call = NewQueued(
        id=SOMEBODY, workspace_id=one, caller_id=None, lane="", priority=50, method="m", body=b"", outgoing=WAY,
        delay_s=0.0, lives_s=1.0,
    )  # fmt: skip
    with pytest.raises(StoreConflict):
        await store.hold(call, row(SOMEBODY, one, activity_type="made up"), error="agent_busy", room=9)
    assert await migrated.fetch("select id from calls") == []


async def test_a_full_queue_takes_no_more_and_says_before_how_many_wait(store, one):
    new = [
        NewQueued(
            id=str(uuid4()), workspace_id=one, caller_id=None, lane="", priority=50, method="m", body=b"",
            outgoing=WAY, delay_s=0.0, lives_s=9.0,
        )
        for _ in range(3)
    ]  # fmt: skip
    depths = [await store.hold(call, row(call.id, one), error="agent_busy", room=2) for call in new]
    assert [placed and placed.depth for placed in depths] == [1, 2, None]


async def test_no_call_waits_for_a_workspace_that_is_gone(store, one, migrated):
    await migrated.execute("update workspaces set status = 'removed', removed_at = now()")
    with pytest.raises(AssertionError):
        await hold(store, one)


async def test_callers_take_turns_and_each_ones_calls_go_as_they_came(store, one):
    first = [await hold(store, one, "a") for _ in range(5)]
    second = [await hold(store, one, "b") for _ in range(2)]
    third = [await hold(store, one, "c")]
    expected = [first[0], second[0], third[0], first[1], second[1], first[2], first[3], first[4]]
    assert await drained(store, one) == expected


async def test_who_comes_later_does_not_have_to_wait_for_all_that_came_before(store, one):
    first = [await hold(store, one, "a") for _ in range(10)]
    for _ in range(5):
        [some] = await claim(store, one, limit=1)
        await finish(store, some)
    late = await hold(store, one, "b")
    assert (await drained(store, one))[:3] == [first[5], late, first[6]]


async def test_a_lane_has_its_turn_though_its_call_is_out_while_the_next_one_comes(store, one):
    first = await hold(store, one, "a")
    [out] = await claim(store, one)
    second, other = await hold(store, one, "a"), await hold(store, one, "b")
    assert await back(store, out)
    assert await drained(store, one) == [first, other, second]


async def test_who_comes_first_while_a_turn_is_under_way_is_served_in_it(store, one):
    first = await hold(store, one, "a")
    [out] = await claim(store, one)
    second, third, other = [await hold(store, one, lane) for lane in "aab"]
    assert await back(store, out)
    assert await drained(store, one) == [first, other, second, third]


async def test_priority_goes_before_turns(store, one):
    normal, low = await hold(store, one, "a"), await hold(store, one, "b", priority=10)
    high = [await hold(store, one, "c", priority=100) for _ in range(2)]
    assert [await store.position(one, id_) for id_ in (*high, normal, low)] == [1, 2, 3, 4]
    assert await drained(store, one) == [*high, normal, low]


async def test_no_more_are_out_than_the_workspace_may_work_on(store, migrated):
    one = await make(migrated, max_concurrent_tasks=3)
    waiting = [await hold(store, one) for _ in range(5)]
    out = await claim(store, one)
    assert ids(out) == waiting[:3]
    assert await claim(store, one) == []
    await finish(store, out[1])
    assert ids(await claim(store, one)) == waiting[3:4]


async def test_a_call_that_is_answered_gives_its_place_away_before_its_end_is_written(store, migrated):
    one = await make(migrated, max_concurrent_tasks=2)
    waiting = [await hold(store, one) for _ in range(4)]
    first, _ = await claim(store, one)
    late = await store.claim(one, eager=False, limit=100, lease_s=60.0, answered=[first.call.id])
    assert ids(late) == waiting[2:3]
    await finish(store, first)
    assert await claim(store, one) == []


async def test_of_many_that_claim_at_the_same_moment_each_call_goes_to_one_and_no_more_than_may(store, migrated):
    one = await make(migrated, max_concurrent_tasks=4)
    for _ in range(20):
        await hold(store, one)
    found = [some for got in await asyncio.gather(*(claim(store, one, limit=2) for _ in range(6))) for some in got]
    assert len(found) == len(set(ids(found))) == 4


async def test_a_call_that_is_put_back_has_its_old_place_and_lets_nobody_pass_while_it_backs_off(store, one):
    first, second = await hold(store, one), await hold(store, one, "b")
    [got] = await claim(store, one)
    assert await back(store, got, delay_s=60.0)
    assert await claim(store, one) == []
    assert await store.list_waiting() == {one: False}
    [again] = await claim(store, one, eager=True)
    assert (again.call.id, again.call.busy, again.call.attempts) == (first, 2, 0)
    await back(store, again, delay_s=60.0, error="agent_unreachable", busy=False, counts=True)
    assert await claim(store, one, eager=True) == [], "who cannot be reached is not free"
    assert [await store.position(one, id_) for id_ in (first, second)] == [1, 2]


async def test_what_was_claimed_anew_is_not_the_former_ones_any_more(store, one, migrated):
    await hold(store, one)
    [lost] = await claim(store, one)
    await let_time_pass(migrated, "lease_until")
    assert list(await store.free_lost(limit=10)) == [one]
    [mine] = await claim(store, one)
    assert not await store.mark_sent(lost.call.id, lost.claim)
    assert not await back(store, lost)
    assert await finish(store, lost) is None
    await store.renew({lost.call.id: lost.claim}, lease_s=0.0)
    assert await store.mark_sent(mine.call.id, mine.claim)
    done = await finish(store, mine)
    assert (done.state, done.answer, done.answer_status, done.answer_headers) == (
        State.COMPLETED, b"{}", 201, {"A2A-Version": "1.0"},
    )  # fmt: skip
    assert await finish(store, mine) is None


async def test_a_lease_that_is_renewed_is_not_lost_and_one_that_is_not_is_free_or_interrupted(store, migrated):
    one = await make(migrated, max_concurrent_tasks=3)
    for _ in range(3):
        await hold(store, one)
    renewed, unsent, sent = await claim(store, one)
    await store.mark_sent(renewed.call.id, renewed.claim)
    await store.mark_sent(sent.call.id, sent.claim)
    await let_time_pass(migrated, "lease_until")
    await store.renew({renewed.call.id: renewed.claim}, lease_s=60.0)
    gone = await store.end_lost(limit=10, history=ended)
    assert [(call.id, call.state, call.ending) for call in gone] == [
        (sent.call.id, State.INTERRUPTED, Ending.INTERRUPTED)
    ]
    assert list(await store.free_lost(limit=10)) == [one]
    assert await store.position(one, unsent.call.id) == 1
    assert await finish(store, renewed) is not None


@pytest.mark.parametrize("column", ["expires_at", "created_at"])
async def test_what_has_waited_too_long_ends_once_whoever_looks(store, one, migrated, column):
    old = [await hold(store, one) for _ in range(9)]
    [out, *old] = old
    await claim(store, one)
    await let_time_pass(migrated, column)
    young = await hold(store, one)

    async def look() -> list[str]:
        if column == "expires_at":
            return [call.id for call in await store.end_overdue(limit=3, history=ended)]
        return [call.id for call in await store.end_stale(5.0, limit=3, history=ended)]

    found = [id_ for some in await asyncio.gather(*(look() for _ in range(4))) for id_ in some]
    assert sorted(found) == sorted(old), "not what is out, and not what is young"
    assert await store.position(one, young) == 1
    assert (await CallStore(store._database).find(one, out)).state is State.DISPATCHED


async def test_of_two_that_look_at_once_each_ends_as_many_as_it_asks_for(store, one, migrated, migrated_database_url):
    old = [await hold(store, one, lives_s=float(number + 1)) for number in range(10)]
    await migrated.execute("update calls set expires_at = expires_at - interval '1 hour'")
    terms = {"to": "expired", "ending": "expired", "sources": ["queued"], "limit": 4}
    found = looks(migrated_database_url, load("queue")["end_overdue"], terms)
    assert found == [set(old[:4]), set(old[4:8]), set(old[8:])]


async def test_a_call_that_waits_is_cancelled_once_and_one_that_is_out_is_not(store, one, migrated):
    out, waits = await hold(store, one), await hold(store, one)
    await claim(store, one)
    calls = CallStore(migrated)

    async def cancel(id_: str) -> Call | None:
        return await calls.end(
            one, id_, {State.QUEUED, State.PARKED}, to=State.CANCELLED, ending=Ending.CANCELLED, answer=None,
            history=ended, kinds=("queued",),
        )  # fmt: skip

    assert (await cancel(waits)).state is State.CANCELLED
    assert await cancel(waits) is await cancel(out) is None


@pytest.mark.parametrize("sent", [False, True], ids=["before it was sent", "after that"])
async def test_one_that_is_called_off_is_not_taken_again_whoever_had_it(store, one, migrated, sent):
    id_ = await hold(store, one)
    [taken] = await claim(store, one)
    if sent:
        assert await store.mark_sent(id_, taken.claim)
    await CallStore(migrated).call_off(one, id_)
    assert await store.end_called_off(limit=10, history=ended) == [], "a process has it"
    await migrated.execute("update calls set lease_until = now() where id = %(id)s", id=id_)
    assert await store.free_lost(limit=10) == []
    if sent:
        assert await store.end_called_off(limit=10, history=ended) == [], "nobody knows what its agent has done"
        [lost] = await store.end_lost(limit=10, history=ended)
        assert lost.ending is Ending.INTERRUPTED
    else:
        [off] = await store.end_called_off(limit=10, history=ended)
        assert (off.id, off.state, off.ending, off.lease_until) == (id_, State.CANCELLED, Ending.CANCELLED, None)
    assert await store.end_called_off(limit=10, history=ended) == []


async def test_one_that_comes_back_after_it_was_called_off_lets_the_others_pass(store, one, migrated):
    id_, next_ = await hold(store, one), await hold(store, one)
    [taken] = await claim(store, one, limit=1)
    assert taken.call.id == id_
    await CallStore(migrated).call_off(one, id_)
    assert await store.put_back(id_, taken.claim, delay_s=60.0, error="agent_busy", busy=True, counts=False)
    assert [other.call.id for other in await claim(store, one)] == [next_]
    [off] = await store.end_called_off(limit=10, history=ended)
    assert (off.id, off.ending) == (id_, Ending.CANCELLED)


async def test_the_workspaces_for_which_calls_wait_are_found(store, one, migrated):
    other = await make(migrated)
    await make(migrated)
    for _ in range(3):
        await hold(store, one)
    await hold(store, other, delay_s=60.0)
    assert await store.list_waiting() == {one: True, other: False}


LONG = "00000000-0000-4000-8000-00000000000a"
PLAN: Mapping[str, Any] = {
    "id": SOMEBODY, "kind": "queued", "state": "queued", "workspace_id": SOMEBODY, "caller_id": None, "method": "m",
    "body": b"{}", "lane": "a", "priority": 50, "outgoing": "{}", "error": "agent_busy", "agent_busy": "agent_busy",
    "busy": 1, "delay_s": 1.0, "lives_s": 60.0, "room": 100, "limit": 10, "lease_s": 60.0, "older_s": 1.0,
    "eager": True, "to": "expired", "ending": "expired", "sources": ["queued"], "answer": None, "status": 200,
    "headers": "{}", "claim": SOMEBODY, "claims": [SOMEBODY], "ids": [SOMEBODY], "attempts": 1,
    "key": "00", "words": "00", "turn": 1, "seq": 1, "answered": [SOMEBODY],
}  # fmt: skip


@pytest.fixture
def planner(migrated_database_url: str) -> Any:
    """Shows how a query would be run where there are many calls of many workspaces, a few of which wait or are out."""
    with closing(psycopg2.connect(migrated_database_url)) as session, session.cursor() as cursor:
        cursor.execute(
            """insert into workspaces (id, name, status, runtime)
               select gen_random_uuid(), 'one', 'online', '' from generate_series(1, 200);
               insert into calls (id, kind, state, ending, ended_at, workspace_id, method, body, expires_at, lane,
                                  lease_until, dispatched_at)
               select gen_random_uuid(), 'queued',
                      case n % 20 when 0 then 'queued' when 1 then 'dispatched' else 'completed' end,
                      case when n % 20 < 2 then null else 'completed' end,
                      case when n % 20 < 2 then null else now() end,
                      w.id, 'message/send', repeat('x', 200)::bytea, now() + make_interval(secs => n - 10), n % 3,
                      now() + make_interval(secs => n - 10), case n % 2 when 0 then now() end
                 from workspaces w, generate_series(1, 100) n"""
        )
        cursor.execute("analyze")

        def plan(query: str) -> str:
            *before, last = query.rstrip(";").split(";\n")
            for statement in before:
                cursor.execute(statement, PLAN)
            cursor.execute("explain " + last, PLAN)
            return "\n".join(line for (line,) in cursor.fetchall())

        yield plan


def test_no_query_reads_all_calls(planner: Any):
    for name, query in load("queue").items():
        plan = planner(query)
        assert "Seq Scan on calls" not in plan, f"{name}\n{plan}"
        assert "on calls" in plan, name


@pytest.mark.parametrize("after", [FRONT, Place(priority=50, turn=2500, seq=0)], ids=["first page", "in the middle"])
def test_a_page_of_a_long_queue_is_read_from_its_index(migrated_database_url: str, after: Place):
    long = {**PLAN, "workspace_id": LONG, "priority": after.priority, "turn": after.turn, "seq": after.seq, "limit": 50}
    with closing(psycopg2.connect(migrated_database_url)) as session, session.cursor() as cursor:
        cursor.execute(
            """insert into workspaces (id, name, status, runtime) values (%(workspace_id)s, 'long', 'online', '');
               insert into calls (id, kind, state, ending, ended_at, workspace_id, method, body, expires_at, lane, turn)
               select gen_random_uuid(), 'queued', case when n <= 5000 then 'queued' else 'completed' end,
                      case when n > 5000 then 'completed' end, case when n > 5000 then now() end,
                      %(workspace_id)s, 'm', repeat('x', 500)::bytea, now() + interval '1 hour', '', n
                 from generate_series(1, 40000) n;
               analyze calls""",
            long,
        )
        cursor.execute("explain analyze " + load("queue")["list_line"], long)
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert "Seq Scan on calls" not in plan, plan
    pages = re.findall(r"using calls_queue on calls +\(.*?actual time=\S+ rows=([0-9.]+)", plan)
    assert len(pages) == 1, plan
    assert float(pages[0]) <= 51, f"no more than the page is read\n{plan}"


def test_every_move_is_in_the_table():
    assert State.QUEUED in MOVES[State.DISPATCHED]
    assert State.DISPATCHED in MOVES[State.QUEUED]


# -- one message, one call

CLAIM = Claim(key="aa" * 20, words="bb" * 16)


async def again(store: QueueStore, workspace_id: str, *, room: int = 100, kept_s: float = 60.0, **fields: Any) -> Any:
    call = NewQueued(
        **{
            "id": str(uuid4()), "workspace_id": workspace_id, "caller_id": None, "lane": "a", "priority": 50,
            "method": "message/send", "body": b"{}", "outgoing": WAY, "delay_s": 0.0, "lives_s": 60.0,
            "claim": CLAIM, **fields,
        }
    )  # fmt: skip
    placed = await store.hold(call, row(call.id, workspace_id), error="agent_busy", room=room, kept_s=kept_s)
    return placed.depth if isinstance(placed, Placed) else placed


async def test_a_message_waits_once_whoever_writes_it_at_the_same_moment(store, one, migrated):
    said = await asyncio.gather(*(again(store, one) for _ in range(10)))
    assert [found for found in said if not isinstance(found, Same)] == [1]
    [kept] = await migrated.fetch("select id, (select count(*) from activity) as lines from calls")
    assert {(found.call.id, found.words) for found in said if isinstance(found, Same)} == {(kept["id"], True)}
    assert kept["lines"] == 1
    other = await again(store, one, claim=Claim(key=CLAIM.key, words="cc" * 16), room=1)
    assert (other.call.id, other.words) == (kept["id"], False), "though the queue is full"
    assert await again(store, one, claim=None, room=1) is None


@pytest.mark.parametrize(
    ("ending", "stays"),
    [
        (Ending.COMPLETED, True),
        (Ending.AGENT_RESET, True),
        (Ending.AGENT_UNREACHABLE, False),
        (Ending.REJECTED, False),
    ],
)
async def test_only_a_call_that_no_agent_has_taken_leaves_its_message(store, one, ending, stays):
    id_ = await hold(store, one, claim=CLAIM)
    [out] = await claim(store, one)
    assert (await again(store, one)).call.state is State.DISPATCHED
    assert await store.mark_sent(id_, out.claim)
    assert await finish(store, out, replace(DONE, to=END_STATES[ending], ending=ending)) is not None
    assert isinstance(await again(store, one), Same) is stays
    await claim(store, one)
    assert (await again(store, one, kept_s=0.0) == 1) is stays, "for a while"


async def test_a_call_that_was_sent_by_a_process_that_died_keeps_its_message(store, one, migrated):
    id_ = await hold(store, one, claim=CLAIM)
    [out] = await claim(store, one)
    await store.mark_sent(id_, out.claim)
    await let_time_pass(migrated, "lease_until")
    await store.end_lost(limit=10, history=ended)
    said = await again(store, one)
    assert (said.call.id, said.call.ending) == (id_, Ending.INTERRUPTED)


async def test_one_that_was_called_off_while_it_waited_leaves_its_message_though_it_was_out_before(
    store, one, migrated
):
    id_ = await hold(store, one, claim=CLAIM)
    [out] = await claim(store, one)
    await store.mark_sent(id_, out.claim)
    assert await back(store, out)
    await let_time_pass(migrated, "expires_at")
    assert len(await store.end_overdue(limit=10, history=ended)) == 1
    assert await again(store, one) == 1


async def test_the_messages_whose_calls_wait_are_listed_in_one_order(store, one, migrated):
    calls = CallStore(migrated)
    keys = [f"{number:040x}" for number in range(5)]
    for number, key in enumerate(keys):
        await hold(store, one, claim=Claim(key=key, words="bb" * 16), lives_s=100.0 - number)
    await hold(store, one)
    gone, out = await claim(store, one, limit=1), await claim(store, one, limit=1)
    assert gone
    assert not out
    await finish(store, gone[0])
    out = await claim(store, one, limit=1)
    found, after = [], None
    while some := await calls.list_waiting(after, limit=2):
        found += some
        after = some[-1]
    assert [waits.claim for waits in found] == [Claim(key=key, words="bb" * 16) for key in reversed(keys[1:])]
    assert out[0].call.id in {waits.call_id for waits in found}
    assert all(90 < waits.left_s <= 100 for waits in found)
