"""Calls that are the same as an earlier one, with a Redis that says what the test wants."""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import orjson
import pytest

from events.bus import Bus
from gateway.core.answers import Answer, classify
from gateway.core.calls import Call, Kind, State
from gateway.core.claims import Claim
from gateway.core.endings import Ending
from gateway.core.outcomes import Answered, NotConnected, Reset
from gateway.core.refusals import Code, Refusal
from gateway.ports import Earlier, Same, Stage
from gateway.services import joining as joinings
from gateway.services.activity import ActivityLog
from gateway.services.joining import Held, Joiner, Joining
from gateway.services.queue import Held as Waits
from gateway.services.queue import Queue, Times
from gateway.services.room import Room
from gateway.services.shelf import Shelf
from gateway.services.wakes import Wakes
from tests.harness.world import eventually
from tests.services.memory import Batches, Clock, Gate, Inbox, agent_streams
from tests.services.memory import Queue as Places

CLAIM = Claim(key="aa", words="bb")
OTHER = Claim(key="aa", words="cc")
DONE = Answer(status=200, body=b'{"jsonrpc":"2.0","id":1,"result":{}}', headers={"Content-Type": "application/json"})
RUNNING = Earlier(call_id="c", words=True, stage=Stage.RUNNING)
ENDED = Earlier(call_id="c", words=True, stage=Stage.ENDED, answer=DONE)
LOST = Earlier(call_id="c", words=True, stage=Stage.LOST)
SOON_S = 8.0
PAYER = "call:somebody"


class Table:
    """A joining, and all that it speaks to."""

    def __init__(self, bus: Bus) -> None:
        self.gate = Gate()
        self.callers = Wakes(capacity=2)
        self.ledger = Inbox()
        self.clock = Clock()
        self.gone = False
        shelf = Shelf(lasts_s=60, each_bytes=1000, all_bytes=2000)
        self.late = Wakes(capacity=2)
        waits = Queue(
            calls=self.ledger,
            queue=Places(),
            activity=ActivityLog(Batches(), bus, capacity=1, every_s=1),
            callers=self.late,
            times=Times(lives_s=60, retry_s=1, wait_s=60, kept_s=60),
            room=1,
        )
        self.joining = Joining(
            gate=self.gate,
            waits=waits,
            callers=self.callers,
            shelf=shelf,
            streams=agent_streams(),
            capacity=2,
            now=self.clock,
        )

    def joiner(self, claim: Claim = CLAIM, **fields: Any) -> Joiner:
        given = {
            "id_json": b'"mine"',
            "limit_s": None,
            "by_deadline": True,
            "wait_s": 0.0,
            "hold": Room(1000).hold(),
            **fields,
        }
        return Joiner(claim=claim, gone=lambda: self.gone, **given)

    async def follow(self, earlier: Earlier, **fields: Any) -> Answer | None:
        async with asyncio.timeout(SOON_S):
            return await self.joining.follow(earlier, self.joiner(**fields))

    async def refusal(self, earlier: Earlier, **fields: Any) -> Code:
        with pytest.raises(Refusal) as refused:
            await self.follow(earlier, **fields)
        return refused.value.code


@pytest.fixture
def table(bus: Bus) -> Table:
    return Table(bus)


def code(answer: Answer) -> str:
    return str(orjson.loads(answer.body)["code"])


@pytest.fixture
def quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joinings, "LOOK_S", 0.01)


# -- calls that this process makes


def held(table: Table) -> "asyncio.Future[Answer]":
    answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
    table.joining.hold(CLAIM, "c", answer)
    return answer


def found(table: Table) -> Held:
    one = table.joining.find(CLAIM)
    assert one is not None
    return one


async def test_many_share_one_answer_each_under_its_own_id(table):
    answer = held(table)
    async with asyncio.TaskGroup() as group:
        ids = (b"1", b'"2"')
        shared = [group.create_task(table.joining.share(found(table), table.joiner(id_json=id_))) for id_ in ids]
        await eventually(lambda: table.joining.joined == 2)
        answer.set_result(DONE)
    said = [orjson.loads(one.result().body) for one in shared]
    assert said == [{"jsonrpc": "2.0", "id": id_, "result": {}} for id_ in (1, "2")]
    assert {one.result().call_id for one in shared} == {"c"}
    assert repr(table.joining) == "<Joining held=1 sharing=0 joined=2>"


async def test_one_that_goes_away_takes_nothing_from_the_others(table, tasks):
    answer = held(table)
    leaving = tasks.spawn(table.joining.share(found(table), table.joiner()), "leaving")
    await eventually(lambda: table.joining.joined == 1)
    leaving.cancel()
    await asyncio.wait([leaving])
    assert not answer.done()
    answer.set_result(DONE)
    assert (await table.joining.share(found(table), table.joiner())).status == 200


async def test_who_waits_for_a_call_made_here_waits_no_longer_than_it_said(table):
    held(table)
    late = await table.joining.share(found(table), table.joiner(limit_s=0.01))
    assert (late.status, code(late), late.call_id) == (504, "deadline", "c")
    late = await table.joining.share(found(table), table.joiner(limit_s=0.01, by_deadline=False))
    assert code(late) == "ceiling"


async def test_only_so_many_wait_for_calls_made_here(table, tasks):
    answer = held(table)
    waiting = [tasks.spawn(table.joining.share(found(table), table.joiner()), "waiting") for _ in range(2)]
    await eventually(lambda: table.joining.joined == 2)
    with pytest.raises(Refusal) as refused:
        await table.joining.share(found(table), table.joiner())
    assert refused.value.code is Code.OVERLOADED
    answer.set_result(DONE)
    await asyncio.wait(waiting)
    assert (await table.joining.share(found(table), table.joiner())).status == 200


async def test_other_words_are_refused_and_join_nothing(table):
    held(table)
    with pytest.raises(Refusal) as refused:
        await table.joining.share(found(table), table.joiner(OTHER))
    assert refused.value.code is Code.MESSAGE_ID_REUSED
    assert refused.value.fields == {"field": "params.message.messageId", "call_id": "c"}
    assert await table.refusal(Earlier(call_id="c", words=False, stage=Stage.RUNNING)) is Code.MESSAGE_ID_REUSED
    assert table.joining.joined == 0


async def test_only_the_call_that_is_held_is_dropped(table):
    held(table)
    table.joining.drop(CLAIM, "another")
    assert found(table).call_id == "c"
    table.joining.drop(CLAIM, "c")
    table.joining.drop(CLAIM, "c")
    assert table.joining.find(CLAIM) is None


async def test_an_answer_for_which_there_is_no_room_is_not_given(table):
    held(table).set_result(DONE)
    with pytest.raises(Refusal) as refused:
        await table.joining.share(found(table), table.joiner(hold=Room(3).hold()))
    assert refused.value.code is Code.OVERLOADED


async def test_a_long_answer_is_given_too(table):
    long = Answer(status=200, body=b'{"jsonrpc":"2.0","id":1,"result":"%b"}' % (b"a" * 100_000), headers=DONE.headers)
    held(table).set_result(long)
    answer = await table.joining.share(found(table), table.joiner(hold=Room(10**6).hold()))
    assert orjson.loads(answer.body) == {"jsonrpc": "2.0", "id": "mine", "result": "a" * 100_000}


# -- what is kept


def test_what_reached_no_agent_is_made_again_and_what_did_is_kept(table):
    done = classify(Answered(status=200, headers={}, body=b"{}"))
    assert (table.joining.keep(CLAIM, done, PAYER).answer, table.joining.keep(CLAIM, done, PAYER).again) == (
        done.answer,
        False,
    )
    unknown = table.joining.keep(CLAIM, classify(Reset()), PAYER)
    assert (unknown.again, code(unknown.answer)) == (False, "agent_reset")
    for outcome in (NotConnected(), Answered(status=429, headers={}, body=b"")):
        assert table.joining.keep(CLAIM, classify(outcome), PAYER).again


@pytest.mark.parametrize(
    "large",
    [
        Answered(status=200, headers={}, body=b"a" * 1001),
        Answered(status=200, headers={"A2A-Extensions": "a" * 1000}, body=b""),
        Answered(status=200, headers={"A2A-Extensions": "\u00e9" * 500}, body=b""),
    ],
    ids=["body", "header", "characters of two bytes"],
)
def test_an_answer_that_is_too_large_is_not_kept_whatever_of_it_is(table, large):
    kept = table.joining.keep(CLAIM, classify(large), PAYER)
    assert (kept.answer, kept.again) == (None, False)


# -- calls that another replica makes, and calls that have ended


async def test_the_answer_of_a_call_that_has_ended_is_given_at_once(table):
    answer = await table.follow(ENDED)
    assert (orjson.loads(answer.body)["id"], answer.call_id, table.gate.looked) == ("mine", "c", 0)


async def test_an_answer_that_was_not_kept_is_a_refusal_of_its_own(table):
    assert await table.refusal(Earlier(call_id="c", words=True, stage=Stage.ENDED)) is Code.ALREADY_COMPLETED


async def test_who_follows_looks_when_it_hears_of_the_end(table, monkeypatch):
    monkeypatch.setattr(joinings, "LOOK_S", 1000.0)
    table.gate.looks = [RUNNING]
    async with asyncio.TaskGroup() as group:
        followed = group.create_task(table.follow(RUNNING))
        await eventually(lambda: table.gate.looked == 1)
        table.gate.looks = [RUNNING, RUNNING, ENDED]  # the event may be there first
        table.callers.wake("c")
    assert followed.result().status == 200
    assert "c" not in table.callers


async def test_an_end_that_nobody_tells_is_found(table, quickly):
    table.gate.looks = [RUNNING, RUNNING, ENDED]
    assert (await table.follow(RUNNING)).status == 200


async def test_a_call_whose_replica_is_gone_is_interrupted_once_that_is_sure(table, quickly):
    table.gate.looks = [LOST, RUNNING, LOST, ENDED]
    assert (await table.follow(LOST)).status == 200
    table.gate.looks = [RUNNING, LOST]
    assert await table.refusal(RUNNING) is Code.INTERRUPTED


@pytest.mark.parametrize(
    ("seen", "code"),
    [
        (None, Code.INTERRUPTED),
        (Earlier(call_id="next", words=True, stage=Stage.RUNNING), Code.OVERLOADED),
        (Earlier(call_id="c", words=True, stage=Stage.ENDED, again=True), Code.OVERLOADED),
        (Earlier(call_id="c", words=True, stage=Stage.ENDED), Code.ALREADY_COMPLETED),
    ],
)
async def test_what_becomes_of_a_call_that_was_followed(table, seen, code):
    table.gate.looks = [seen]
    assert await table.refusal(RUNNING) is code


async def test_who_cannot_look_for_long_does_not_know_any_more(table, quickly):
    table.gate.away = True
    async with asyncio.TaskGroup() as group:
        refused = group.create_task(table.refusal(RUNNING))
        await eventually(lambda: table.gate.looked > 3)
        assert not refused.done()
        table.clock.at += joinings.BLIND_S
    assert refused.result() is Code.INTERRUPTED


async def test_redis_may_be_away_for_a_while(table, quickly):
    table.gate.away, table.gate.looks = True, [ENDED]
    async with asyncio.TaskGroup() as group:
        followed = group.create_task(table.follow(RUNNING))
        await eventually(lambda: table.gate.looked > 3)
        table.gate.away = False
    assert followed.result().status == 200


def late(table: Table) -> None:
    table.clock.at += 60


def hung_up(table: Table) -> None:
    table.gone = True


@pytest.mark.parametrize("happens", [late, hung_up])
async def test_who_follows_waits_no_longer_than_it_said_or_stays(table, quickly, happens: Callable[[Table], None]):
    table.gate.looks = [RUNNING]
    async with asyncio.TaskGroup() as group:
        followed = group.create_task(table.follow(RUNNING, limit_s=60))
        await eventually(lambda: table.gate.looked > 1)
        happens(table)
    assert (followed.result().status, code(followed.result())) == (504, "deadline")


async def test_who_follows_is_sent_off_when_the_process_goes_away(table):
    table.gate.looks = [RUNNING]
    async with asyncio.TaskGroup() as group:
        refused = group.create_task(table.refusal(RUNNING))
        await eventually(lambda: table.gate.looked == 1)
        table.callers.close()
    assert refused.result() is Code.DRAINING


async def test_only_so_many_follow(table):
    with table.callers.waiting("x"), table.callers.waiting("y"):
        assert await table.refusal(RUNNING) is Code.OVERLOADED
        assert (await table.follow(ENDED)).status == 200, "this one does not wait"


# -- calls that wait for a busy agent


WAITS = Earlier(call_id="c", words=True, stage=Stage.WAITS)
TARGET = "00000000-0000-4000-8000-00000000000a"


def ledger(state: State = State.QUEUED, *, words: bool = True, **fields: Any) -> Same:
    now = datetime.now(UTC)
    call = Call(
        id="q", kind=Kind.QUEUED, state=state, workspace_id=TARGET, caller_id=None, method="message/send", attempts=0,
        created_at=now, expires_at=now, **fields,
    )  # fmt: skip
    return Same(call=call, words=words)


ANSWERED = ledger(
    State.COMPLETED, ending=Ending.COMPLETED, answer=DONE.body, answer_status=200, answer_headers=DONE.headers
)


async def test_who_shares_a_call_whose_agent_is_busy_is_told_that_it_waits(table):
    answer = held(table)
    waits = Waits(call_id="c", workspace_id=TARGET, lives_s=60, answer=Answer(status=202, body=b"{}"))
    async with asyncio.TaskGroup() as group:
        shared = [group.create_task(table.joining.share(found(table), table.joiner())) for _ in range(2)]
        await eventually(lambda: table.joining.joined == 2)
        answer.set_result(waits)
    assert [(one.result().status, one.result().call_id) for one in shared] == [(202, "c")] * 2


async def test_who_shares_it_and_stays_gets_its_agents_answer(table):
    waits = Waits(call_id="q", workspace_id=TARGET, lives_s=60, answer=Answer(status=202, body=b"{}"))
    held(table).set_result(waits)
    async with asyncio.TaskGroup() as group:
        staying = group.create_task(table.joining.share(found(table), table.joiner(wait_s=SOON_S)))
        late = group.create_task(table.joining.share(found(table), table.joiner(wait_s=SOON_S, limit_s=0.05)))
        await eventually(lambda: len(table.late) == 2)
        await eventually(late.done)
        table.ledger.same = ANSWERED
        table.late.wake("q")
    assert late.result().status == 202, "it stays no longer than its own time"
    assert (orjson.loads(staying.result().body)["id"], staying.result().call_id) == ("mine", "c")


async def test_a_call_that_begins_to_wait_while_it_is_followed_is_told_of(table):
    table.gate.looks, table.ledger.same = [RUNNING, WAITS], ledger()
    async with asyncio.TaskGroup() as group:
        followed = group.create_task(table.follow(RUNNING))
        await eventually(lambda: table.gate.looked == 1)
        table.callers.wake("c")
    answer = followed.result()
    assert (answer.status, answer.call_id, orjson.loads(answer.body)["queue_depth"]) == (202, "q", 7)


@pytest.mark.parametrize("earlier", [WAITS, replace(WAITS, words=False), LOST])
async def test_the_ledger_knows_what_has_become_of_a_call_that_waited(table, quickly, earlier):
    table.gate.looks = [LOST]
    table.ledger.same = ledger()
    assert (await table.follow(earlier)).status == 202
    table.ledger.same = ANSWERED
    answer = await table.follow(earlier)
    assert (answer.status, orjson.loads(answer.body)["id"], answer.call_id) == (200, "mine", "q")
    table.ledger.same = ledger(State.INTERRUPTED, ending=Ending.INTERRUPTED)
    assert code(await table.follow(earlier)) == "interrupted"
    table.ledger.same = ledger(words=False)
    assert await table.refusal(earlier) is Code.MESSAGE_ID_REUSED
    table.ledger.same = ledger(State.COMPLETED, ending=Ending.DELIVERED_TO_INBOX)
    assert await table.refusal(earlier) is Code.ALREADY_COMPLETED
    table.ledger.away = True
    assert await table.refusal(earlier) is Code.PLATFORM_UNAVAILABLE


async def test_a_call_that_is_over_leaves_its_message_to_the_next_one(table):
    joined = table.joining.joined
    assert await table.follow(WAITS) is None
    assert table.joining.joined == joined


async def test_what_redis_has_not_told_of_is_found_in_the_ledger(table):
    assert await table.joining.recall(CLAIM) is None
    table.ledger.same = ledger()
    got = await table.joining.recall(CLAIM)
    assert (await table.joining.stay(got, table.joiner())).status == 202
    assert table.joining.joined == 1
    table.ledger.away = True
    assert await table.joining.recall(CLAIM) is None, "while both are away calls go on"
