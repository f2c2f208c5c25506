import asyncio
from dataclasses import replace

import orjson
import pytest

from gateway.core.answers import Answer
from gateway.core.calls import Kind, State
from gateway.core.claims import Claim
from gateway.core.endings import Ending
from gateway.core.envelope import Envelope, normalise
from gateway.core.refusals import Code, Refusal
from gateway.ports import NewCall, Outbound, QueuedEnd, StoreUnavailable
from gateway.services.activity import ActivityLog, Line
from gateway.services.history import ended_row
from gateway.services.queue import Busy, Held, Queue, Times, Unsure
from gateway.services.room import Room
from gateway.services.wakes import Wakes
from tests.harness.world import eventually
from tests.services.memory import Batches

CALL = "00000000-0000-4000-8000-00000000000a"
LONG_S = 30.0
ANSWER = Answer(status=201, body=b"{}", headers={"Content-Type": "application/json"})


def envelope(**params: object) -> Envelope:
    message = {"role": "user", "messageId": "m", "parts": [{"kind": "text", "text": "hi"}]}
    call = {"jsonrpc": "2.0", "id": 1, "method": "message/send", "params": {"message": message, **params}}
    found = normalise(orjson.dumps(call), a2a_version=None, mint=lambda: "x")
    assert isinstance(found, Envelope)
    return found


class Hall:
    """Where calls wait for one agent, and their callers for them."""

    def __init__(self, stores, bus, target_id: str) -> None:
        self.stores = stores
        self.target_id = target_id
        self.callers = Wakes(capacity=2)
        self.queue = Queue(
            calls=stores.calls,
            queue=stores.queue,
            activity=ActivityLog(Batches(), bus, capacity=10, every_s=1),
            callers=self.callers,
            times=Times(lives_s=100.0, retry_s=1.0, wait_s=LONG_S, kept_s=60.0),
            room=2,
            chance=lambda: 1.0,
        )

    def busy(
        self,
        *,
        call_id: str = CALL,
        took_s: float = 0.0,
        limit_s: float | None = None,
        claim: Claim | None = None,
        **params: object,
    ) -> Busy:
        message = envelope(**params)
        outbound = Outbound(
            call_id=call_id,
            workspace_id=self.target_id,
            url="http://127.0.0.1:8001/",
            body=message.body,
            headers={"Authorization": "of the agent", "A2A-Version": "0.3"},
            idle_s=1.0,
            limit_s=limit_s,
            by_deadline=limit_s is not None,
            hold=Room(10).hold(),
        )
        return Busy(
            caller_id=None, lane="people", priority=50, message=message, outbound=outbound, took_s=took_s, claim=claim
        )

    async def hold(self, **fields: object) -> Held:
        held = await self.queue.hold(self.busy(**fields))
        assert held is not None
        return held

    async def end(self, *, heard: bool = True) -> None:
        """Let the call be answered, on whatever replica."""
        await self.stores.database.execute("update calls set not_before = now()")
        [one] = await self.stores.queue.claim(self.target_id, eager=True, limit=1, lease_s=60.0)
        end = QueuedEnd(to=State.COMPLETED, ending=Ending.COMPLETED, error=None, answer=ANSWER, counts=True)
        await self.stores.queue.end(one.call.id, one.claim, end, lambda call: (ended_row(call), []))
        if heard:
            self.callers.wake(CALL)


@pytest.fixture
async def hall(stores, bus) -> Hall:
    return Hall(stores, bus, await stores.make())


async def test_a_call_is_written_before_its_caller_is_told(hall, heard):
    held = await hall.hold()
    assert (held.answer.status, orjson.loads(held.answer.body)["queue_depth"], held.lives_s) == (202, 1, 100)
    found = await hall.stores.calls.find(hall.target_id, CALL)
    assert (found.state, found.kind, found.busy, found.last_error) == ("queued", "queued", 1, "agent_busy")
    outgoing = await hall.stores.ask("select outgoing->'headers' as h from calls")
    assert outgoing == {"A2A-Version": "0.3"}, "and the agent's credential is not stored"
    event, payload = await heard.one("ACTIVITY_LOGGED")
    assert (event.sign, payload["status"]) == (False, "queued")
    assert hall.queue.held == 1


@pytest.mark.parametrize(
    ("fields", "lives_s"),
    [
        ({"expires_in_seconds": 7}, 7),
        ({"expires_in_seconds": 1000}, 100),
        ({"limit_s": 20.0, "took_s": 5.0}, 15),
        ({"limit_s": 20.0, "took_s": 5.0, "expires_in_seconds": 3}, 3),
    ],
)
async def test_a_call_waits_as_long_as_its_caller_the_setting_and_its_deadline_allow(hall, fields, lives_s):
    assert (await hall.hold(**fields)).lives_s == lives_s


async def test_what_cannot_wait_is_not_promised_to(hall, heard, monkeypatch):
    assert await hall.queue.hold(hall.busy(limit_s=5.0, took_s=5.0)) is None

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(hall.stores.queue, "hold", away)
        assert await hall.queue.hold(hall.busy()) == Unsure()
    for number in range(2):
        await hall.hold(call_id=CALL[:-1] + str(number))
    assert await hall.queue.hold(hall.busy()) is None
    assert len(await heard()) == hall.queue.held == 2


async def test_who_stays_gets_the_answer_when_it_is_heard_of(hall):
    held = await hall.hold()
    async with asyncio.timeout(LONG_S / 2), asyncio.TaskGroup() as group:
        answer = group.create_task(hall.queue.stay(held, LONG_S, lambda: False))
        await eventually(lambda: CALL in hall.callers)
        await hall.end()
        assert await answer == ANSWER


async def test_who_stays_gets_the_answer_at_the_end_of_its_wait_though_nothing_was_heard(hall):
    held = await hall.hold()
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(hall.queue.stay(held, 1.5, lambda: False))
        await eventually(lambda: CALL in hall.callers)
        await hall.end(heard=False)
    assert answer.result() == ANSWER


async def test_what_was_answered_before_one_stays_is_not_waited_for(hall):
    held = await hall.hold()
    await hall.end()
    async with asyncio.timeout(LONG_S / 2):
        assert await hall.queue.stay(held, LONG_S, lambda: False) == ANSWER


@pytest.mark.parametrize("why", ["it does not want to", "it has hung up", "too many stay", "the process goes"])
async def test_who_does_not_stay_is_told_that_its_call_waits(hall, why):
    held = await hall.hold()
    match why:
        case "too many stay":
            hall.callers = hall.queue._callers = Wakes(capacity=0)
        case "the process goes":
            hall.callers.close()
    wait_s = 0.0 if why == "it does not want to" else LONG_S
    async with asyncio.timeout(LONG_S / 2):
        assert await hall.queue.stay(held, wait_s, lambda: why == "it has hung up") is held.answer


# -- one message, one call

CLAIM = Claim(key="aa" * 20, words="bb" * 16)
ANOTHER = CALL[:-1] + "b"


async def test_a_message_that_waits_already_is_not_written_again(hall, heard):
    await hall.hold(claim=CLAIM)
    told = len(await heard())
    again = await hall.hold(call_id=ANOTHER, claim=CLAIM)
    assert (again.call_id, again.answer.call_id, again.answer.status) == (CALL, CALL, 202)
    assert orjson.loads(again.answer.body)["queue_id"] == CALL
    assert (hall.queue.held, told, await heard()) == (1, 1, [])
    with pytest.raises(Refusal) as refused:
        await hall.queue.hold(hall.busy(call_id=ANOTHER, claim=replace(CLAIM, words="cc" * 16)))
    assert (refused.value.code, refused.value.fields["call_id"]) == (Code.MESSAGE_ID_REUSED, CALL)
    await hall.end()
    answer = await hall.queue.hold(hall.busy(call_id=ANOTHER, claim=CLAIM))
    assert answer == replace(ANSWER, call_id=CALL)


async def test_what_the_ledger_has_under_a_claim_is_found(hall):
    assert await hall.queue.find(CLAIM) is None
    await hall.hold(claim=CLAIM)
    found = await hall.queue.find(CLAIM)
    assert (found.call_id, orjson.loads(found.answer.body)["queue_depth"]) == (CALL, 1)
    [one] = await hall.stores.queue.claim(hall.target_id, eager=True, limit=1, lease_s=60.0)
    found = await hall.queue.find(CLAIM)
    assert orjson.loads(found.answer.body)["queue_depth"] == 0, "it is out"
    await hall.stores.queue.put_back(one.call.id, one.claim, delay_s=0, error=None, busy=False, counts=False)
    await hall.end()
    assert await hall.queue.find(CLAIM) == replace(ANSWER, call_id=CALL)


async def test_an_answer_that_came_by_an_inbox_is_given_to_who_sends_the_message_again(hall):
    new = NewCall(
        id=CALL, kind=Kind.PARKED, workspace_id=hall.target_id, caller_id=None, method="message/send", body=b"{}",
        waits_s=0.0, lives_s=60.0, claim=CLAIM,
    )  # fmt: skip
    line = Line(id=CALL, workspace_id=hall.target_id, activity_type="a2a_receive", call_id=CALL)
    await hall.stores.calls.park(new, line.row(0.0), room=1)
    found = await hall.queue.find(CLAIM)
    assert orjson.loads(found.answer.body) == {
        "status": "queued", "delivery_mode": "poll", "method": "message/send", "id": CALL,
    }  # fmt: skip
    await hall.stores.calls.end(
        hall.target_id, CALL, {State.PARKED}, to=State.COMPLETED, ending=Ending.COMPLETED, answer=b'{"result":1}',
        history=lambda call: (ended_row(call), []),
    )  # fmt: skip
    found = await hall.queue.find(CLAIM)
    assert (found.status, found.body) == (200, b'{"jsonrpc":"2.0","id":null,"result":1}')
