from collections.abc import Collection, Sequence
from dataclasses import replace

import orjson
import pytest

from gateway.core.endings import Ending
from gateway.core.journey import Arrival, Journey
from gateway.ports import LiveUnavailable, Orphan, StoreUnavailable
from gateway.services.activity import ActivityLog
from gateway.services.reaper import Reaper
from tests.services.memory import Batches, Gate, Inbox, agent_streams

TARGET, CALLER = (f"00000000-0000-4000-8000-00000000000{name}" for name in "ab")


class Alive:
    """Which processes have a lease in the database."""

    def __init__(self) -> None:
        self.publishers: set[str] = set()
        self.away = False

    async def find_alive(self, publishers: Sequence[str]) -> Collection[str]:
        if self.away:
            raise StoreUnavailable("away")
        return self.publishers.intersection(publishers)


class Scene:
    """A reaper, and what it sees and says."""

    def __init__(self, bus, heard) -> None:
        self.gate = Gate()
        self.alive = Alive()
        self.heard = heard
        self.rows = Batches()
        self.activity = ActivityLog(self.rows, bus, capacity=10, every_s=1, settled=self.gate.let_go)
        self.calls = Inbox()
        self.streams = agent_streams()
        self.reaper = Reaper(
            gate=self.gate, leases=self.gate, instances=self.alive, calls=self.calls, activity=self.activity,
            streams=self.streams, bus=bus,
        )  # fmt: skip

    async def written(self) -> list:
        await self.activity.flush()
        return self.rows.rows


@pytest.fixture
def scene(bus, heard) -> Scene:
    return Scene(bus, heard)


JOURNEY = Journey(replica="dead", idle_s=300.0, limit_s=None, by_deadline=False, sent_bytes=12)


def orphan(caller_id: str | None = None, call_id: str = "c", journey: Journey | None = JOURNEY) -> Orphan:
    return Orphan(
        call_id=call_id, target_id=TARGET, caller_id=caller_id, method="message/send", trace_id="t", age_s=2.5,
        journey=journey,
    )  # fmt: skip


async def test_a_call_of_a_dead_replica_ends_as_interrupted_for_everybody(scene):
    scene.gate.orphans = {"dead": [orphan(CALLER)]}
    await scene.reaper.tick()
    received, sent = await scene.written()
    for row in (received, sent):
        assert (row["call_id"], row["source_id"], row["target_id"]) == ("c", CALLER, TARGET)
        assert (row["summary"], row["status"]) == ("message/send: interrupted", "error")
        assert (row["error_detail"], row["duration_ms"]) == ("interrupted", 2500)
    assert (received["workspace_id"], received["activity_type"], received["calls"]) == (TARGET, "a2a_receive", 1)
    assert (sent["workspace_id"], sent["activity_type"], sent["calls"]) == (CALLER, "a2a_send", 0)
    *_, ended = await scene.heard()
    assert (ended.type, ended.workspace_id) == ("CALL_ENDED", TARGET)
    assert orjson.loads(ended.payload) == {"call_id": "c", "ending": "interrupted", "status": 503, "duration_ms": 2500}
    assert [(left.call_id, left.cost, left.month) for left in scene.gate.left] == [("c", 0, "")]
    journey = replace(JOURNEY, status=503)
    assert received["call"] == {"state": "interrupted", "ending": "interrupted", "journey": journey}
    assert sent["call"] is None
    assert scene.gate.left[0].arrival == Arrival(ending=Ending.INTERRUPTED, duration_ms=2500, journey=journey)
    assert scene.reaper.interrupted == 1
    await scene.reaper.tick()
    assert scene.reaper.interrupted == 1


async def test_a_call_of_an_older_release_ends_though_nobody_knows_how_it_was_sent(scene):
    scene.gate.orphans = {"dead": [orphan(journey=None)]}
    await scene.reaper.tick()
    [row] = await scene.written()
    assert (row["error_detail"], row["call"], scene.gate.left[0].arrival) == ("interrupted", None, None)


async def test_a_call_that_had_ended_gets_the_row_that_its_replica_did_not_live_to_write(scene):
    arrival = Arrival(ending=Ending.COMPLETED, duration_ms=7, journey=replace(JOURNEY, status=200))
    scene.gate.orphans = {"dead": [replace(orphan(CALLER), arrival=arrival)]}
    await scene.reaper.tick()
    assert scene.gate.settled == []
    received, sent = await scene.written()
    assert received["call"] == {"state": "completed", "ending": "completed", "journey": arrival.journey}
    for row in (received, sent):
        assert (row["status"], row["error_detail"], row["duration_ms"]) == ("ok", None, 7)
    assert await scene.heard() == [], "its replica has told everybody"
    assert (scene.gate.left, scene.reaper.interrupted) == ([], 0)
    assert scene.gate.settled == ["c"], "it is nobody's any more"


async def test_a_persons_call_has_no_caller_to_tell(scene):
    scene.gate.orphans = {"dead": [orphan()]}
    await scene.reaper.tick()
    assert [row["activity_type"] for row in await scene.written()] == ["a2a_receive"]


async def test_who_has_lost_redis_alone_is_not_dead(scene):
    scene.gate.orphans = {"cut off": [orphan()], "dead": [orphan(call_id="d")]}
    scene.alive.publishers = {"cut off"}
    await scene.reaper.tick()
    assert [left.call_id for left in scene.gate.left] == ["d"]
    scene.alive.publishers.clear()
    await scene.reaper.tick()
    assert [left.call_id for left in scene.gate.left] == ["d", "c"]


async def test_a_call_that_the_ledger_has_by_then_goes_on_and_nobody_is_told_of_an_end(scene):
    scene.gate.orphans = {"dead": [orphan(call_id="waits"), orphan()]}
    scene.calls.ledgered = {"waits": 50.0}
    await scene.reaper.tick()
    assert [row["call_id"] for row in await scene.written()] == ["c"]
    assert [(left.call_id, left.keep_s) for left in scene.gate.left] == [("waits", 50.0), ("c", None)]
    assert scene.reaper.interrupted == 1


async def test_what_was_taken_over_while_the_ledger_is_away_ends_later(scene):
    scene.gate.orphans = {"dead": [orphan()]}
    scene.calls.away = True
    with pytest.raises(StoreUnavailable):
        await scene.reaper.tick()
    assert (scene.gate.orphans, scene.reaper.interrupted) == ({}, 0)
    scene.calls.away = False
    await scene.reaper.tick()
    await scene.reaper.tick()
    assert scene.reaper.interrupted == 1


async def test_one_that_cannot_be_ended_does_not_take_the_others_with_it(scene, monkeypatch):
    scene.gate.orphans = {"dead": [orphan(call_id="odd"), orphan(call_id="c")]}
    leave = scene.gate.leave

    def break_one(left) -> None:
        if left.call_id == "odd":
            raise ZeroDivisionError
        leave(left)

    monkeypatch.setattr(scene.gate, "leave", break_one)
    with pytest.raises(ZeroDivisionError):
        await scene.reaper.tick()
    await scene.reaper.tick()
    assert [left.call_id for left in scene.gate.left] == ["c"]


async def test_while_either_cannot_say_who_is_dead_nobody_is(scene):
    scene.gate.orphans = {"dead": [orphan()]}
    scene.alive.away = True
    with pytest.raises(StoreUnavailable):
        await scene.reaper.tick()
    scene.gate.away = True
    with pytest.raises(LiveUnavailable):
        await scene.reaper.tick()
    assert scene.reaper.interrupted == 0
    scene.alive.away = scene.gate.away = False
    await scene.reaper.tick()
    assert scene.reaper.interrupted == 1
