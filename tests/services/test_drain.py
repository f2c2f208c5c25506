"""The drain's steps, on the real database, with an agent that is only an outcome."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from gateway.core.address import Reach
from gateway.core.calls import Call, State
from gateway.core.endings import Ending
from gateway.core.outcomes import Answered, Cancelled, NotConnected, Reset, TooLarge
from gateway.core.prices import Price, Prices
from gateway.core.rates import Tariff
from gateway.core.workspaces import Workspace
from gateway.ports import Barred, NewQueued, Outgoing, QueuedEnd, StoreUnavailable
from gateway.services import settling as settling_module
from gateway.services.activity import ActivityLog, Line
from gateway.services.admission import Admission
from gateway.services.attempts import Attempts
from gateway.services.directory import Directory
from gateway.services.drain import Drain
from gateway.services.entrance import Entrance
from gateway.services.history import ended_row
from gateway.services.parking import Parking
from gateway.services.parking import Times as ParkingTimes
from gateway.services.requests import Requests, Times
from gateway.services.room import Room
from gateway.services.settling import Settling
from gateway.services.tolls import Tolls
from gateway.services.wakes import Wakes
from gateway.store.queue import QueueStore
from tests.harness.world import eventually, until
from tests.services.memory import Batches, Dispatcher, Gate, agent_streams

REPLY = b'{"jsonrpc":"2.0","id":"1","result":{"kind":"message","usage":{"input_tokens":3,"output_tokens":4}}}'
LONG = b'{"result":{"text":"' + b"x" * 70_000 + b'","usage":{"input_tokens":3,"output_tokens":4}}}'
DONE = Answered(status=200, headers={"Content-Type": "application/json"}, body=REPLY)
BUSY = Answered(status=429, headers={}, body=b"")
WAY = Outgoing(headers={"traceparent": f"00-{'a' * 32}-{'b' * 16}-01"}, limit_s=60.0, by_deadline=False)


class Store(QueueStore):
    """The real one, that fails and is late where the test wants."""

    def __init__(self, database: Any) -> None:
        super().__init__(database)
        self.failures = 0
        self.steal = False

    async def mark_sent(self, call_id: str, claim: str) -> bool:
        if self.steal:
            await self._database.execute("update calls set claim = %(new)s", new=str(uuid4()))
        return await super().mark_sent(call_id, claim)

    async def end(self, call_id: str, claim: str, end: QueuedEnd, history: Any) -> Call | None:
        if self.failures:
            self.failures -= 1
            raise StoreUnavailable("away")
        return await super().end(call_id, claim, end, history)


class Bench:
    """A drain, and all that it speaks to."""

    def __init__(self, stores, bus, tasks, target: Workspace, *, room_bytes: int = 10**6, lease_s: float = 30) -> None:
        self.stores = stores
        self.target = target
        self.queue = Store(stores.database)
        self.gate = Gate()
        self.dispatcher = Dispatcher(DONE)
        directory = Directory(stores.workspaces, ttl_s=300)
        admission = Admission(directory)
        activity = ActivityLog(Batches(), bus, capacity=100, every_s=1)
        self.room = Room(room_bytes)
        times = ParkingTimes(lives_s=60, wait_s=60, kept_s=60)
        parking = Parking(calls=stores.calls, activity=activity, callers=Wakes(capacity=1), times=times, room=1)
        entrance = Entrance(self.gate, Tolls(self.gate, dict.fromkeys(Tariff)), reserve_cents=1)
        settling = Settling(
            queue=self.queue,
            entrance=entrance,
            prices=Prices(by_model={"*": Price(input=100, output=1000)}),
            activity=activity,
            bus=bus,
            spawn=tasks.spawn,
        )
        self.attempts = Attempts(
            queue=self.queue,
            admission=admission,
            requests=Requests(
                admission=admission,
                parking=parking,
                vault=None,
                reach=Reach.SAME_NETWORK,
                times=Times(idle_s=300, ceiling_s=1800, max_s=3600),
            ),
            entrance=entrance,
            dispatcher=self.dispatcher,
            settling=settling,
            bus=bus,
            streams=agent_streams(),
            answer_bytes=10**6,
            retry_s=1.0,
            restart_s=1.0,
            chance=lambda: 1.0,
        )
        self.drain = Drain(
            queue=self.queue,
            directory=directory,
            attempts=self.attempts,
            settling=settling,
            room=self.room,
            capacity=10,
            lease_s=lease_s,
            spawn=tasks.spawn,
        )

    async def hold(self, *, delay_s: float = 0.0, **fields: Any) -> str:
        call = NewQueued(
            **{
                "id": str(uuid4()), "workspace_id": self.target.id, "caller_id": None, "lane": "people",
                "priority": 50, "method": "message/send", "body": b'{"n":1}', "outgoing": WAY, "delay_s": delay_s,
                "lives_s": 60.0, **fields,
            }
        )  # fmt: skip
        row = Line(id=call.id, workspace_id=self.target.id, activity_type="a2a_receive", call_id=call.id).row(0.0)
        assert await self.queue.hold(call, row, error="agent_busy", room=100) is not None
        return call.id

    async def call(self, id_: str) -> Call:
        found = await self.stores.calls.find(self.target.id, id_)
        assert found is not None
        return found

    async def ended(self, id_: str) -> Call:
        return await until(lambda: self.call(id_), lambda call: call.ended and not self.drain.out)

    async def back(self, id_: str, error: str) -> Call:
        return await until(lambda: self.call(id_), lambda call: call.last_error == error and not self.drain.out)


@pytest.fixture
async def target(stores) -> Workspace:
    id_ = await stores.make(url="http://127.0.0.1:8001/", delivery_mode="push", max_concurrent_tasks=2)
    found = await stores.workspaces.find(id_)
    assert found is not None
    return found


@pytest.fixture
def bench(stores, bus, tasks, target) -> Bench:
    return Bench(stores, bus, tasks, target)


async def test_what_is_due_is_sent_and_what_it_has_cost_is_told(bench, heard):
    id_ = await bench.hold()
    await bench.drain.tick()
    call = await bench.ended(id_)
    assert (call.state, call.ending, call.answer, call.answer_status) == (
        State.COMPLETED, Ending.COMPLETED, REPLY, 200,
    )  # fmt: skip
    [outbound] = bench.dispatcher.sent
    assert (outbound.call_id, outbound.body, outbound.url) == (id_, b'{"n":1}', bench.target.url)
    assert (outbound.headers, outbound.limit_s, outbound.by_deadline) == (WAY.headers, 60.0, False)
    [entry], [left] = bench.gate.entries, bench.gate.left
    assert (entry.call_id, entry.trace_id, entry.rate) == (id_, "a" * 32, None)
    assert (left.call_id, left.cost, left.keep_s) == (id_, 4300, None)
    assert await heard.names() == ["A2A_RESPONSE", "CALL_ENDED"]
    assert await bench.stores.ask("select input_tokens + output_tokens as n from usage") == 7
    assert bench.room.held == 0


@pytest.mark.parametrize(
    ("outcome", "cost"),
    [
        (Answered(status=200, headers={}, body=LONG), 4300),
        (Answered(status=500, headers={}, body=REPLY), 4300),
        (Reset(), 77),
        (TooLarge(), 77),
        (NotConnected(), 0),
    ],
    ids=["long", "error", "reset", "too large", "unreachable"],
)
async def test_a_call_that_has_waited_costs_what_any_other_does(bench, outcome, cost):
    await bench.stores.database.execute("update workspaces set budget_limit = 500")
    bench.gate.answer = replace(bench.gate.answer, held=77)
    bench.dispatcher.outcome = outcome
    id_ = await bench.hold()
    await bench.stores.database.execute("update calls set attempts = 4")
    await bench.drain.tick()
    await bench.ended(id_)
    assert [left.cost for left in bench.gate.left] == [cost]
    assert await bench.stores.ask("select coalesce(sum(millionths), 0)::int as n from usage") == cost


async def test_an_agent_that_works_on_all_it_may_is_left_alone_and_one_that_says_it_has_time_is_not(bench, tasks):
    id_ = await bench.hold(delay_s=60.0)
    await bench.drain.tick()
    assert bench.drain.waits(bench.target.id)
    bench.drain.beat(bench.target.id, 2)
    await eventually(lambda: not [one for one in asyncio.all_tasks() if one.get_name().startswith("queue:")])
    assert (await bench.call(id_)).state is State.QUEUED
    bench.drain.beat(bench.target.id, 1)
    assert (await bench.ended(id_)).state is State.COMPLETED


async def test_who_has_ended_another_call_may_have_time_for_one_that_waits(bench):
    id_ = await bench.hold(delay_s=60.0)
    bench.drain.freed(bench.target.id)
    await bench.drain.tick()
    assert (await bench.call(id_)).state is State.QUEUED, "not known to wait, and then not due"
    bench.drain.freed(bench.target.id)
    assert (await bench.ended(id_)).state is State.COMPLETED


async def test_one_end_brings_the_next_until_nothing_waits(bench):
    ids = [await bench.hold() for _ in range(7)]
    await bench.drain.tick()
    assert [(await bench.ended(id_)).state for id_ in ids] == [State.COMPLETED] * 7
    assert sorted(outbound.call_id for outbound in bench.dispatcher.sent) == sorted(ids)


async def test_what_is_still_busy_waits_on_without_a_word(bench, heard):
    bench.dispatcher.outcome = BUSY
    id_ = await bench.hold()
    await bench.drain.tick()
    call = await until(lambda: bench.call(id_), lambda call: call.busy == 2)
    assert (call.state, call.attempts, call.last_error) == (State.QUEUED, 0, "agent_busy")
    assert await heard.names() == []
    [left] = bench.gate.left
    assert 50 < left.keep_s <= 60, "it stands in its chain for as long as it waits"


async def test_an_end_that_cannot_be_written_is_written_when_the_database_is_back(bench, heard, monkeypatch):
    monkeypatch.setattr(settling_module, "WRITE_AGAIN_S", 0.01)
    bench.queue.failures = 3
    id_ = await bench.hold()
    await bench.drain.tick()
    assert (await bench.ended(id_)).state is State.COMPLETED
    assert (len(bench.dispatcher.sent), await heard.names()) == (1, ["A2A_RESPONSE", "CALL_ENDED"])


async def test_the_next_one_is_sent_while_the_end_of_the_last_one_cannot_be_written(bench, monkeypatch):
    monkeypatch.setattr(settling_module, "WRITE_AGAIN_S", 0.05)
    bench.queue.failures = 1_000_000
    ids = [await bench.hold() for _ in range(3)]  # and its agent may work on two
    await bench.drain.tick()
    await eventually(lambda: len(bench.dispatcher.sent) == 3)
    assert [(await bench.call(id_)).state for id_ in ids] == [State.DISPATCHED] * 3
    bench.queue.failures = 0
    for id_ in ids:
        assert (await bench.ended(id_)).ending is Ending.COMPLETED


async def test_what_another_one_has_by_now_is_not_sent(bench):
    bench.queue.steal = True
    id_ = await bench.hold()
    await bench.drain.tick()
    await eventually(lambda: bench.gate.left)
    await eventually(lambda: not bench.drain.out)
    assert bench.dispatcher.sent == []
    assert (await bench.call(id_)).state is State.DISPATCHED


async def test_what_there_is_no_room_for_waits_on(stores, bus, tasks, target):
    bench = Bench(stores, bus, tasks, target, room_bytes=3)
    id_ = await bench.hold()
    await bench.drain.tick()
    call = await bench.back(id_, "overloaded")
    assert (call.state, call.attempts, bench.dispatcher.sent) == (State.QUEUED, 0, [])


async def test_of_a_budget_that_others_hold_something_may_be_left_later(bench):
    await bench.stores.database.execute("update workspaces set budget_limit = 5")
    bench.gate.answer = replace(bench.gate.answer, barred=Barred.SPENT)
    id_ = await bench.hold()
    await bench.drain.tick()
    call = await bench.back(id_, "budget_exceeded")
    assert (call.state, call.attempts) == (State.QUEUED, 0)


@pytest.mark.parametrize("sent", [False, True])
async def test_a_bug_of_ours_is_an_end_too(bench, monkeypatch, sent):
    bench.dispatcher.outcome = RuntimeError("a bug")
    if not sent:
        monkeypatch.setattr(bench.attempts, "_requests", None)
    id_ = await bench.hold()
    await bench.drain.tick()
    call = await bench.ended(id_)
    assert (call.state, call.ending) == (State.FAILED, Ending.INTERNAL)


async def test_the_lease_on_what_is_out_is_kept(stores, bus, tasks, target):
    bench = Bench(stores, bus, tasks, target, lease_s=0.5)
    bench.dispatcher.gate.clear()
    id_ = await bench.hold()
    await bench.drain.tick()
    first = await until(lambda: bench.call(id_), lambda call: call.lease_until)
    await bench.drain.renew()
    later = await bench.call(id_)
    assert (later.state, later.lease_until > first.lease_until) == (State.DISPATCHED, True)
    assert bench.drain.renew_s < 0.25, "soon enough to try once more"

    async def end_lost() -> Sequence[Call]:
        return await bench.queue.end_lost(limit=1, history=lambda call: (ended_row(call), []))

    [lost] = await until(end_lost, len)
    assert (lost.id, lost.ending) == (id_, Ending.INTERRUPTED)
    bench.dispatcher.gate.set()
    await eventually(lambda: not bench.drain.out)
    assert (await bench.call(id_)).ending is Ending.INTERRUPTED, "it has ended once"


async def test_a_call_that_is_out_is_called_off_and_no_other(bench, heard):
    bench.dispatcher.gate.clear()
    ids = [await bench.hold() for _ in range(2)]
    await bench.drain.tick()
    await eventually(lambda: len(bench.dispatcher.sent) == 2)
    for _ in range(2):
        bench.drain.call_off(ids[0])
    bench.drain.call_off(str(uuid4()))
    off = await until(lambda: bench.call(ids[0]), lambda call: call.ended)
    assert (off.state, off.ending, off.answer_status) == (State.CANCELLED, Ending.CANCELLED, 409)
    assert b'"outcome":"unknown"' in off.answer
    bench.dispatcher.gate.set()
    assert (await bench.ended(ids[1])).ending is Ending.COMPLETED
    bench.drain.call_off(ids[1])
    assert (await heard.names()).count("CALL_ENDED") == 2


async def test_what_a_call_that_is_called_off_held_of_the_budget_is_settled_once(bench):
    await bench.stores.database.execute("update workspaces set budget_limit = 500")
    bench.gate.answer = replace(bench.gate.answer, held=77)
    bench.dispatcher.gate.clear()
    id_ = await bench.hold()
    await bench.drain.tick()
    await eventually(lambda: bench.dispatcher.sent)
    bench.drain.call_off(id_)
    await bench.ended(id_)
    [left] = bench.gate.left
    assert (left.call_id, left.cost, left.keep_s) == (id_, 77, None), "nobody knows what its agent has used"
    assert (await bench.call(id_)).attempts == 1
    assert bench.room.held == 0


@pytest.mark.parametrize("outcome", [BUSY, NotConnected()], ids=["busy", "unreachable"])
async def test_a_call_that_is_called_off_as_its_agent_turns_it_away_does_not_wait_again(bench, outcome):
    bench.dispatcher.outcome = outcome
    id_ = await bench.hold()
    send = bench.dispatcher.send

    async def turned_away(outbound: Any, begin: Any) -> Any:
        got = await send(outbound, begin)
        [attempt] = bench.drain._out.values()
        attempt.stopped = Cancelled(under_way=True)  # as if the word came when there was nothing left to cancel
        return got

    bench.dispatcher.send = turned_away
    await bench.drain.tick()
    call = await bench.ended(id_)
    assert (call.ending, call.attempts, len(bench.dispatcher.sent)) == (Ending.CANCELLED, 0, 1)
    assert b"outcome" not in call.answer, "its agent has certainly not got it"
    [left] = bench.gate.left
    assert (left.cost, left.keep_s) == (0, None)


async def test_a_call_that_is_called_off_before_it_goes_out_is_not_sent(bench, monkeypatch):
    mark_sent, off = bench.queue.mark_sent, []

    async def late(call_id: str, claim: str) -> bool:
        bench.drain.call_off(call_id)
        off.append(call_id)
        return await mark_sent(call_id, claim)

    monkeypatch.setattr(bench.queue, "mark_sent", late)
    id_ = await bench.hold()
    await bench.drain.tick()
    call = await bench.ended(id_)
    assert (call.ending, bench.dispatcher.sent, off) == (Ending.CANCELLED, [], [id_])


async def test_a_drain_that_closes_claims_no_more_and_ends_what_does_not_end_by_itself(bench):
    bench.dispatcher.gate.clear()
    out = [await bench.hold() for _ in range(2)]
    waits = await bench.hold()
    await bench.drain.tick()
    await eventually(lambda: len(bench.dispatcher.sent) == 2)
    await bench.drain.close(0.0)
    ends = [await bench.ended(id_) for id_ in out]
    assert [(call.state, call.ending) for call in ends] == [(State.INTERRUPTED, Ending.GATEWAY_SHUTDOWN)] * 2
    await bench.drain.tick()
    assert (await bench.call(waits)).state is State.QUEUED
    assert repr(bench.drain) == "<Drain waiting=1 out=0>"


async def test_what_was_not_sent_yet_when_it_closes_waits_on(bench, monkeypatch):
    asked = asyncio.Event()

    async def slow(caller_id: str | None, target_id: str) -> Workspace:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    monkeypatch.setattr(bench.attempts._admission, "readmit", slow)
    id_ = await bench.hold()
    await bench.drain.tick()
    await asked.wait()
    await bench.drain.close(0.0)
    assert (await bench.call(id_)).state is State.QUEUED
    assert bench.dispatcher.sent == []


async def test_a_deadline_is_what_is_left_of_it(bench):
    id_ = await bench.hold(outgoing=replace(WAY, by_deadline=True, limit_s=100.0), lives_s=20.0)
    await bench.drain.tick()
    await bench.ended(id_)
    [outbound] = bench.dispatcher.sent
    assert outbound.by_deadline
    assert 10 < outbound.limit_s <= 20
