from uuid import uuid4

import orjson
import pytest
from structlog.testing import capture_logs

from gateway.core.usage import Usage
from gateway.ports import StoreConflict, StoreError, StoreTimeout, StoreUnavailable, UsageOfDay
from gateway.services.activity import BATCH, ActivityLog, Line
from tests.harness.world import eventually
from tests.services.memory import Batches, Clock

A = "00000000-0000-4000-8000-00000000000a"


def line(number: int = 0, **fields: object) -> Line:
    return Line(**{"workspace_id": A, "activity_type": "a2a_receive", "method": str(number), **fields})


def nested(levels: int) -> object:
    value: object = "deep"
    for _ in range(levels):
        value = [value]
    return value


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Batches:
    return Batches()


@pytest.fixture
def activity(store, bus, clock) -> ActivityLog:
    return ActivityLog(store, bus, capacity=1000, every_s=0.001, now=clock)


@pytest.fixture
def real(stores, bus) -> ActivityLog:
    return ActivityLog(stores.activity, bus, capacity=1000, every_s=0.001)


def methods(store: Batches) -> list[str]:
    return [row["method"] for row in store.rows]


async def test_everybody_is_told_at_once_and_the_row_waits(activity, store, heard):
    activity.log(line(summary="s", status="ok", source_id="x", target_id=A, duration_ms=5, request_body={"a": 1}))
    event, payload = await heard.one("ACTIVITY_LOGGED")
    assert payload == {
        "activity_type": "a2a_receive",
        "method": "0",
        "summary": "s",
        "status": "ok",
        "source_id": "x",
        "target_id": A,
        "duration_ms": 5,
        "request_body": {"a": 1},
    }
    assert (event.workspace_id, event.sign, store.tries) == (A, False, 0)
    assert repr(activity) == "<ActivityLog waiting=1 dropped=0>"


async def test_a_line_is_a_sign_of_life_only_where_it_says_so(activity, heard):
    activity.log(line(sign=True, response_body="said"))
    event, payload = await heard.one("ACTIVITY_LOGGED")
    assert (event.sign, payload["response_body"]) == (True, "said")


async def test_rows_are_written_in_order_in_batches_with_their_ages(activity, store, clock):
    for number in range(2 * BATCH + 5):
        activity.log(line(number))
    clock.at += 3
    await activity.flush()
    assert [len(batch) for batch in store.taken] == [BATCH, BATCH, 5]
    assert methods(store) == [str(number) for number in range(2 * BATCH + 5)]
    assert {row["age_s"] for row in store.rows} == {3}
    await activity.flush()
    assert len(store.taken) == 3


async def test_what_is_logged_during_a_write_is_written_too(activity, store):
    activity.log(line(0))
    store.during = lambda: store.tries == 1 and activity.log(line(1))
    await activity.flush()
    assert methods(store) == ["0", "1"]


@pytest.mark.parametrize("error", [StoreUnavailable("away"), StoreTimeout("slow")])
async def test_while_the_database_is_away_everything_waits_in_its_order(activity, store, clock, error):
    for number in range(BATCH + 5):
        activity.log(line(number))
    store.refuses = lambda row: error if row["method"] == str(BATCH + 2) else None
    with pytest.raises(type(error)):
        await activity.flush()
    assert repr(activity) == "<ActivityLog waiting=5 dropped=0>"
    activity.log(line(BATCH + 5))
    store.refuses = lambda row: None
    await activity.flush()
    assert methods(store) == [str(number) for number in range(BATCH + 6)]


@pytest.mark.parametrize("error", [StoreConflict("no", constraint="c"), StoreError("odd"), TypeError("no JSON")])
async def test_a_row_that_is_refused_does_not_take_the_others_with_it(activity, store, error):
    for number in range(5):
        activity.log(line(number))
    store.refuses = lambda row: error if row["method"] == "2" else None
    with capture_logs() as logs:
        await activity.flush()
    assert methods(store) == ["0", "1", "3", "4"]
    assert [entry["event"] for entry in logs] == ["activity_refused"]
    assert repr(activity) == "<ActivityLog waiting=0 dropped=0>"


async def test_when_the_database_goes_away_among_single_rows_the_whole_batch_is_repeated(activity, store):
    for number in range(4):
        activity.log(line(number))
    odd, away = StoreError("odd"), StoreUnavailable("away")
    store.refuses = lambda row: {"1": odd, "2": away}.get(row["method"])
    with pytest.raises(StoreUnavailable):
        await activity.flush()
    store.refuses = lambda row: odd if row["method"] == "1" else None
    await activity.flush()
    assert methods(store) == ["0", "0", "2", "3"], "repeating is harmless: rows have ids"


async def test_past_its_capacity_rows_are_lost_counted_and_still_told(store, bus, heard):
    activity = ActivityLog(store, bus, capacity=3, every_s=0.001)
    with capture_logs() as logs:
        for number in range(5):
            activity.log(line(number))
    assert (activity.dropped, logs[-1]["event"], logs[-1]["dropped"]) == (2, "activity_dropped", 2)
    assert await heard.names() == ["ACTIVITY_LOGGED"] * 5
    await activity.flush()
    assert methods(store) == ["0", "1", "2"]
    activity.log(line(5))
    await activity.flush()
    assert methods(store)[-1] == "5"


async def test_past_what_bodies_may_take_rows_wait_without_theirs_until_there_is_room(store, bus, heard):
    activity = ActivityLog(store, bus, capacity=100, capacity_bytes=5000, every_s=0.001)
    store.refuses = lambda row: StoreUnavailable("away")
    body = {"text": "x" * 1500}
    for number in range(5):
        activity.log(line(number, request_body=body))
    activity.log(line(5))
    with pytest.raises(StoreUnavailable):
        await activity.flush()
    store.refuses = lambda row: None
    await activity.flush()
    assert [row["request_body"] for row in store.rows] == [body, body, body, None, None, None]
    assert (methods(store), activity.bodiless) == (["0", "1", "2", "3", "4", "5"], 2)
    activity.log(line(6, response_body=body))
    await activity.flush()
    assert store.rows[-1]["response_body"] == body
    told = [orjson.loads(one.payload) for one in await heard()]
    assert [one.get("request_body") for one in told[:5]] == [body] * 5, "whoever listens is told all of it"


async def test_the_loop_writes_by_itself_and_again_after_the_database_was_away(activity, store, tasks):
    tasks.spawn(activity.run(), "write")
    store.away = True
    activity.log(line(0))
    await eventually(lambda: store.tries > 2)
    store.away = False
    activity.log(line(1))
    await eventually(lambda: len(store.rows) == 2)
    assert methods(store) == ["0", "1"]


async def test_on_the_real_store_usage_is_counted_once_however_often_a_batch_is_sent(stores):
    one = await stores.make()
    rows = [
        line(workspace_id=one, usage=Usage(input_tokens=3, output_tokens=5), counts=True).row(1.0),
        line(workspace_id=one, usage=Usage(input_tokens=4), counts=True).row(0.0),
        line(workspace_id=one, activity_type="a2a_send").row(0.0),
    ]
    for batch in (rows[:1], rows, rows):
        await stores.activity.record(batch)
    assert await stores.activity.usage_today(one) == UsageOfDay(calls=2, input_tokens=7, output_tokens=5)
    assert await stores.ask("select count(*) from activity") == 3


async def test_on_the_real_store_a_bad_row_and_one_of_nobody_leave_the_others_in_place(stores, real):
    one = await stores.make()
    good = {"workspace_id": one, "counts": True}
    for fields in (good, {**good, "activity_type": "made up"}, {**good, "source_id": "no uuid"}, good):
        real.log(line(**fields))
    real.log(line(workspace_id=str(uuid4()), counts=True))
    with capture_logs() as logs:
        await real.flush()
    assert [(entry["event"], entry["error"]) for entry in logs] == [
        ("activity_refused", "StoreConflict"),
        ("activity_refused", "StoreError"),
    ]
    assert (await stores.activity.usage_today(one)).calls == 2


@pytest.mark.parametrize("body", [nested(300), {"\ud800": "\udfff"}, {1: 2}, 2**70])
async def test_a_body_that_cannot_be_written_costs_the_row_nothing_but_its_bodies(stores, real, heard, body):
    """A caller must not be able to hide a call, or not to be counted, by what it sends."""
    one = await stores.make()
    real.log(line(workspace_id=one, request_body=body, response_body="fine", counts=True, usage=Usage(input_tokens=7)))
    real.log(line(workspace_id=one, request_body={"kept": True}))
    with capture_logs() as logs:
        await real.flush()
    assert [(entry["event"], entry["bodies"]) for entry in logs] == [("activity_refused", True)]
    assert await stores.activity.usage_today(one) == UsageOfDay(calls=1, input_tokens=7)
    assert await stores.ask("select array_agg(request_body order by seq) from activity") == [None, {"kept": True}]
    assert len(await heard.names()) == 2


async def test_on_the_real_store_a_row_keeps_its_words_and_its_time(stores, real):
    one, other = await stores.make(), await stores.make()
    call_id = str(uuid4())
    await stores.activity.record(
        [
            line(
                workspace_id=one, call_id=call_id, source_id=other, target_id=one, status="error", summary="a\x00b",
                duration_ms=2**40, error_detail="why", request_body={"a": ["\x00x", 1.5]}, response_body=None,
            ).row(3600.0)
        ]
    )  # fmt: skip
    row = await stores.database.fetch_one("select *, now() - created_at > '59 minutes' as old from activity")
    assert (row["call_id"], row["source_id"], row["status"]) == (call_id, other, "error")
    assert (row["summary"], row["duration_ms"], row["error_detail"], row["old"]) == ("ab", 2**40, "why", True)
    assert (row["request_body"], row["response_body"]) == ({"a": ["x", 1.5]}, None)
    assert orjson.dumps(row["method"]) == b'"0"'
