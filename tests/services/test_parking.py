import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest

from events.event import Event
from gateway.core.answers import Answer
from gateway.core.calls import State
from gateway.core.claims import Claim
from gateway.core.endings import Ending
from gateway.core.envelope import Envelope, normalise
from gateway.core.refusals import Code, Refusal
from gateway.ports import NewQueued, Outgoing, QueuedEnd, StoreUnavailable
from gateway.services.activity import ActivityLog, Line
from gateway.services.history import ended_row
from gateway.services.parking import Parked, Parking, Times
from gateway.services.wakes import Wakes
from tests.harness.world import eventually
from tests.services.memory import Batches

CALL = "00000000-0000-4000-8000-00000000000a"
LONG_S = 30.0


def envelope(**params: object) -> Envelope:
    message = {"role": "user", "messageId": "m", "parts": [{"kind": "text", "text": "hi"}]}
    call = {"jsonrpc": "2.0", "id": "mine", "method": "message/send", "params": {"message": message, **params}}
    found = normalise(orjson.dumps(call), a2a_version=None, mint=lambda: "x")
    assert isinstance(found, Envelope)
    return found


class Told(ActivityLog):
    """Remembers which calls it has told of: those are written."""

    def __init__(self, *args: Any, **fields: Any) -> None:
        super().__init__(*args, **fields)
        self.told: set[str | None] = set()

    def tell(self, line: Line) -> Event:
        told = super().tell(line)
        self.told.add(line.call_id)
        return told


class Lot:
    """A parking lot, a target, and what it takes to answer."""

    def __init__(self, stores, bus, target) -> None:
        self.stores = stores
        self.target = target
        self.callers = Wakes(capacity=2)
        self.log = Told(Batches(), bus, capacity=10, every_s=1)
        self.parking = Parking(
            calls=stores.calls,
            activity=self.log,
            callers=self.callers,
            times=Times(lives_s=100.0, wait_s=LONG_S, kept_s=60.0),
            room=3,
        )

    async def park(
        self, message: Envelope | None = None, *, wait_s: float = 0.0, call_id: str = CALL, claim: Claim | None = None
    ) -> Answer:
        message = message or envelope()
        call = Parked(
            call_id=call_id,
            target=self.target,
            caller_id=None,
            message=message,
            lives_s=self.parking.lives_s(message),
            wait_s=wait_s,
            gone=lambda: False,
            claim=claim,
        )
        async with asyncio.timeout(LONG_S / 2):
            return await self.parking.park(call)

    async def end(self, ending: Ending, state: State, answer: bytes | None = None, *, heard: bool = True) -> None:
        await self.stores.calls.end(
            self.target.id,
            CALL,
            {State.PARKED},
            to=state,
            ending=ending,
            answer=answer,
            history=lambda call: (ended_row(call), []),
        )
        if heard:
            self.callers.wake(CALL)

    async def parked(self) -> None:
        """Wait until the call is written and its caller stays for the answer."""
        await eventually(lambda: CALL in self.callers)
        await eventually(lambda: CALL in self.log.told)


@asynccontextmanager
async def staying(lot: Lot, wait_s: float = LONG_S) -> AsyncIterator["asyncio.Task[Answer]"]:
    """A caller that has begun to wait; at the end of the block it has its answer."""
    async with asyncio.TaskGroup() as group:
        answer = group.create_task(lot.park(wait_s=wait_s))
        await lot.parked()
        yield answer


@pytest.fixture
async def lot(stores, bus) -> Lot:
    id_ = await stores.make(delivery_mode="poll")
    return Lot(stores, bus, await stores.workspaces.find(id_))


async def test_a_call_is_written_before_it_is_acknowledged_and_told(lot, heard):
    answer = await lot.park()
    shown = {"status": "queued", "delivery_mode": "poll", "method": "message/send", "id": CALL}
    assert (answer.status, orjson.loads(answer.body)) == (200, shown)
    assert (await lot.stores.calls.find(lot.target.id, CALL)).state is State.PARKED
    event, payload = await heard.one("ACTIVITY_LOGGED")
    assert (event.workspace_id, event.sign, payload["status"]) == (lot.target.id, False, "queued")
    assert await lot.stores.ask("select calls from usage") == 1


async def test_nothing_is_acknowledged_or_told_that_is_not_written(lot, heard, monkeypatch):
    async def away(*_: object, **__: object) -> bool:
        raise StoreUnavailable("away")

    monkeypatch.setattr(lot.stores.calls, "park", away)
    with pytest.raises(Refusal) as refused:
        await lot.park()
    assert refused.value.code is Code.PLATFORM_UNAVAILABLE
    assert await heard.names() == []


async def test_a_full_inbox_asks_callers_to_come_back(lot, heard):
    for number in range(3):
        await lot.park(call_id=CALL[:-1] + str(number))
    with pytest.raises(Refusal) as refused:
        await lot.park()
    assert (refused.value.code, refused.value.retry_after_s) == (Code.INBOX_FULL, 30)


@pytest.mark.parametrize(("said", "lives_s"), [(None, 100), (50, 50), (1000, 100), (0.5, 0.5)])
async def test_a_call_lies_there_as_long_as_its_caller_says_and_no_longer_than_may_be(lot, said, lives_s):
    await lot.park(envelope() if said is None else envelope(expires_in_seconds=said))
    found = await lot.stores.calls.find(lot.target.id, CALL)
    assert (found.expires_at - found.created_at).total_seconds() == lives_s


async def test_what_no_agent_could_answer_is_refused_and_not_kept(lot):
    message = normalise(b'{"jsonrpc":"2.0","id":5,"method":"tasks/get"}', a2a_version=None, mint=lambda: "x")
    answer = await lot.park(message)
    said = orjson.loads(answer.body)
    assert (answer.status, said["error"]["code"], said["id"]) == (400, -32004, 5)
    assert await lot.stores.calls.find(lot.target.id, CALL) is None


async def test_who_stays_gets_the_answer_under_its_own_id(lot):
    async with staying(lot) as answer:
        await lot.end(Ending.COMPLETED, State.COMPLETED, b'{"id":"theirs","result":{"n":1.0}}')
    got = answer.result()
    assert (got.status, got.body) == (200, b'{"jsonrpc":"2.0","id":"mine","result":{"n":1.0}}')
    assert len(lot.callers) == 0


async def test_who_stays_until_the_time_of_the_call_is_over_learns_that(lot):
    async with staying(lot) as answer:
        await lot.end(Ending.EXPIRED, State.EXPIRED)
    got = answer.result()
    assert (got.status, orjson.loads(got.body)["code"]) == (410, "expired")


async def test_who_has_stayed_long_enough_is_told_that_it_is_queued(lot):
    assert orjson.loads((await lot.park(wait_s=0.05)).body)["status"] == "queued"
    found = await lot.stores.calls.find(lot.target.id, CALL)
    assert found.state is State.PARKED


async def test_an_answer_that_came_unheard_is_found_at_the_end(lot):
    async with staying(lot, wait_s=1.0) as answer:
        await lot.end(Ending.COMPLETED, State.COMPLETED, b'{"result":2}', heard=False)
    assert answer.result().body == b'{"jsonrpc":"2.0","id":"mine","result":2}'


async def test_an_answer_that_cannot_be_read_costs_its_caller_nothing(lot, monkeypatch):
    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(lot.stores.calls, "find", away)
    answer = await lot.park(wait_s=0.05)
    assert (answer.status, orjson.loads(answer.body)["status"]) == (200, "queued")


async def test_nobody_stays_where_too_many_do_or_while_the_gateway_goes_away(lot):
    with lot.callers.waiting("x"), lot.callers.waiting("y"):
        assert orjson.loads((await lot.park(wait_s=LONG_S, call_id=CALL[:-1] + "1")).body)["status"] == "queued"
    async with staying(lot) as answer:
        lot.callers.close()
    for got in (answer.result(), await lot.park(wait_s=LONG_S, call_id=CALL[:-1] + "2")):
        assert orjson.loads(got.body)["status"] == "queued"


# -- the same message once more

ANOTHER = "00000000-0000-4000-8000-00000000000b"
CLAIM = Claim(key="aa" * 20, words="bb" * 16)


async def test_the_same_message_waits_for_the_same_answer_and_is_told_once(lot, heard):
    await lot.park(claim=CLAIM)
    told = await heard.names()
    async with asyncio.TaskGroup() as group:
        joined = group.create_task(lot.park(call_id=ANOTHER, claim=CLAIM, wait_s=LONG_S))
        await eventually(lambda: CALL in lot.callers)
        await lot.end(Ending.COMPLETED, State.COMPLETED, b'{"result":1}')
    assert joined.result().body == b'{"jsonrpc":"2.0","id":"mine","result":1}'
    assert (joined.result().call_id, lot.parking.joined) == (CALL, 1)
    assert (told, await heard.names()) == (["ACTIVITY_LOGGED"], [])


async def test_the_same_message_is_queued_once_and_answered_when_it_has_been(lot):
    first = await lot.park(claim=CLAIM)
    assert (first.call_id, (await lot.park(call_id=ANOTHER, claim=CLAIM)).body) == (None, first.body)
    await lot.end(Ending.COMPLETED, State.COMPLETED, b'{"result":1}')
    late = await lot.park(call_id=ANOTHER, claim=CLAIM)
    assert (orjson.loads(late.body)["result"], late.call_id) == (1, CALL)


async def test_other_words_under_the_same_message_id_are_refused(lot):
    await lot.park(claim=CLAIM)
    with pytest.raises(Refusal) as refused:
        await lot.park(call_id=ANOTHER, claim=Claim(key=CLAIM.key, words="cc" * 16))
    assert (refused.value.code, refused.value.fields["call_id"]) == (Code.MESSAGE_ID_REUSED, CALL)


async def test_a_message_whose_call_waits_in_the_queue_of_an_agent_that_polls_by_now_is_not_parked(lot):
    new = NewQueued(
        id=CALL, workspace_id=lot.target.id, caller_id=None, lane="", priority=50, method="message/send", body=b"{}",
        outgoing=Outgoing(headers={}, limit_s=None, by_deadline=False), delay_s=0.0, lives_s=60.0, claim=CLAIM,
    )  # fmt: skip
    line = Line(id=CALL, workspace_id=lot.target.id, activity_type="a2a_receive", call_id=CALL)
    await lot.stores.queue.hold(new, line.row(0.0), error="agent_busy", room=1)
    answer = await lot.park(call_id=ANOTHER, claim=CLAIM)
    assert (answer.status, answer.call_id, orjson.loads(answer.body)["queue_id"]) == (202, CALL, CALL)
    [one] = await lot.stores.queue.claim(lot.target.id, eager=True, limit=1, lease_s=60.0)
    said = Answer(status=201, body=b'{"jsonrpc":"2.0","id":1,"result":2}', headers={"Content-Type": "application/json"})
    end = QueuedEnd(to=State.COMPLETED, ending=Ending.COMPLETED, error=None, answer=said, counts=True)
    await lot.stores.queue.end(one.call.id, one.claim, end, lambda call: (ended_row(call), []))
    answer = await lot.park(call_id=ANOTHER, claim=CLAIM)
    assert (answer.status, orjson.loads(answer.body)) == (201, {"jsonrpc": "2.0", "id": "mine", "result": 2})
