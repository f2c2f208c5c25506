from contextlib import closing
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg2
import pytest

from gateway.core.calls import Kind, State
from gateway.core.endings import Ending
from gateway.core.journey import Journey
from gateway.core.workspaces import Status
from gateway.ports import Filters, NewWorkspace, StoreConflict, UsageOfDay
from gateway.store.activity import ActivityStore
from gateway.store.calls import CallStore
from gateway.store.workspaces import WorkspaceStore

ROWS = "select method, created_at < now() - interval '50 seconds' as old from activity order by seq"


@pytest.fixture
def store(migrated) -> ActivityStore:
    return ActivityStore(migrated)


@pytest.fixture
async def one(migrated) -> str:
    id_ = str(uuid4())
    await WorkspaceStore(migrated).create(NewWorkspace(id=id_, name="one", status=Status.ONLINE, runtime=""), None)
    return id_


def row(workspace_id: str, **fields: object) -> dict:
    nothing = dict.fromkeys((
        "call_id", "source_id", "target_id", "method", "summary", "status", "duration_ms", "error_detail",
        "request_body", "response_body", "metadata",
    ))  # fmt: skip
    counts = {"calls": 0, "input_tokens": 0, "output_tokens": 0}
    kind = {"id": str(uuid4()), "workspace_id": workspace_id, "activity_type": "a2a_receive", "age_s": 0.0}
    return {**nothing, **counts, **kind, **fields}


async def test_rows_are_kept_in_the_order_of_their_batch_with_the_time_at_which_it_happened(store, one, migrated):
    await store.record([row(one, method=str(number), age_s=60.0 if number == 0 else 0.0) for number in range(50)])
    rows = await migrated.fetch(ROWS)
    assert [found["method"] for found in rows] == [str(number) for number in range(50)]
    assert [found["old"] for found in rows] == [True] + [False] * 49


async def test_a_batch_that_is_sent_again_changes_nothing_and_one_that_overlaps_adds_the_rest(store, one, migrated):
    rows = [row(one, calls=1, input_tokens=number, output_tokens=1) for number in range(4)]
    for batch in (rows[:3], rows[:3], rows):
        await store.record(batch)
    assert await store.usage_today(one) == UsageOfDay(calls=4, input_tokens=6, output_tokens=4)
    assert len(await migrated.fetch(ROWS)) == 4


async def test_of_a_batch_with_a_row_that_is_refused_nothing_is_kept(store, one, migrated):
    with pytest.raises(StoreConflict) as refused:
        await store.record([row(one, calls=1), row(one, activity_type="made up")])
    assert refused.value.constraint == "activity_activity_type_check"
    assert await migrated.fetch(ROWS) == []
    assert await store.usage_today(one) == UsageOfDay()


async def test_rows_of_nobody_are_passed_over(store, one, migrated):
    await store.record([row(str(uuid4()), calls=1), row(one, calls=1)])
    assert len(await migrated.fetch(ROWS)) == 1
    assert (await store.usage_today(one)).calls == 1


async def test_what_does_not_count_leaves_no_trace_in_the_usage(store, one, migrated):
    await store.record([row(one)])
    assert await migrated.fetch("select * from usage") == []


async def test_usage_is_of_today_alone(store, one, migrated):
    await migrated.execute(
        "insert into usage (workspace_id, day, calls) values (%(id)s, (now() at time zone 'utc')::date - 1, 7)", id=one
    )
    assert await store.usage_today(one) == UsageOfDay()


# -- with the calls that have ended


def ended(ending: str = "completed", state: str = "completed", limit_s: float | None = 60.0) -> dict:
    journey = Journey(replica="r", idle_s=1.0, limit_s=limit_s, by_deadline=True, sent_bytes=7, attempts=2, status=200)
    return {"ending": ending, "state": state, "journey": journey}


async def test_a_call_that_was_sent_has_its_row_in_the_ledger_once_with_the_times_it_had(store, one, migrated):
    rows = [
        row(one, call_id=str(uuid4()), method="message/send", duration_ms=1500, age_s=10.0, call=ended()),
        row(one, call_id=str(uuid4()), duration_ms=0, source_id=OTHER, call=ended("ceiling", "failed", None)),
        row(one, call_id=str(uuid4())),
    ]
    await store.record(rows)
    await store.record(rows)
    calls = CallStore(migrated)
    [first, second] = [await calls.find(one, found["call_id"]) for found in rows[:2]]
    assert len(await migrated.fetch("select * from calls")) == 2
    assert (first.kind, first.state, first.ending, first.attempts) == (Kind.PUSH, State.COMPLETED, Ending.COMPLETED, 2)
    assert (first.method, first.caller_id, first.duration_ms) == ("message/send", None, 1500)
    assert (datetime.now(UTC) - first.ended_at).total_seconds() == pytest.approx(10, abs=5)
    assert first.dispatched_at == first.created_at
    assert first.expires_at - first.created_at == timedelta(seconds=60)
    assert first.journey == rows[0]["call"]["journey"]
    assert (second.state, second.ending, second.expires_at) == (State.FAILED, Ending.CEILING, None)
    assert (second.method, second.caller_id) == ("", OTHER)


async def test_of_a_batch_with_a_call_that_is_refused_nothing_is_kept(store, one, migrated):
    with pytest.raises(StoreConflict):
        await store.record([row(one, call_id=str(uuid4()), duration_ms=1, call=ended("completed", "dispatched"))])
    assert await migrated.fetch(ROWS) == []


# -- as it is read

OTHER = "00000000-0000-4000-8000-000000000008"


async def newest(store, one, **filters) -> list[str]:
    return [line.method for line in await store.list_newest(one, Filters(**filters))]


async def test_the_newest_come_first_and_after_a_row_the_oldest(store, one):
    rows = [row(one, method=str(number)) for number in range(5)]
    await store.record(rows[:3])
    await store.record(rows[3:])
    assert await newest(store, one, limit=3) == ["4", "3", "2"]
    after = await store.list_since(one, rows[1]["id"], Filters(limit=2))
    assert [line.method for line in after] == ["2", "3"]
    assert await store.list_since(one, rows[4]["id"], Filters()) == []
    for cursor in (str(uuid4()), "00000000-0000-0000-0000-000000000000"):
        assert await store.list_since(one, cursor, Filters()) is None
    assert await store.list_since(OTHER, rows[1]["id"], Filters()) is None


async def test_all_filters_must_hold(store, one, migrated):
    await store.record([
        row(one, method="person", target_id=one, age_s=100.0),
        row(one, method="agent", source_id=OTHER, target_id=one),
        row(one, method="sent", source_id=one, target_id=OTHER, activity_type="a2a_send"),
        row(one, method="task", source_id=one, activity_type="task_update"),
    ])  # fmt: skip
    assert await newest(store, one, by_people=True) == ["person"]
    assert await newest(store, one, by_people=False) == ["task", "sent", "agent"]
    assert await newest(store, one, peer_id=OTHER) == ["sent", "agent"]
    assert await newest(store, one, peer_id=OTHER, activity_type="a2a_send") == ["sent"]
    assert await newest(store, one, since_s=50.0) == ["task", "sent", "agent"]
    assert await newest(store, one, before=datetime.now(UTC) - timedelta(seconds=50)) == ["person"]
    assert await newest(store, one, since_s=50.0, by_people=True) == []


async def test_the_peer_is_shown_by_its_name(store, one, migrated):
    other = str(uuid4())
    await WorkspaceStore(migrated).create(NewWorkspace(id=other, name="two", status=Status.ONLINE, runtime=""), None)
    await store.record([
        row(one, source_id=other, target_id=one), row(one, source_id=one, target_id=other), row(one, target_id=one),
        row(one, source_id=one, target_id=one),
    ])  # fmt: skip
    assert [line.peer_name for line in await store.list_newest(one, Filters())] == [None, None, "two", "two"]


@pytest.mark.parametrize("draws_first", ["the one that commits first", "the one that commits last"])
@pytest.mark.parametrize("begins_first", ["the one that commits first", "the one that commits last"])
async def test_a_row_whose_transaction_commits_late_is_passed_over_by_nobody(
    store, one, migrated_database_url: str, begins_first: str, draws_first: str
):
    start = row(one, method="start")
    await store.record([start])
    early, late = (psycopg2.connect(migrated_database_url) for _ in range(2))
    with closing(early), closing(late):
        ways = {"the one that commits first": early, "the one that commits last": late}
        others = [name for name in ways if name != begins_first]
        for name in (begins_first, *others):  # the number of the transaction
            with ways[name].cursor() as cursor:
                cursor.execute("select pg_current_xact_id()")
        others = [name for name in ways if name != draws_first]
        for name in (draws_first, *others):  # the number of the row
            with ways[name].cursor() as cursor:
                insert = "insert into activity (id, workspace_id, activity_type, method) values (%s, %s, 'error', %s)"
                cursor.execute(insert, (str(uuid4()), one, name))
        early.commit()
        cursor, seen = start["id"], []

        async def read_on() -> None:
            nonlocal cursor
            for line in await store.list_since(one, cursor, Filters(limit=1)):
                cursor = line.id
                seen.append(line.method)

        await read_on()
        late.commit()
        for _ in range(3):
            await read_on()
    assert sorted(seen) == sorted(ways)
