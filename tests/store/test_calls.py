import asyncio
from collections.abc import Mapping, Sequence
from contextlib import closing
from typing import Any
from uuid import uuid4

import psycopg2
import pytest

from gateway.core.calls import END_STATES, INBOX_KINDS, MOVES, Call, Kind, State
from gateway.core.claims import Claim
from gateway.core.endings import Ending
from gateway.core.workspaces import Status
from gateway.ports import NewCall, NewWorkspace, Same, StoreConflict
from gateway.store.calls import CallStore
from gateway.store.workspaces import WorkspaceStore
from sql import load

SOMEBODY = "00000000-0000-4000-8000-000000000007"
PLAN: Mapping[str, Any] = {
    "id": SOMEBODY, "kind": "parked", "state": "parked", "workspace_id": SOMEBODY, "caller_id": None, "method": "m",
    "body": b"{}", "waits_s": 0.0, "lives_s": 60.0, "room": 100, "limit": 10, "limit_bytes": 1000, "lease_s": 60.0,
    "kinds": sorted(INBOX_KINDS), "sources": ["parked"], "to": "expired", "ending": "expired",
    "answer": None, "key": "00", "words": "00", "kept_s": 60.0, "undelivered": ["rejected"],
    "called_off": ["expired"], "ids": [SOMEBODY], "expires_at": "-infinity",
}  # fmt: skip


@pytest.fixture
def store(migrated) -> CallStore:
    return CallStore(migrated)


@pytest.fixture
async def one(migrated) -> str:
    id_ = str(uuid4())
    await WorkspaceStore(migrated).create(NewWorkspace(id=id_, name="one", status=Status.ONLINE, runtime=""), None)
    return id_


def new(workspace_id: str, **fields: Any) -> NewCall:
    return NewCall(
        **{
            "id": str(uuid4()),
            "kind": Kind.PARKED,
            "workspace_id": workspace_id,
            "caller_id": None,
            "method": "message/send",
            "body": b'{"a":1}',
            "waits_s": 0.0,
            "lives_s": 60.0,
            **fields,
        }
    )


def row(call: NewCall, **fields: object) -> dict[str, Any]:
    nothing = dict.fromkeys((
        "source_id", "target_id", "method", "summary", "status", "duration_ms", "error_detail", "request_body",
        "response_body", "metadata",
    ))  # fmt: skip
    counts = {"calls": 1, "input_tokens": 0, "output_tokens": 0, "millionths": 0}
    kind = {"id": call.id, "call_id": call.id, "workspace_id": call.workspace_id, "activity_type": "a2a_receive"}
    return {**nothing, **counts, **kind, "age_s": 0.0, **fields}


def ended(call: Call) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    became = {"id": call.id, "status": "ok", "summary": call.state.value, "duration_ms": 5}
    used = dict.fromkeys(("input_tokens", "output_tokens", "millionths"), 0)
    return {**became, **used, "error_detail": None, "response_body": None}, []


async def park(store: CallStore, workspace_id: str, *, room: int = 100, **fields: Any) -> NewCall:
    call = new(workspace_id, **fields)
    assert await store.park(call, row(call), room=room)
    return call


async def take(store: CallStore, workspace_id: str, **limits: Any) -> list[str]:
    taken = await store.take(workspace_id, **{"limit": 10, "limit_bytes": 1000, "lease_s": 60.0, **limits})
    return [one.call.id for one in taken]


async def end(store: CallStore, call: NewCall, to: State = State.COMPLETED, **fields: Any) -> Call | None:
    fields = {"ending": Ending.COMPLETED, "answer": b"{}", "history": ended, **fields}
    return await store.end(call.workspace_id, call.id, MOVES[to], to=to, **fields)


async def let_time_pass(migrated: Any, column: str) -> None:
    await migrated.execute(f"update calls set {column} = now() - interval '1 second'")


def looks(database_url: str, query: str, terms: Mapping[str, Any]) -> list[set[str]]:
    """What one session, another and that other again find, in transactions that are open at the same time.

    The planner is kept from the plans that would work however the query is written.
    """
    with closing(psycopg2.connect(database_url)) as first, closing(psycopg2.connect(database_url)) as second:
        found = []
        for session in (first, second, second):
            with session.cursor() as cursor:
                cursor.execute("set enable_hashjoin = off; set enable_hashagg = off; set enable_sort = off")
                cursor.execute(query, terms)
                found.append({row[0] for row in cursor.fetchall()})
        for session in (first, second):
            session.commit()
        return found


async def test_a_call_lies_in_the_inbox_byte_for_byte_with_its_row_of_history(store, one, migrated):
    call = await park(store, one, body=b'{"n": 1.50, "s":"\\u0000"}\n', caller_id=SOMEBODY)
    [message] = await store.take(one, limit=10, limit_bytes=1000, lease_s=60.0)
    assert (message.body, message.call.caller_id, message.call.attempts) == (call.body, SOMEBODY, 1)
    assert (message.call.state, message.call.kind) == (State.PARKED, Kind.PARKED)
    assert await migrated.fetch("select id, call_id from activity") == [{"id": call.id, "call_id": call.id}]


async def test_neither_a_call_nor_its_row_is_there_without_the_other(store, one, migrated):
    call = new(one)
    with pytest.raises(StoreConflict):
        await store.park(call, row(call, activity_type="made up"), room=10)
    assert await store.find(one, call.id) is None
    assert await migrated.fetch("select id from activity") == []


async def test_a_full_inbox_takes_no_more_until_something_has_left_it(store, one):
    first, second = [await park(store, one, room=2) for _ in range(2)]
    third = new(one)
    assert not await store.park(third, row(third), room=2)
    assert await end(store, first) is not None
    assert await store.park(third, row(third), room=2)
    assert await take(store, one) == [second.id, third.id]


async def test_nobody_parks_a_call_with_a_workspace_that_is_gone(store, one, migrated):
    await migrated.execute("update workspaces set status = 'removed', removed_at = now()")
    for workspace_id in (one, SOMEBODY):
        call = new(workspace_id)
        assert not await store.park(call, row(call), room=2)


async def test_messages_come_oldest_first_up_to_a_number_and_a_size_but_one_at_least(store, one):
    calls = [await park(store, one, body=bytes(size)) for size in (600, 300, 50, 200, 1)]
    ids = [call.id for call in calls]
    assert await take(store, one, limit_bytes=100) == ids[:1]
    assert await take(store, one, limit=2) == ids[1:3]
    assert await take(store, one, limit_bytes=200) == ids[3:4]
    assert await take(store, one) == ids[4:]


async def test_what_one_has_taken_nobody_else_gets_before_its_lease_is_over(store, one, migrated):
    call = await park(store, one)
    assert await store.next_free_s(one) is None
    assert await take(store, one) == [call.id]
    assert await take(store, one) == []
    assert 50 < (await store.next_free_s(one)) <= 60
    await let_time_pass(migrated, "lease_until")
    [again] = await store.take(one, limit=1, limit_bytes=1, lease_s=60.0)
    assert again.call.attempts == 2


async def test_two_that_take_at_the_same_moment_get_different_messages(store, one):
    ids = [(await park(store, one)).id for _ in range(20)]
    taken = await asyncio.gather(*(take(store, one, limit=5) for _ in range(4)))
    assert sorted(id_ for some in taken for id_ in some) == sorted(ids)


async def test_a_lease_that_is_kept_begins_anew_as_long_as_the_call_lives(store, one, migrated):
    call = await park(store, one)
    await take(store, one)
    assert await store.keep(one, call.id, lease_s=500.0)
    assert (await store.next_free_s(one)) > 400
    await end(store, call)
    assert not await store.keep(one, call.id, lease_s=500.0)
    assert not await store.keep(SOMEBODY, call.id, lease_s=500.0)


async def test_a_call_whose_caller_waits_is_received_and_is_in_the_inbox_no_more(store, one, migrated):
    waits, alone = await park(store, one, waits_s=60.0), await park(store, one)
    assert (await store.receive(one, waits.id)).state is State.DISPATCHED
    assert await store.receive(one, waits.id) is None
    assert await store.receive(one, alone.id) is None
    assert await take(store, one) == [alone.id]
    assert (await end(store, waits)).state is State.COMPLETED


async def test_a_call_ends_once_and_its_history_with_it(store, one, migrated):
    call = await park(store, one)
    done = await end(store, call, answer=b'{"result":1}')
    assert (done.state, done.ending, done.answer) == (State.COMPLETED, Ending.COMPLETED, b'{"result":1}')
    for to in (State.COMPLETED, State.CANCELLED, State.EXPIRED):
        assert await end(store, call, to) is None
    assert await end(store, new(SOMEBODY)) is None
    assert await store.find(one, call.id) == done
    assert await migrated.fetch("select summary, duration_ms from activity") == [
        {"summary": "completed", "duration_ms": 5}
    ]


async def test_of_an_end_whose_history_cannot_be_written_nothing_is_left(store, one):
    call = await park(store, one)

    def bad(ended_call: Call) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
        return ended(ended_call)[0], [row(call, id=str(uuid4()), activity_type="made up")]

    with pytest.raises(StoreConflict):
        await end(store, call, history=bad)
    assert (await store.find(one, call.id)).state is State.PARKED


async def test_of_many_that_end_a_call_at_the_same_moment_one_does(store, one):
    call = await park(store, one)
    ends = await asyncio.gather(*(end(store, call, answer=str(number).encode()) for number in range(4)))
    [done] = [found for found in ends if found is not None]
    assert await store.find(one, call.id) == done


async def test_calls_whose_time_is_over_end_once_whoever_looks(store, one, migrated):
    for _ in range(10):
        await park(store, one)
    await let_time_pass(migrated, "expires_at")
    living = await park(store, one)
    assert await take(store, one) == [living.id]
    looks = [store.end_overdue(State.PARKED, to=State.EXPIRED, ending=Ending.EXPIRED, limit=4, history=ended)
             for _ in range(4)]  # fmt: skip
    found = [call.id for some in await asyncio.gather(*looks) for call in some]
    assert len(found) == len(set(found)) == 10
    assert (await store.find(one, living.id)).state is State.PARKED
    assert [
        row["count"] for row in await migrated.fetch("select count(*) from activity where summary = 'expired'")
    ] == [10]


async def test_of_two_that_look_at_once_each_ends_as_many_as_it_asks_for(store, one, migrated, migrated_database_url):
    ids = [(await park(store, one, lives_s=float(number + 1))).id for number in range(10)]
    await migrated.execute("update calls set expires_at = expires_at - interval '1 hour'")
    terms = {"state": "parked", "to": "expired", "ending": "expired", "sources": ["parked"], "limit": 4}
    found = looks(migrated_database_url, load("calls")["end_overdue"], terms)
    assert found == [set(ids[:4]), set(ids[4:8]), set(ids[8:])]


async def test_a_call_goes_with_its_workspace(store, one, migrated):
    call = await park(store, one)
    await migrated.execute("delete from workspaces")
    assert await store.find(one, call.id) is None


@pytest.fixture
def planner(migrated_database_url: str) -> Any:
    """Shows how a query would be run where there are many rows of many workspaces."""
    with closing(psycopg2.connect(migrated_database_url)) as session, session.cursor() as cursor:
        cursor.execute(
            """insert into workspaces (id, name, status, runtime)
               select gen_random_uuid(), 'one', 'online', '' from generate_series(1, 200);
               insert into calls (id, kind, state, ending, ended_at, workspace_id, method, body, expires_at)
               select gen_random_uuid(), 'parked', case n % 20 when 0 then 'parked' else 'completed' end,
                      case n % 20 when 0 then null else 'completed' end, case n % 20 when 0 then null else now() end,
                      w.id, 'message/send', repeat('x', 200)::bytea, now() + make_interval(secs => n - 1000)
                 from workspaces w, generate_series(1, 100) n;
               insert into activity (id, workspace_id, activity_type)
               select gen_random_uuid(), workspace_id, 'a2a_receive' from calls, generate_series(1, 5)"""
        )
        cursor.execute("analyze")

        def plan(query: str, params: Mapping[str, Any]) -> str:
            cursor.execute("explain " + query, params)
            return "\n".join(line for (line,) in cursor.fetchall())

        yield plan


def test_no_query_reads_all_calls(planner: Any):
    for name, query in load("calls").items():
        plan = planner(query, PLAN)
        assert "on calls" in plan, name
        assert "Seq Scan on calls" not in plan, name


HISTORY = {
    "activity_type": "error", "by_people": True, "peer_id": SOMEBODY, "since_s": 60.0, "before": None, "limit": 100,
    "workspace_id": SOMEBODY, "id": SOMEBODY, "xid": "5", "seq": 5, "rows": "[]",
}  # fmt: skip


def test_no_query_reads_all_of_history(planner: Any):
    for name in ("end", "find_cursor", "list_newest", "list_since"):
        plan = planner(load("activity")[name], HISTORY)
        assert "on activity" in plan, name
        assert "Seq Scan on activity" not in plan, name


# -- one message, one call

CLAIM = Claim(key="aa" * 20, words="bb" * 16)


async def again(store: CallStore, workspace_id: str, *, kept_s: float = 60.0, **fields: Any) -> bool | Same:
    call = new(workspace_id, **{"claim": CLAIM, **fields})
    return await store.park(call, row(call), room=100, kept_s=kept_s)


async def test_a_message_has_one_call_whoever_writes_it_at_the_same_moment(store, one, migrated):
    said = await asyncio.gather(*(again(store, one) for _ in range(10)))
    assert [one_ for one_ in said if one_ is True] == [True]
    [(call_id, activity)] = [tuple(one_.values()) for one_ in await migrated.fetch(
        "select id::text, (select count(*) from activity) from calls")]  # fmt: skip
    assert activity == 1, "and one row of history"
    assert {(one_.call.id, one_.words) for one_ in said if one_ is not True} == {(call_id, True)}


async def test_other_words_are_told_and_another_message_is_another_call(store, one):
    call = await park(store, one, claim=CLAIM)
    said = await again(store, one, claim=Claim(key=CLAIM.key, words="cc" * 16))
    assert (said.call.id, said.words) == (call.id, False)
    assert await again(store, one, claim=Claim(key="dd" * 20, words=CLAIM.words)) is True
    assert await again(store, one, claim=None) is True


async def test_a_full_inbox_still_knows_what_lies_in_it(store, one):
    call = await park(store, one, claim=CLAIM)
    same = new(one, claim=CLAIM)
    assert (await store.park(same, row(same), room=1, kept_s=60.0)).call.id == call.id


async def test_a_call_that_has_ended_has_its_message_for_a_while_and_one_that_expired_has_not(store, one, migrated):
    first = await park(store, one, claim=CLAIM)
    await end(store, first, answer=b"{}")
    said = await again(store, one)
    assert (said.call.id, said.call.answer) == (first.id, b"{}")
    await let_time_pass(migrated, "ended_at")
    assert await again(store, one, kept_s=0.5) is True
    await let_time_pass(migrated, "expires_at")
    await store.end_overdue(State.PARKED, to=State.EXPIRED, ending=Ending.EXPIRED, limit=10, history=ended)
    assert await again(store, one) is True, "no agent has seen it"
    assert (await store.find(one, first.id)).answer == b"{}"


async def test_who_stays_for_the_answer_of_an_earlier_call_is_waited_for(store, one):
    call = await park(store, one, claim=CLAIM)
    assert await store.receive(one, call.id) is None
    await again(store, one, waits_s=60.0)
    await again(store, one, waits_s=1.0)
    received = await store.receive(one, call.id)
    assert received is not None
    assert received.state is State.DISPATCHED


@pytest.mark.parametrize("ending", [Ending.EXPIRED, Ending.CANCELLED])
async def test_a_call_that_was_called_off_leaves_its_message_unless_an_agent_had_it(store, one, ending):
    to = END_STATES[ending]
    handed_out = await park(store, one, claim=CLAIM)
    assert await take(store, one, lease_s=0.0) == [handed_out.id]
    await store.end(one, handed_out.id, {State.PARKED}, to=to, ending=ending, answer=None, history=ended)
    said = await again(store, one)
    assert (said.call.id, said.call.ending) == (handed_out.id, ending), "nobody knows what it has done with it"
    assert await store.find_same(CLAIM, kept_s=60.0) == said
    untouched = await park(store, one, claim=Claim(key="cc" * 20, words="bb" * 16))
    await store.end(one, untouched.id, {State.PARKED}, to=to, ending=ending, answer=None, history=ended)
    assert await store.find_same(Claim(key="cc" * 20, words="bb" * 16), kept_s=60.0) is None
    assert await again(store, one, claim=Claim(key="cc" * 20, words="dd" * 16)) is True


async def test_the_call_of_a_message_is_found_for_as_long_as_it_has_it(store, one, migrated):
    assert await store.find_same(CLAIM, kept_s=60.0) is None
    call = await park(store, one, claim=CLAIM)
    found = await store.find_same(CLAIM, kept_s=60.0)
    assert (found.call.id, found.words) == (call.id, True)
    assert (await store.find_same(Claim(key=CLAIM.key, words="cc" * 16), kept_s=60.0)).words is False
    await end(store, call)
    await let_time_pass(migrated, "ended_at")
    assert (await store.find_same(CLAIM, kept_s=60.0)).call.answer == b"{}"
    assert await store.find_same(CLAIM, kept_s=0.5) is None


async def test_what_the_ledger_has_is_told_from_what_it_does_not_know(store, one, migrated):
    calls = [await park(store, one, lives_s=100.0) for _ in range(2)]
    await migrated.execute("update calls set kind = 'push', expires_at = null where id = %(id)s", id=calls[1].id)
    found = await store.list_ledgered([SOMEBODY, *(call.id for call in calls)])
    assert set(found) == {call.id for call in calls}
    assert 90 < found[calls[0].id] <= 100
    assert found[calls[1].id] == 0
    await let_time_pass(migrated, "expires_at")
    assert await store.list_ledgered([calls[0].id]) == {calls[0].id: 0.0}
