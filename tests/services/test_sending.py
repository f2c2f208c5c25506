"""A call on its way: it ends once, waits for a busy agent, or is called off."""

import asyncio
from dataclasses import replace
from uuid import uuid4

import orjson
from structlog.testing import capture_logs

from gateway.core.endings import Ending
from gateway.core.outcomes import (
    Answered,
)
from gateway.core.refusals import Code
from gateway.core.workspaces import RuntimeMetadata
from gateway.ports import Same
from gateway.services.tasks import Tasks
from tests.harness.world import eventually
from tests.services.switchboard import (
    BODY,
    CALLER,
    MUTE,
    TARGET,
    VAULT,
    Switchboard,
    stored,
    workspace,
)


async def test_a_bug_in_the_dispatch_is_an_ending_too_and_nobody_waits_for_ever(board):
    board.dispatcher.outcome = ZeroDivisionError("a bug")
    with capture_logs() as logs:
        answer = await board.call()
    assert (answer.status, orjson.loads(answer.body)["code"]) == (500, "internal")
    assert "call_broke" in [entry["event"] for entry in logs]
    assert [row["summary"] for row in await board.written()] == ["message/send: internal"]


async def test_a_caller_that_goes_away_does_not_stop_its_call(board, tasks):
    board.dispatcher.gate.clear()
    caller = tasks.spawn(board.call(), "caller")
    await eventually(lambda: board.dispatcher.sent)
    caller.cancel()
    await asyncio.wait([caller])
    assert (caller.cancelled(), board.proxy.in_flight) == (True, 1)
    board.dispatcher.gate.set()
    [row] = await board.written()
    assert row["summary"] == "message/send: completed"
    assert await board.heard.names() == ["ACTIVITY_LOGGED", "A2A_RESPONSE", "CALL_ENDED"]


async def test_a_call_whose_agent_is_busy_waits_and_has_not_ended(board: Switchboard):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    answer = await board.call(caller=CALLER, X_A2A_Priority="50")
    await board.ended()
    [call] = board.queue.calls
    assert (answer.status, orjson.loads(answer.body)["queue_id"]) == (202, call.id)
    assert (call.body, call.lane, call.caller_id, call.priority, call.lives_s) == (BODY, CALLER, CALLER, 50, 60)
    assert (call.outgoing.limit_s, call.outgoing.by_deadline) == (1800, False)
    assert call.outgoing.headers == board.dispatcher.sent[0].headers
    [left] = board.gate.left
    assert (left.call_id, left.cost, left.keep_s) == (call.id, 0, 60)
    assert board.freed == []
    assert await board.written() == []
    assert await board.heard.names() == ["ACTIVITY_LOGGED"]


async def test_an_agents_credential_does_not_wait_with_a_call(board: Switchboard):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    board.workspaces.rows[TARGET] = workspace(TARGET, agent_auth=VAULT.seal("Bearer of the agent"))
    await board.call()
    assert "Authorization" in board.dispatcher.sent[0].headers
    assert "Authorization" not in board.queue.calls[0].outgoing.headers


async def test_a_call_waits_no_longer_than_its_deadline(board: Switchboard):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    await board.call(X_Timeout="20")
    [call] = board.queue.calls
    assert 15 < call.lives_s <= 20
    assert (call.outgoing.limit_s, call.outgoing.by_deadline) == (20, True)


async def test_a_call_to_an_agent_with_sessions_of_its_own_or_a_full_queue_does_not_wait(board: Switchboard):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    sessions = RuntimeMetadata(capabilities=frozenset({"session"}))
    board.workspaces.rows[MUTE] = workspace(MUTE, metadata=sessions)
    answer = await board.call(to=MUTE)
    assert (answer.status, orjson.loads(answer.body)["native_session"]) == (503, True)
    answers = [await board.call() for _ in range(4)]
    assert [one.status for one in answers] == [202, 202, 202, 503]
    await board.ended()
    assert board.freed == [], "whoever says that it is busy has no time for the next one"


async def test_a_call_that_waits_leaves_its_message_to_the_ledger(board: Switchboard):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    answer = await board.call()
    await board.ended()
    [entry], [left], [call] = board.gate.entries, board.gate.left, board.queue.calls
    assert (answer.status, call.claim) == (202, entry.claim)
    assert (left.kept.claim, left.kept.waits, left.kept.again) == (entry.claim, True, False)


async def test_those_that_share_a_call_whose_agent_is_busy_are_all_told_that_it_waits(board: Switchboard, tasks: Tasks):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    board.dispatcher.gate.clear()
    callers = [tasks.spawn(board.call(), "caller") for _ in range(3)]
    await eventually(lambda: board.joining.joined == 2)
    board.dispatcher.gate.set()
    answers = [await one for one in callers]
    assert [one.status for one in answers] == [202] * 3
    assert {orjson.loads(one.body)["queue_id"] for one in answers} == {board.dispatcher.sent[0].call_id}
    assert len(board.queue.calls) == 1


async def test_a_busy_agents_message_that_the_ledger_has_already_is_no_call_of_its_own(board: Switchboard):
    """Redis had forgotten it."""
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    board.queue.same = Same(call=stored("q"), words=True)
    answer = await board.call()
    await board.ended()
    assert (answer.call_id, orjson.loads(answer.body)["id"]) == ("q", "q")
    board.queue.same = replace(board.queue.same, words=False)
    assert (await board.refusal()).code is Code.MESSAGE_ID_REUSED
    await board.ended()
    assert [left.kept.waits for left in board.gate.left] == [True, True]
    assert (await board.written(), await board.heard()) == ([], [])


async def test_a_call_that_is_called_off_ends_at_once_and_its_row_says_so(board):
    board.dispatcher.gate.clear()
    id_ = str(uuid4())
    waits = board.tasks.spawn(board.call(caller=CALLER, call_id=id_), "waits")
    await eventually(lambda: board.dispatcher.sent)
    with capture_logs() as logs:
        board.flights.call_off(id_)
        board.flights.call_off(id_)
        answer = await waits
    said = orjson.loads(answer.body)
    assert (answer.status, said["code"], said["outcome"]) == (409, "cancelled", "unknown")
    assert [(one["ending"], one["status"]) for one in logs if one["event"] == "call_ended"] == [("cancelled", 409)]
    received, _sent = await board.written()
    assert (received["call"]["state"], received["call"]["journey"].status) == ("cancelled", 409)
    _, ended = await board.heard.one("CALL_ENDED")
    assert (ended["ending"], ended["status"]) == ("cancelled", 409)
    [left] = board.gate.left
    assert (left.arrival.ending, left.kept.again) == (Ending.CANCELLED, False)
    assert left.kept.answer == answer, "who sends it again gets the same: nobody knows what became of it"
