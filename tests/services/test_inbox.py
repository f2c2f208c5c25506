import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from uuid import uuid4

import orjson
import pytest

from gateway.core.calls import Kind, State
from gateway.core.prices import Price, Prices
from gateway.core.refusals import Code, Refusal, invalid_credential
from gateway.core.views import VIEW_BYTES
from gateway.ports import Filters, NewCall, StoreUnavailable
from gateway.services.activity import ActivityLog, Line
from gateway.services.directory import Directory
from gateway.services.inbox import Inbox, Taken
from gateway.services.wakes import Wakes
from tests.harness.world import eventually
from tests.services.memory import Batches, Journal

LONG_S = 30.0
ANSWER = b'{"jsonrpc":"2.0","id":1,"result":{"n":1.0}}'


class Box:
    """The inbox of an agent, and its caller."""

    def __init__(self, stores, bus, target: str, caller: str) -> None:
        self.stores = stores
        self.target, self.caller = target, caller
        self.agents = Wakes(capacity=2)
        self.inbox = Inbox(
            calls=stores.calls,
            activity=ActivityLog(Batches(), bus, capacity=10, every_s=1),
            directory=Directory(stores.workspaces, ttl_s=300),
            bus=bus,
            prices=Prices(by_model={"*": Price(input=2, output=3)}),
            journal=Journal(),
            leave=lambda workspace, call_id, cost: self.charged.append((workspace.id, cost)),
            agents=self.agents,
            lease_s=LONG_S,
            wait_s=LONG_S,
        )
        self.hung_up = False
        self.revoked = False
        self.charged: list[tuple[str, int]] = []

    async def put(self, *, by_person: bool = False, waits_s: float = 0.0) -> str:
        new = NewCall(
            id=str(uuid4()), kind=Kind.PARKED, workspace_id=self.target, method="message/send", body=b"{}",
            caller_id=None if by_person else self.caller, waits_s=waits_s, lives_s=100.0,
        )  # fmt: skip
        row = Line(id=new.id, workspace_id=self.target, activity_type="a2a_receive", call_id=new.id).row(0.0)
        assert await self.stores.calls.park(new, row, room=100)
        self.agents.wake(self.target)
        return new.id

    async def take(self, wait_s: float = 0.0) -> Taken:
        async with asyncio.timeout(LONG_S / 2):
            return await self.inbox.take(
                self.target, wait_s=wait_s, limit=10, gone=lambda: self.hung_up, check=self.check
            )

    async def check(self) -> None:
        if self.revoked:
            raise invalid_credential()

    async def ids(self, wait_s: float = 0.0) -> list[str]:
        return [one.call.id for one in (await self.take(wait_s)).messages]

    async def history(self, of: str) -> list[tuple[object, ...]]:
        rows = await self.stores.activity.list_newest(of, Filters())
        return [(row.activity_type, row.summary, row.status, row.response_body) for row in rows]


@pytest.fixture
async def box(stores, bus) -> Box:
    return Box(stores, bus, await stores.make(delivery_mode="poll"), await stores.make())


@asynccontextmanager
async def waiting(box: Box, wait_s: float = LONG_S) -> AsyncIterator["asyncio.Task[list[str]]"]:
    """An agent that waits for a message; at the end of the block it has had its answer."""
    async with asyncio.TaskGroup() as group:
        got = group.create_task(box.ids(wait_s))
        await eventually(lambda: box.target in box.agents)
        yield got


async def code(refused: "asyncio.Future[object] | object") -> Code:
    with pytest.raises(Refusal) as found:
        await refused  # type: ignore[misc]
    return found.value.code


async def test_an_agent_that_waits_gets_what_comes_at_once(box):
    async with waiting(box) as got:
        id_ = await box.put()
    assert got.result() == [id_]
    assert len(box.agents) == 0


async def test_an_agent_that_waits_in_vain_gets_nothing(box):
    assert await box.ids(wait_s=0.05) == []
    assert await box.ids() == []


async def test_while_an_agent_waits_the_database_is_asked_nothing(box, monkeypatch):
    looks: list[str] = []
    take = box.stores.calls.take

    async def counted(workspace_id: str, **limits: float) -> object:
        looks.append(workspace_id)
        return await take(workspace_id, **limits)

    monkeypatch.setattr(box.stores.calls, "take", counted)
    assert await box.ids(wait_s=0.5) == []
    assert len(looks) == 2  # at the beginning and at the end


async def test_an_agent_that_waits_gets_a_message_when_the_lease_of_another_is_over(box):
    id_ = await box.put()
    assert len(await box.stores.calls.take(box.target, limit=1, limit_bytes=1, lease_s=0.3)) == 1
    [message] = (await box.take(wait_s=LONG_S)).messages
    assert (message.call.id, message.call.attempts) == (id_, 2)


async def test_an_agent_that_has_hung_up_takes_nothing_with_it(box):
    async with waiting(box) as got:
        box.hung_up = True
        id_ = await box.put()
    assert got.result() == []
    box.hung_up = False
    assert await box.ids() == [id_]


async def test_an_agent_whose_token_is_revoked_while_it_waits_takes_nothing(box):
    async with asyncio.TaskGroup() as group:
        refused = group.create_task(code(box.take(LONG_S)))
        await eventually(lambda: box.target in box.agents)
        box.revoked = True
        id_ = await box.put()
    assert refused.result() is Code.INVALID_CREDENTIAL
    box.revoked = False
    assert await box.ids() == [id_]


async def test_agents_are_sent_elsewhere_when_the_gateway_goes_away_or_too_many_wait(box):
    with box.agents.waiting("x"), box.agents.waiting("y"):
        assert await code(box.take(wait_s=1.0)) is Code.OVERLOADED
        assert await box.ids() == []  # who does not wait is served
    async with waiting(box) as got:
        box.agents.close()
    assert got.result() == []
    assert await code(box.take()) is Code.DRAINING


async def test_an_answer_ends_the_call_and_stands_in_both_histories(box, heard):
    id_ = await box.put()
    assert await box.inbox.reply(box.target, id_, ANSWER) is State.COMPLETED
    call = await box.stores.calls.find(box.target, id_)
    assert (call.state, call.answer) == (State.COMPLETED, ANSWER)
    summary = "message/send: completed"
    assert await box.history(box.target) == [("a2a_receive", summary, "ok", orjson.loads(ANSWER))]
    assert await box.history(box.caller) == [("a2a_send", summary, "ok", None)]
    events = await heard()
    assert [(one.type, one.workspace_id, one.sign) for one in events] == [
        ("ACTIVITY_LOGGED", box.caller, False),
        ("CALL_ENDED", box.target, False),
    ]
    assert orjson.loads(events[1].payload).items() >= {"call_id": id_, "ending": "completed", "status": 200}.items()


async def test_what_an_answer_has_used_is_counted_once_and_priced(box, stores):
    id_, other = await box.put(), await box.put()
    answer = b'{"result":{"usage":{"input_tokens":10,"output_tokens":5}}}'
    for _ in range(2):
        await box.inbox.reply(box.target, id_, answer)
    await box.inbox.reply(box.target, other, ANSWER)
    used = await stores.activity.usage_today(box.target)
    assert (used.input_tokens, used.output_tokens) == (10, 5)
    assert await stores.ask("select millionths from usage") == 35
    assert box.charged == [(box.target, 35), (box.target, 0)]


@pytest.mark.parametrize("long", [False, True])
async def test_the_answer_to_a_person_goes_to_browsers_whole(box, heard, long):
    answer = orjson.dumps({"result": "x" * (2 * VIEW_BYTES if long else 1)})
    await box.inbox.reply(box.target, await box.put(by_person=True), answer)
    event = next(one for one in await heard() if one.type == "A2A_RESPONSE")
    assert event.sign
    assert orjson.loads(event.whole or event.payload)["response_body"] == orjson.loads(answer)
    assert await box.history(box.caller) == []


async def test_the_same_answer_once_more_changes_nothing_and_another_is_refused(box, heard):
    id_ = await box.put()
    for _ in range(2):
        assert await box.inbox.reply(box.target, id_, ANSWER) is State.COMPLETED
    assert await code(box.inbox.reply(box.target, id_, b'{"result":2}')) is Code.CALL_ENDED
    assert (await heard.names()).count("CALL_ENDED") == 1


async def test_an_acknowledgement_ends_the_call_for_whose_answer_nobody_waits(box, heard):
    id_ = await box.put()
    for _ in range(2):
        assert await box.inbox.acknowledge(box.target, id_) is State.COMPLETED
    assert await box.history(box.target) == [("a2a_receive", "message/send: delivered_to_inbox", "ok", None)]
    assert (await heard.names()).count("CALL_ENDED") == 1
    assert await code(box.inbox.reply(box.target, id_, ANSWER)) is Code.CALL_ENDED


async def test_an_acknowledged_call_whose_caller_waits_can_still_be_answered(box):
    id_ = await box.put(waits_s=LONG_S)
    for _ in range(2):
        assert await box.inbox.acknowledge(box.target, id_) is State.DISPATCHED
    assert await box.ids() == []
    assert await box.inbox.keep(box.target, id_, b"{}") is State.DISPATCHED
    assert await box.inbox.reply(box.target, id_, ANSWER) is State.COMPLETED
    assert await code(box.inbox.acknowledge(box.target, id_)) is Code.CALL_ENDED


async def test_what_is_not_there_or_over_cannot_be_kept(box):
    id_ = await box.put()
    assert await box.inbox.keep(box.target, id_, b"{}") is State.PARKED
    assert await box.ids() == []  # it has a lease now
    await box.inbox.reply(box.target, id_, ANSWER)
    assert await code(box.inbox.keep(box.target, id_, b"{}")) is Code.CALL_ENDED


async def test_a_message_is_nobody_elses(box):
    id_ = await box.put()
    for verb in (
        box.inbox.keep(box.caller, id_, b"{}"), box.inbox.acknowledge(box.caller, id_),
        box.inbox.reply(box.caller, id_, ANSWER),
    ):  # fmt: skip
        assert await code(verb) is Code.NOT_FOUND
    assert (await box.stores.calls.find(box.target, id_)).state is State.PARKED


async def test_while_the_database_is_away_everybody_is_told_so(box, monkeypatch, heard):
    id_ = await box.put()

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("away")

    for name in ("take", "keep", "receive", "end"):
        monkeypatch.setattr(box.stores.calls, name, away)
    inbox, one = box.inbox, box.target
    for verb in (box.take(), inbox.keep(one, id_, b"{}"), inbox.acknowledge(one, id_), inbox.reply(one, id_, ANSWER)):
        assert await code(verb) is Code.PLATFORM_UNAVAILABLE
    assert await heard.names() == []
