import asyncio

import pytest
from structlog.testing import capture_logs

from gateway.core.workspaces import Beat
from gateway.ports import StoreConflict, StoreTimeout, StoreUnavailable
from gateway.services.heartbeats import Heartbeats
from tests.harness.world import eventually
from tests.services.memory import Batches, Clock

A, B = "00000000-0000-4000-8000-00000000000a", "00000000-0000-4000-8000-00000000000b"
WEDGED = Beat(runtime_state="wedged")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Batches:
    return Batches()


@pytest.fixture
def heartbeats(store, clock) -> Heartbeats:
    return Heartbeats(store, every_s=0.001, now=clock)


async def test_the_newest_beat_of_each_workspace_is_written_in_one_batch_with_its_age(heartbeats, store, clock):
    heartbeats.note(A, Beat(active_tasks=1, current_task="old"))
    clock.at += 2
    heartbeats.note(A, Beat(active_tasks=2, error_rate=0.25, uptime_seconds=7))
    clock.at += 3
    heartbeats.note(B, Beat())
    await heartbeats.flush()
    [[first, second]] = store.taken
    assert (first["workspace_id"], second["workspace_id"]) == (A, B)
    assert (first["active_tasks"], first["current_task"], first["error_rate"]) == (2, None, 0.25)
    assert (first["age_s"], first["sign_age_s"], second["age_s"]) == (3, 3, 0)
    await heartbeats.flush()
    assert len(store.taken) == 1, "nothing is written twice"


@pytest.mark.parametrize(
    ("beats", "sign_age_s"),
    [
        ([Beat()], 4),
        ([WEDGED], None),
        ([Beat(), WEDGED], 5),
        ([Beat(), WEDGED, WEDGED], 6),
        ([WEDGED, Beat()], 4),
        ([Beat(), Beat(), WEDGED], 5),
    ],
)
async def test_a_wedged_beat_is_no_sign_and_keeps_the_earlier_one(heartbeats, store, clock, beats, sign_age_s):
    for beat in beats:
        heartbeats.note(A, beat)
        clock.at += 1
    clock.at += 3
    await heartbeats.flush()
    [row] = store.rows
    assert (row["age_s"], row["sign_age_s"]) == (4, sign_age_s)


async def test_what_was_spent_stays_said_when_the_next_beat_does_not_say(heartbeats, store):
    for beat in (Beat(monthly_spend=500), Beat(), Beat(active_tasks=1)):
        heartbeats.note(A, beat)
    await heartbeats.flush()
    assert (store.rows[0]["monthly_spend"], store.rows[0]["active_tasks"]) == (500, 1)


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreTimeout("slow")])
async def test_what_could_not_be_written_stays_and_grows_older(heartbeats, store, clock, error):
    heartbeats.note(A, Beat(current_task="kept"))
    store.refuses = lambda row: error
    with pytest.raises(type(error)):
        await heartbeats.flush()
    assert repr(heartbeats) == "<Heartbeats pending=1>"
    clock.at += 10
    store.refuses = lambda row: None
    await heartbeats.flush()
    assert [(row["current_task"], row["age_s"], row["sign_age_s"]) for row in store.rows] == [("kept", 10, 10)]


async def test_what_came_during_a_write_that_failed_is_newer_than_what_it_tried_to_write(heartbeats, store, clock):
    heartbeats.note(A, Beat(current_task="old", monthly_spend=9))
    heartbeats.note(B, Beat(current_task="only"))

    def meanwhile() -> None:
        clock.at += 1
        heartbeats.note(A, Beat(current_task="new", runtime_state="wedged"))

    store.during, store.away = meanwhile, True
    with pytest.raises(StoreUnavailable):
        await heartbeats.flush()
    store.during, store.away = (lambda: None), False
    await heartbeats.flush()
    rows = {row["workspace_id"]: row for row in store.rows}
    assert (rows[A]["current_task"], rows[A]["age_s"], rows[A]["sign_age_s"]) == ("new", 0, 1)
    assert (rows[A]["monthly_spend"], rows[B]["current_task"]) == (9, "only")


async def test_what_came_during_a_write_is_written_by_the_next(heartbeats, store):
    heartbeats.note(A, Beat(current_task="first"))
    store.during = lambda: heartbeats.note(A, Beat(current_task="second"))
    await heartbeats.flush()
    store.during = lambda: None
    await heartbeats.flush()
    assert [row["current_task"] for row in store.rows] == ["first", "second"]


async def test_a_write_that_is_cancelled_loses_nothing(heartbeats, store):
    heartbeats.note(A, Beat(current_task="kept"))
    store.during = asyncio.current_task().cancel
    with pytest.raises(asyncio.CancelledError):
        await heartbeats.flush()
    asyncio.current_task().uncancel()
    store.during = lambda: None
    await heartbeats.flush()
    assert [row["current_task"] for row in store.rows] == ["kept"]


async def test_a_beat_that_the_database_refuses_does_not_take_the_others_with_it(heartbeats, store):
    for key in (A, B):
        heartbeats.note(key, Beat())
    store.refuses = lambda row: StoreConflict("no", constraint="c") if row["workspace_id"] == A else None
    with capture_logs() as logs:
        await heartbeats.flush()
    assert [row["workspace_id"] for row in store.rows] == [B]
    assert [(entry["event"], entry["workspace_id"]) for entry in logs] == [("heartbeat_refused", A)]
    assert repr(heartbeats) == "<Heartbeats pending=0>"


async def test_the_loop_writes_by_itself_and_again_after_the_database_was_away(heartbeats, store, tasks):
    tasks.spawn(heartbeats.run(), "write")
    store.away = True
    heartbeats.note(A, Beat(current_task="first"))
    await eventually(lambda: store.tries > 2)
    assert store.rows == []
    store.away = False
    await eventually(lambda: store.rows)
    heartbeats.note(A, Beat(current_task="second"))
    await eventually(lambda: len(store.rows) == 2)


async def test_on_the_real_store_signs_and_spending_survive_a_wedged_beat_that_says_nothing(stores, clock):
    one = await stores.make()
    heartbeats = Heartbeats(stores.liveness, every_s=1, now=clock)
    heartbeats.note(one, Beat(monthly_spend=500, error_rate=0.5))
    clock.at += 100
    await heartbeats.flush()
    heartbeats.note(one, WEDGED)
    await heartbeats.flush()
    workspace = await stores.workspaces.find(one)
    assert (workspace.spend.cents, workspace.runtime_state, workspace.error_rate) == (500, "wedged", 0.0)
    silence = await stores.liveness.silence([one])
    assert silence[one] >= 100
