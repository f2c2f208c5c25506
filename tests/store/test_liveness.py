import asyncio
from uuid import uuid4

import pytest

from gateway.core.workspaces import Status
from gateway.ports import NewWorkspace, Wait
from gateway.store.liveness import LivenessStore
from gateway.store.workspaces import WorkspaceStore

REMOVE = "update workspaces set status = 'removed', removed_at = now() where id = %(id)s"


@pytest.fixture
def store(migrated) -> LivenessStore:
    return LivenessStore(migrated)


@pytest.fixture
def workspaces(migrated) -> WorkspaceStore:
    return WorkspaceStore(migrated)


async def make(workspaces: WorkspaceStore) -> str:
    id_ = str(uuid4())
    await workspaces.create(NewWorkspace(id=id_, name="one", status=Status.ONLINE, runtime=""), None)
    return id_


def beat(workspace_id: str, *, age_s: float = 0.0, sign_age_s: float | None = 0.0, **fields: object) -> dict:
    nothing = dict.fromkeys((
        "active_tasks", "current_task", "error_rate", "sample_error", "uptime_seconds", "monthly_spend", "runtime_state"
    ))  # fmt: skip
    return {"workspace_id": workspace_id, "age_s": age_s, "sign_age_s": sign_age_s, **nothing, **fields}


async def silence(store: LivenessStore, workspace_id: str) -> float | None:
    """Whole tens of seconds."""
    silent_s = (await store.silence([workspace_id])).get(workspace_id)
    return None if silent_s is None else silent_s // 10 * 10


async def test_a_workspace_is_silent_since_its_last_sign(store, workspaces):
    one = await make(workspaces)
    assert await silence(store, one) is None
    await store.record([beat(one, age_s=100, sign_age_s=100)])
    assert await silence(store, one) == 100
    await store.record([beat(one, age_s=20, sign_age_s=20)])
    assert await silence(store, one) == 20


async def test_a_beat_that_is_no_sign_leaves_the_silence_as_it_was(store, workspaces):
    one, never = await make(workspaces), await make(workspaces)
    await store.record([beat(one, age_s=100, sign_age_s=100)])
    await store.record([beat(one, sign_age_s=None, runtime_state="wedged"), beat(never, sign_age_s=None)])
    assert (await silence(store, one), await silence(store, never)) == (100, None)
    assert (await workspaces.find(one)).runtime_state == "wedged"


async def test_a_batch_that_comes_late_does_not_take_signs_back(store, workspaces):
    one = await make(workspaces)
    await store.record([beat(one, age_s=10, sign_age_s=10)])
    at = (await workspaces.find(one)).last_heartbeat_at
    await store.record([beat(one, age_s=500, sign_age_s=500)])
    assert await silence(store, one) == 10
    assert (await workspaces.find(one)).last_heartbeat_at == at


async def test_a_touch_is_a_sign_of_now_and_keeps_what_beats_have_said(store, workspaces):
    one, other = await make(workspaces), await make(workspaces)
    await store.record([beat(one, age_s=100, sign_age_s=100, current_task="t")])
    await store.touch(one)
    await store.touch(other)
    assert (await silence(store, one), await silence(store, other)) == (0, 0)
    assert (await workspaces.find(one)).current_task == "t"


async def test_what_a_beat_does_not_say_is_nothing_except_what_was_spent(store, workspaces):
    one = await make(workspaces)
    await store.record([beat(one, active_tasks=3, current_task="t", error_rate=0.5, monthly_spend=500)])
    await store.record([beat(one)])
    found = await workspaces.find(one)
    assert (found.active_tasks, found.current_task, found.error_rate, found.spend.cents) == (0, None, 0.0, 500)
    await store.record([beat(one, monthly_spend=0)])
    assert (await workspaces.find(one)).spend.cents == 0, "a new month"


async def test_a_batch_holds_many_and_passes_over_those_that_are_gone(store, workspaces, migrated):
    some = [await make(workspaces) for _ in range(3)]
    await migrated.execute(REMOVE, id=some[1])
    await store.record([beat(id_, sample_error="e\x00") for id_ in (*some, str(uuid4()))])
    assert sorted((await store.silence(some)).keys()) == sorted([some[0], some[2]])
    assert (await workspaces.find(some[0])).sample_error == "e"


async def test_an_empty_question_has_an_empty_answer(store):
    assert await store.silence([]) == {}


async def test_only_a_change_of_what_was_spent_makes_caches_forget(store, workspaces, migrated):
    one = await make(workspaces)
    await store.record([beat(one, monthly_spend=5)])
    count = "select count(*) as rows from changes"
    before = (await migrated.fetch_one(count))["rows"]
    await store.record([beat(one, monthly_spend=5, current_task="t")])
    await store.record([beat(one)])
    assert (await migrated.fetch_one(count))["rows"] == before
    await store.record([beat(one, monthly_spend=6)])
    assert (await migrated.fetch_one(count))["rows"] == before + 1


async def test_two_replicas_that_write_the_same_workspaces_do_not_block_each_other(store, workspaces):
    some = [await make(workspaces) for _ in range(20)]
    batches = [[beat(id_) for id_ in order] for order in (some, some[::-1]) * 5]
    await asyncio.gather(*(store.record(batch) for batch in batches))
    assert len(await store.silence(some)) == 20


async def test_a_late_batch_does_not_undo_a_newer_beat(store, workspaces, migrated):
    one = await make(workspaces)
    await store.record([beat(one, age_s=1, current_task="new", active_tasks=2, monthly_spend=7)])
    await store.record([beat(one, age_s=5, current_task="old", active_tasks=1, monthly_spend=3)])
    row = await migrated.fetch_one("select current_task, active_tasks, monthly_spend from liveness")
    assert row == {"current_task": "new", "active_tasks": 2, "monthly_spend": 7}


async def test_who_waits_lives_since_it_began_to_and_as_long_as_the_one_it_waits_for(store, workspaces):
    heard, unheard, other, target = [await make(workspaces) for _ in range(4)]
    old = [beat(one, age_s=100, sign_age_s=100) for one in (heard, other)]
    await store.record([*old, beat(target, age_s=20, sign_age_s=20)])
    await store.wait(
        [
            Wait(caller_id=heard, target_id=other, age_s=50),
            Wait(caller_id=unheard, target_id=target, age_s=50),
            Wait(caller_id=str(uuid4()), target_id=target, age_s=0),
        ]
    )
    assert [await silence(store, one) for one in (heard, unheard, other, target)] == [50, 20, 100, 20]
    await store.wait([Wait(caller_id=heard, target_id=heard, age_s=70)])
    assert await silence(store, heard) == 50, "waiting for itself is no news"
