import asyncio
from dataclasses import replace
from typing import Any
from uuid import uuid4

import pytest

from gateway.core.address import Reach
from gateway.core.callers import Admin, Holder
from gateway.core.calls import Call, State
from gateway.core.delegation import Report, Status
from gateway.core.endings import Ending
from gateway.core.outcomes import Dead, Outcome
from gateway.core.prices import Price, Prices
from gateway.core.rates import Rate, Tariff
from gateway.core.refusals import Code, Refusal
from gateway.ports import Barred, Begin, Outbound, QueuedEnd, StoreUnavailable
from gateway.services import drain as drain_module
from gateway.services import settling as settling_module
from gateway.services.activity import ActivityLog
from gateway.services.admission import Admission
from gateway.services.attempts import Attempts
from gateway.services.delegation import Asked, Delegated, Delegations, Times
from gateway.services.directory import Directory
from gateway.services.drain import Drain
from gateway.services.entrance import Entrance
from gateway.services.parking import Parking
from gateway.services.parking import Times as ParkingTimes
from gateway.services.requests import Requests
from gateway.services.requests import Times as RequestTimes
from gateway.services.room import Room
from gateway.services.settling import Settling
from gateway.services.tolls import Toll, Tolls
from gateway.services.wakes import Wakes
from gateway.store.delegation import DelegationClaims, DelegationStore
from tests.harness.world import eventually, until
from tests.services.memory import Batches, Dispatcher, Gate, agent_streams
from tests.services.test_drain import BUSY, DONE

TRACE = f"00-{'a' * 32}-{'b' * 16}-01"


class Script(Dispatcher):
    """Answers one thing after the other, and the last one for ever."""

    def __init__(self, *outcomes: Outcome) -> None:
        super().__init__(outcomes[-1])
        self.outcomes = list(outcomes)

    async def send(self, outbound: Outbound, begin: Begin | None = None) -> Outcome:
        if len(self.outcomes) > 1:
            self.outcome = self.outcomes.pop(0)
        else:
            self.outcome = self.outcomes[0]
        return await super().send(outbound)


class Claims(DelegationClaims):
    """The real ones, whose end takes as long as the test wants."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.writing = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()

    async def end(self, call_id: str, claim: str, end: QueuedEnd, history: Any) -> Call | None:
        self.writing.set()
        await self.go_on.wait()
        return await super().end(call_id, claim, end, history)


class Office:
    """Where tasks are left, and what sends them."""

    def __init__(self, stores, bus, tasks, source_id: str, target_id: str, *outcomes: Outcome) -> None:
        self.stores = stores
        self.source_id = source_id
        self.target_id = target_id
        self.gate = Gate()
        self.dispatcher = Script(*(outcomes or (DONE,)))
        self.store = DelegationStore(stores.database)
        self.claims = Claims(stores.database, stores.queue)
        directory = Directory(stores.workspaces, ttl_s=300)
        admission = Admission(directory)
        activity = ActivityLog(Batches(), bus, capacity=100, every_s=1)
        parking = Parking(
            calls=stores.calls,
            activity=activity,
            callers=Wakes(capacity=1),
            times=ParkingTimes(lives_s=60, wait_s=60, kept_s=60),
            room=1,
        )
        tolls = Tolls(self.gate, dict.fromkeys(Tariff, Rate(requests=10, period_s=1.0)))
        entrance = Entrance(self.gate, tolls, reserve_cents=1)

        def draining(claims: Any) -> Drain:
            settling = Settling(
                queue=claims,
                entrance=entrance,
                prices=Prices(by_model={"*": Price(input=100, output=1000)}),
                activity=activity,
                bus=bus,
                spawn=tasks.spawn,
            )
            attempts = Attempts(
                queue=claims,
                admission=admission,
                requests=Requests(
                    admission=admission,
                    parking=parking,
                    vault=None,
                    reach=Reach.SAME_NETWORK,
                    times=RequestTimes(idle_s=300, ceiling_s=1800, max_s=3600),
                ),
                entrance=entrance,
                dispatcher=self.dispatcher,
                settling=settling,
                bus=bus,
                streams=agent_streams(),
                answer_bytes=10**6,
                retry_s=0.01,
                restart_s=0.05,
            )
            return Drain(
                queue=claims,
                directory=directory,
                attempts=attempts,
                settling=settling,
                room=Room(10**6),
                capacity=10,
                lease_s=30.0,
                spawn=tasks.spawn,
            )

        self.dispatching, self.queue = draining(self.claims), draining(stores.queue)
        self.delegations = Delegations(
            delegations=self.store,
            directory=directory,
            admission=admission,
            tolls=tolls,
            entrance=entrance,
            parking=parking,
            activity=activity,
            bus=bus,
            came=self.dispatching.came,
            times=Times(waits_s=60.0, parked_s=90.0, takes_s=30.0),
            room=10,
        )
        self.asked = Asked(
            source_id=source_id,
            target_id=target_id,
            task="do it",
            key=None,
            request_id="r-1",
            toll=Toll(Tariff.CALL, "source"),
            headers={"traceparent": TRACE},
        )

    async def delegate(self, **fields: Any) -> Delegated:
        return await self.delegations.delegate(replace(self.asked, **fields))

    async def find(self, id_: str) -> Call:
        found = await self.store.find(self.source_id, id_)
        assert found is not None
        return found

    async def ended(self, id_: str) -> Call:
        """The delegation once it has ended; the queue is looked through meanwhile."""

        async def look() -> Call:
            await self.queue.tick()
            return await self.find(id_)

        return await until(look, lambda call: call.ended and not self.dispatching.out and not self.queue.out)


@pytest.fixture
async def build(stores, bus, tasks):
    async def build(*outcomes: Outcome, **fields: Any) -> Office:
        target = {"url": "http://127.0.0.1:8001/", "delivery_mode": "push", **fields}
        return Office(stores, bus, tasks, await stores.make(), await stores.make(**target), *outcomes)

    return build


async def test_it_is_written_then_sent_and_its_result_is_told(build, heard):
    office = await build()
    done = await office.delegate()
    assert (done.target_id, done.same) == (office.target_id, None)
    call = await office.ended(done.id)
    assert (call.state, call.attempts) == (State.COMPLETED, 1)
    [outbound] = office.dispatcher.sent
    assert (outbound.limit_s, outbound.by_deadline) == (30.0, False)
    assert outbound.headers["traceparent"][3:35] == "a" * 32
    asked, sent = office.gate.entries
    assert (asked.call_id, asked.trace_id, asked.limit_s) == (done.id, "a" * 32, 60.0)
    assert (asked.rate is None, sent.rate is None, sent.call_id) == (False, True, done.id)
    waits, over = office.gate.left
    assert (waits.keep_s, over.keep_s, over.cost) == (60.0, None, 4300)
    assert await heard.names() == [
        "ACTIVITY_LOGGED", "ACTIVITY_LOGGED", "DELEGATION_SENT", "DELEGATION_STATUS", "ACTIVITY_LOGGED",
        "DELEGATION_COMPLETE", "CALL_ENDED",
    ]  # fmt: skip


async def test_an_agent_that_was_dead_gets_it_once_more_when_it_is_back(build):
    office = await build(Dead(), DONE)
    call = await office.ended((await office.delegate()).id)
    assert (call.state, call.attempts, len(office.dispatcher.sent)) == (State.COMPLETED, 2, 2)


async def test_an_agent_that_stays_dead_gets_it_no_third_time(build, heard):
    office = await build(Dead())
    call = await office.ended((await office.delegate()).id)
    assert (call.state, call.ending, call.last_error) == (
        State.FAILED, Ending.AGENT_RESTARTING, "agent_restarting",
    )  # fmt: skip
    assert len(office.dispatcher.sent) == 2
    _, said = await heard.one("DELEGATION_FAILED")
    assert said == {"delegation_id": call.id, "target_id": office.target_id, "error": "agent_restarting"}


async def test_a_busy_agent_gets_it_when_it_has_time_and_its_result_says_so(build, heard):
    office = await build(BUSY, BUSY, DONE)
    call = await office.ended((await office.delegate()).id)
    assert (call.state, call.busy, len(office.dispatcher.sent)) == (State.COMPLETED, 2, 3)
    _, said = await heard.one("DELEGATION_COMPLETE")
    assert said["via"] == "queue"


async def test_what_cannot_be_written_is_not_promised_and_holds_nothing(build, monkeypatch, heard):
    office = await build()

    async def away(*_: object, **__: object) -> bool:
        raise StoreUnavailable("away")

    monkeypatch.setattr(office.store, "create", away)
    with pytest.raises(Refusal) as refused:
        await office.delegate()
    assert refused.value.code is Code.PLATFORM_UNAVAILABLE
    [left] = office.gate.left
    assert left.keep_s is None
    assert await heard.names() == []
    assert office.dispatcher.sent == []


@pytest.mark.parametrize(
    ("barred", "code"), [(Barred.DEEP, Code.TOO_DEEP), (Barred.SPENT, Code.BUDGET_EXCEEDED)], ids=["deep", "spent"]
)
async def test_what_may_not_begin_is_not_written(build, barred, code):
    office = await build()
    office.gate.answer = replace(office.gate.answer, barred=barred)
    with pytest.raises(Refusal) as refused:
        await office.delegate()
    assert refused.value.code is code
    assert await office.stores.ask("select count(*) from calls") == 0
    assert office.gate.left == []


async def test_a_refusal_is_paid_for_too(build):
    office = await build()
    with pytest.raises(Refusal, match="another workspace"):
        await office.delegate(target_id=office.source_id)
    assert len(office.gate.taken) == 1


async def test_too_many_that_wait_are_refused(build):
    office = await build(delivery_mode="poll")
    for _ in range(10):
        await office.delegate()
    with pytest.raises(Refusal) as refused:
        await office.delegate()
    assert (refused.value.code, refused.value.retry_after_s) == (Code.OVERLOADED, 30)
    assert len([left for left in office.gate.left if left.keep_s is None]) == 1


async def test_the_end_is_written_though_the_process_is_told_to_go(build, tasks):
    office = await build()
    office.claims.go_on.clear()
    id_ = (await office.delegate()).id
    await office.claims.writing.wait()
    closing = tasks.spawn(office.dispatching.close(0.0), "close")
    await eventually(lambda: not office.dispatching.out)
    office.claims.go_on.set()
    await closing
    assert (await office.find(id_)).state is State.COMPLETED


async def test_an_end_that_cannot_be_written_is_written_when_the_database_is_back(build, monkeypatch):
    monkeypatch.setattr(settling_module, "WRITE_AGAIN_S", 0.01)
    office = await build()
    failures = iter([StoreUnavailable("away")] * 3)
    end = office.stores.queue.end

    async def later(*args: Any) -> Call | None:
        if (error := next(failures, None)) is not None:
            raise error
        return await end(*args)

    monkeypatch.setattr(office.stores.queue, "end", later)
    call = await office.ended((await office.delegate()).id)
    assert (call.state, len(office.dispatcher.sent)) == (State.COMPLETED, 1)


async def test_what_is_not_sent_yet_when_the_process_goes_is_left_to_others(build, monkeypatch):
    office = await build()
    asked = asyncio.Event()

    async def slow(*_: object) -> None:
        asked.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(office.dispatching._attempts._admission, "readmit", slow)
    id_ = (await office.delegate()).id
    await asked.wait()
    await office.dispatching.close(0.0)
    call = await office.find(id_)
    assert (call.state, call.last_error, office.dispatcher.sent) == (State.PENDING, "draining", [])
    assert await office.claims.list_waiting() == {office.target_id: True}


async def test_more_than_a_batch_goes_out_at_once(build, monkeypatch):
    monkeypatch.setattr(drain_module, "BATCH", 2)
    office = await build()
    office.dispatcher.gate.clear()
    monkeypatch.setattr(office.delegations, "_came", lambda _: None)
    for _ in range(7):
        await office.delegate()
    await office.dispatching.tick()
    await eventually(lambda: len(office.dispatcher.sent) == 7)
    office.dispatcher.gate.set()


async def test_who_has_no_part_in_it_learns_nothing_and_may_say_nothing(build, stores):
    office = await build(delivery_mode="poll")
    id_ = (await office.delegate()).id
    stranger = Holder(workspace_id=await stores.make())
    with pytest.raises(Refusal) as refused:
        await office.delegations.update(stranger, office.source_id, id_, Report.COMPLETED, None)
    assert refused.value.code is Code.NOT_FOUND
    said = await office.delegations.update(Admin(), office.source_id, id_, Report.COMPLETED, None)
    assert said is Status.COMPLETED


async def test_of_two_reports_at_once_one_is_the_end(build, heard):
    office = await build(delivery_mode="poll")
    id_ = (await office.delegate()).id
    target, source = Holder(workspace_id=office.target_id), Holder(workspace_id=office.source_id)
    answers = await asyncio.gather(
        office.delegations.update(target, office.source_id, id_, Report.COMPLETED, "yes"),
        office.delegations.update(source, office.source_id, id_, Report.FAILED, "no"),
        return_exceptions=True,
    )
    [late] = [one for one in answers if isinstance(one, Refusal)]
    assert late.code is Code.CALL_ENDED
    told = [one for one in await heard.names() if one in ("DELEGATION_COMPLETE", "DELEGATION_FAILED")]
    assert len(told) == 1
    assert await office.stores.ask("select count(*) from activity where method = 'delegate_result'") == 1


async def test_an_id_that_another_call_has_is_not_recorded(build):
    office = await build()
    id_ = (await office.delegate()).id
    with pytest.raises(Refusal, match="delegation_id: is that of another call"):
        await office.delegations.record(office.source_id, office.target_id, "something else", id_)
    await office.delegations.record(office.source_id, office.target_id, "by myself", str(uuid4()))
    words = {one.summary for one in await office.delegations.list(office.source_id)}
    assert words == {"do it", "by myself"}
