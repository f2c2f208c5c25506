from uuid import uuid4

import pytest

from gateway.core.workspaces import Status
from gateway.ports import NewWorkspace, StoreConflict, UsageOfDay
from gateway.store.activity import ActivityStore
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
        "request_body", "response_body",
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
