"""A call's steps, with an agent that is only an outcome."""

import asyncio
from dataclasses import replace

import orjson
import pytest
from structlog.testing import capture_logs

from gateway.core.answers import Answer
from gateway.core.outcomes import (
    Answered,
)
from gateway.core.refusals import Code, Refusal
from gateway.core.workspaces import RuntimeMetadata
from gateway.ports import Earlier, Left, Same, Stage, StoreTimeout, StoreUnavailable
from gateway.services.tasks import Tasks
from gateway.store.vault import FernetVault, new_key
from tests.harness.world import eventually
from tests.services.switchboard import (
    BODY,
    CALLER,
    GONE,
    MUTE,
    RATE,
    REPLY,
    TARGET,
    UNSAFE,
    VAULT,
    Switchboard,
    message,
    stored,
    workspace,
)


async def test_draining_lets_calls_end_and_takes_no_new_ones(board, tasks):
    board.dispatcher.gate.clear()
    caller = tasks.spawn(board.call(), "caller")
    await eventually(lambda: board.proxy.in_flight == 1)
    draining = tasks.spawn(board.proxy.drain(30), "drain")
    await asyncio.sleep(0)
    refused = await board.refusal()
    assert (refused.code, refused.retry_after_s) == (Code.DRAINING, 5)
    assert not draining.done()
    board.dispatcher.gate.set()
    await draining
    assert (await caller).status == 200
    assert repr(board.proxy) == "<Proxy in_flight=0>"


async def test_what_does_not_end_while_draining_ends_as_a_shutdown_and_is_written(board, tasks):
    board.dispatcher.gate.clear()
    caller = tasks.spawn(board.call(), "caller")
    await eventually(lambda: board.proxy.in_flight == 1)
    await board.proxy.drain(0)
    answer = await caller
    assert (answer.status, orjson.loads(answer.body)["code"]) == (503, "gateway_shutdown")
    assert [row["summary"] for row in await board.written()] == ["message/send: gateway_shutdown"]
    await board.proxy.drain(30)


@pytest.mark.parametrize(
    ("to", "code", "fields"),
    [
        (MUTE, Code.NO_URL, {"status": "awaiting_agent"}),
        (UNSAFE, Code.UNSAFE_URL, {}),
        (GONE, Code.REMOVED, {"id": GONE, "removed_at": None}),
        ("00000000-0000-4000-8000-000000000404", Code.NOT_FOUND, {}),
    ],
)
async def test_what_cannot_be_called_is_refused_before_anything_goes_out(board, to, code, fields):
    refused = await board.refusal(to=to)
    assert (refused.code, refused.fields) == (code, fields)
    assert board.dispatcher.sent == []
    assert await board.written() == []
    assert board.gate.entries == []


async def test_a_body_that_is_no_call_is_answered_as_json_rpc_and_goes_nowhere(board):
    answer = await board.call(body=b"[")
    assert (answer.status, orjson.loads(answer.body)["error"]["code"]) == (400, -32700)
    assert (board.dispatcher.sent, board.proxy.in_flight) == ([], 0)
    assert board.gate.taken == [("call:somebody", RATE)]


async def test_a_call_enters_once_with_what_goes_out_and_leaves_once_with_what_it_cost(board):
    above = "00000000-0000-4000-8000-0000000000aa"
    await board.call(caller=CALLER, X_A2A_Call_ID=above, X_Timeout="20", traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    await board.ended()
    [entry], [left], [outbound] = board.gate.entries, board.gate.left, board.dispatcher.sent
    assert (entry.call_id, entry.target_id) == (outbound.call_id, outbound.workspace_id)
    assert (entry.caller_id, entry.serves, entry.trace_id, entry.limit_s) == (CALLER, above, "a" * 32, 20)
    assert (left.call_id, left.trace_id, left.cost) == (entry.call_id, entry.trace_id, 4300)
    assert board.gate.taken == [], "its rate went with it"


@pytest.mark.parametrize(
    ("asked", "left_s", "limit_s", "by_deadline"),
    [
        (None, 7.5, 7.5, True),
        ("5", 7.5, 5, True),
        ("20", 7.5, 7.5, True),
        ("20", 0.0, 0.0, True),
        (None, None, 1800, False),
    ],
)
async def test_a_call_made_while_serving_another_ends_no_later(board, asked, left_s, limit_s, by_deadline):
    board.gate.answer = replace(board.gate.answer, left_s=left_s, depth=2)
    await board.call(caller=CALLER, **({} if asked is None else {"X_Timeout": asked}))
    [outbound] = board.dispatcher.sent
    assert (outbound.limit_s, outbound.by_deadline) == (limit_s, by_deadline)


async def test_the_agent_gets_the_bytes_that_were_sent_and_only_the_headers_it_may_see(board):
    await board.call(
        caller=CALLER, Authorization="Bearer x", Cookie="c", X_Custom="y", Accept="text/event-stream",
        content_type="application/json; v=1", A2A_Version="0.3", traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
    )  # fmt: skip
    [outbound] = board.dispatcher.sent
    assert outbound.body is BODY
    headers = dict(outbound.headers)
    assert headers.pop("traceparent").split("-")[1] == "a" * 32
    assert headers == {
        "Content-Type": "application/json; v=1",
        "Accept": "text/event-stream",
        "A2A-Version": "0.3",
        "X-Request-ID": "r-1",
        "X-A2A-Call-ID": outbound.call_id,
        "X-Workspace-ID": CALLER,
    }


async def test_a_sealed_credential_goes_to_the_agent_unsealed_and_one_of_another_key_not_at_all(board):
    board.workspaces.rows[TARGET] = workspace(TARGET, agent_auth=VAULT.seal("Bearer of the agent"))
    await board.call(Authorization="Bearer of the caller")
    assert board.dispatcher.sent[0].headers["Authorization"] == "Bearer of the agent"
    foreign = FernetVault(new_key().encode()).seal("x")
    board.workspaces.rows[MUTE] = workspace(MUTE, agent_auth=foreign)
    with capture_logs() as logs:
        await board.call(to=MUTE)
    assert "Authorization" not in board.dispatcher.sent[1].headers
    assert "agent_auth_unreadable" in [entry["event"] for entry in logs]


@pytest.mark.parametrize(
    ("caller", "timeout", "limit_s", "by_deadline"),
    [
        (None, None, None, False),
        (CALLER, None, 1800, False),
        (None, "2", 2, True),
        (CALLER, "2", 2, True),
        (None, "0", None, False),
        (CALLER, "0", 3600, False),
        (CALLER, "7200", 3600, False),
    ],
)
async def test_how_long_a_call_may_take_follows_from_who_calls_and_what_it_asks(
    board, caller, timeout, limit_s, by_deadline
):
    await board.call(caller=caller, **({} if timeout is None else {"X_Timeout": timeout}))
    [outbound] = board.dispatcher.sent
    assert (outbound.limit_s, outbound.by_deadline, outbound.idle_s) == (limit_s, by_deadline, 300)


async def test_a_bad_timeout_is_refused_and_a_declared_silence_is_kept(board):
    board.workspaces.rows[TARGET] = workspace(TARGET, metadata=RuntimeMetadata(idle_timeout_s=7.5))
    assert (await board.refusal(X_Timeout="soon")).code is Code.INVALID_REQUEST
    await board.call()
    assert board.dispatcher.sent[0].idle_s == 7.5


@pytest.mark.parametrize("mode", [None, "", "carrier pigeon"])
async def test_a_mode_that_nobody_knows_counts_as_push_and_is_told_once(board: Switchboard, mode: str | None):
    board.workspaces.rows[TARGET] = workspace(TARGET, delivery_mode=mode)
    with capture_logs() as logs:
        answers = [await board.call() for _ in range(3)]
    assert [answer.status for answer in answers] == [200, 200, 200]
    assert [line["delivery_mode"] for line in logs if line["event"] == "delivery_mode_unsure"] == [mode]
    assert (board.parking.unsure, board.inbox.calls) == (3, [])


@pytest.mark.parametrize("error", [StoreTimeout("late"), StoreUnavailable("away")])
async def test_a_mode_that_cannot_be_read_lets_no_call_through(board: Switchboard, error: Exception):
    board.workspaces.fails = error
    with pytest.raises(Refusal) as refused:
        await board.call()
    assert refused.value.code is Code.PLATFORM_UNAVAILABLE
    assert (board.dispatcher.sent, board.inbox.calls) == ([], [])


async def test_a_call_to_an_agent_that_polls_is_parked_and_never_sent(board: Switchboard):
    board.workspaces.rows[UNSAFE] = workspace(UNSAFE, url="http://169.254.169.254/", delivery_mode="poll")
    answer = await board.call(to=UNSAFE)
    [call] = board.inbox.calls
    assert orjson.loads(answer.body)["id"] == call.id
    assert (call.body, call.workspace_id, board.dispatcher.sent) == (BODY, UNSAFE, [])
    [entry] = board.gate.entries
    assert (entry.call_id, entry.limit_s, entry.budget, board.gate.left) == (call.id, 60, None, [])


async def test_a_call_in_an_inbox_lies_there_no_longer_than_the_call_that_it_serves(board: Switchboard):
    board.workspaces.rows[TARGET] = workspace(TARGET, delivery_mode="poll")
    board.gate.answer = replace(board.gate.answer, depth=2, left_s=2.5)
    await board.call(caller=CALLER)
    assert board.inbox.calls[0].lives_s == 2.5


async def test_a_call_that_does_not_get_into_an_inbox_has_left(board: Switchboard):
    board.workspaces.rows[TARGET] = workspace(TARGET, delivery_mode="poll")
    board.inbox.away = True
    assert (await board.refusal()).code is Code.PLATFORM_UNAVAILABLE
    assert [left.call_id for left in board.gate.left] == [entry.call_id for entry in board.gate.entries]


async def test_only_the_operator_asks_for_another_priority(board: Switchboard):
    board.queue.away, board.dispatcher.outcome = False, Answered(status=429, headers={}, body=b"")
    await board.call(X_A2A_Priority="100")
    assert board.queue.calls[0].priority == 100
    with pytest.raises(Refusal) as refused:
        await board.call(caller=CALLER, X_A2A_Priority="100")
    assert refused.value.code is Code.NOT_ALLOWED
    assert (await board.refusal(X_A2A_Priority="1")).code is Code.INVALID_REQUEST


# -- the same call once more


async def test_a_call_claims_its_message_and_leaves_its_answer(board: Switchboard):
    await board.call()
    await board.ended()
    [entry], [left] = board.gate.entries, board.gate.left
    assert (entry.claim is not None, left.kept.claim, left.kept.again) == (True, entry.claim, False)
    assert left.kept.answer.body == REPLY
    await board.call(body=BODY.replace(b'"messageId":"m-1",', b""))
    await board.ended()
    assert (board.gate.entries[1].claim, board.gate.left[1].kept) == (None, None)


async def test_the_same_call_is_made_once_and_pays_its_rate(board: Switchboard, tasks: Tasks):
    board.dispatcher.gate.clear()
    first = tasks.spawn(board.call(), "first")
    await eventually(lambda: board.dispatcher.sent)
    others = [tasks.spawn(board.call(body=BODY.replace(b'"id":"1"', b'"id":2')), "other") for _ in range(3)]
    await eventually(lambda: board.joining.joined == 3)
    refused = await board.refusal(body=BODY.replace(b'"hi"', b'"ho"'))
    assert refused.code is Code.MESSAGE_ID_REUSED
    assert board.gate.taken == [("call:somebody", RATE)] * 4
    board.dispatcher.gate.set()
    answers = [await one for one in others]
    assert {orjson.loads(answer.body)["id"] for answer in answers} == {2}
    assert {answer.call_id for answer in answers} == {board.dispatcher.sent[0].call_id}
    assert ((await first).body, (await first).call_id) == (REPLY, None)
    assert (len(board.gate.entries), len(board.gate.left), len(await board.written())) == (1, 1, 1)


async def test_a_first_caller_that_goes_away_leaves_its_call_to_the_others(board: Switchboard, tasks: Tasks):
    board.dispatcher.gate.clear()
    first = tasks.spawn(board.call(), "first")
    await eventually(lambda: board.dispatcher.sent)
    other = tasks.spawn(board.call(), "other")
    await eventually(lambda: board.joining.joined == 1)
    first.cancel()
    await asyncio.wait([first])
    board.dispatcher.gate.set()
    assert (await other).status == 200


async def test_what_redis_knows_to_have_ended_is_not_made_again(board: Switchboard):
    kept = Answer(status=200, body=REPLY, headers={"Content-Type": "application/json"})
    earlier = Earlier(call_id="c", words=True, stage=Stage.ENDED, answer=kept)
    board.gate.answer = replace(board.gate.answer, earlier=earlier)
    answer = await board.call(body=BODY.replace(b'"id":"1"', b'"id":2'))
    assert (orjson.loads(answer.body)["id"], answer.call_id) == (2, "c")
    assert (board.dispatcher.sent, board.gate.left, board.proxy.in_flight) == ([], [], 0)
    board.gate.answer = replace(board.gate.answer, earlier=replace(earlier, words=False))
    assert (await board.refusal()).code is Code.MESSAGE_ID_REUSED


async def test_without_redis_those_of_one_process_still_make_one_call(board: Switchboard, tasks: Tasks):
    board.gate.away = True
    board.dispatcher.gate.clear()
    callers = [tasks.spawn(board.call(), "caller") for _ in range(4)]
    await eventually(lambda: board.joining.joined == 3)
    board.dispatcher.gate.set()
    assert [(await one).status for one in callers] == [200] * 4
    assert (len(board.dispatcher.sent), board.tolls.unchecked >= 4) == (1, True)


async def test_one_that_redis_lets_in_joins_a_call_that_it_does_not_know_of(board: Switchboard, tasks: Tasks):
    """Redis was away when the first one began, and came back while the second one asked."""
    board.dispatcher.gate.clear()
    callers = [tasks.spawn(board.call(), "caller") for _ in range(2)]
    await eventually(lambda: board.joining.joined == 1)
    first, second = board.gate.entries
    [left] = board.gate.left
    assert (left.call_id, left.cost) == (second.call_id, 0)
    assert (left.kept.claim, left.kept.answer, left.kept.again) == (second.claim, None, True)
    board.dispatcher.gate.set()
    assert [(await one).status for one in callers] == [200, 200]
    assert [one.call_id for one in board.dispatcher.sent] == [first.call_id]


@pytest.mark.parametrize("sure", [True, False])
async def test_a_call_that_was_let_in_and_finds_no_room_may_be_made_again(bus, channel, tasks: Tasks, sure: bool):
    board = Switchboard(bus, channel, tasks, capacity=1)
    board.gate.answer = replace(board.gate.answer, sure=sure)
    board.dispatcher.gate.clear()
    refused: list[Code] = []

    async def second() -> None:
        refused.append((await board.refusal(body=message(1))).code)

    callers = [tasks.spawn(board.call(body=message(0)), "first"), tasks.spawn(second(), "second")]
    await eventually(lambda: refused)  # both were let in before the first was sent
    [left] = board.gate.left
    assert (left.call_id, left.kept.answer, left.kept.again) == (board.gate.entries[1].call_id, None, True)
    board.dispatcher.gate.set()
    await asyncio.gather(*callers)
    assert refused == [Code.OVERLOADED]


async def test_an_inbox_is_asked_who_has_the_message_and_redis_is_not(board: Switchboard):
    board.workspaces.rows[TARGET] = workspace(TARGET, delivery_mode="poll")
    await board.call()
    assert (board.inbox.calls[0].claim is not None, board.gate.entries[0].claim) == (True, None)
    board.inbox.same = Same(call=stored(board.inbox.calls[0].id), words=True)
    answer = await board.call()
    assert (answer.call_id, orjson.loads(answer.body)["id"]) == (board.inbox.calls[0].id,) * 2
    assert [left.call_id for left in board.gate.left] == [board.gate.entries[1].call_id], "it stands in no chain"


async def test_a_message_whose_call_waits_is_not_sent(board: Switchboard):
    waits = Earlier(call_id="q", words=True, stage=Stage.WAITS)
    board.gate.answer, board.queue.away = replace(board.gate.answer, earlier=waits), False
    board.inbox.same = Same(call=stored("q"), words=True)
    answer = await board.call()
    assert (answer.call_id, board.dispatcher.sent, board.gate.left) == ("q", [], [])


async def test_one_whose_call_waited_and_is_over_is_sent_and_pays_once(board: Switchboard, monkeypatch):
    waits = Earlier(call_id="q", words=False, stage=Stage.WAITS)
    board.gate.answer = replace(board.gate.answer, earlier=waits)
    assert (await board.refusal()).code is Code.OVERLOADED, "others are always faster"
    said = board.gate.leave

    def leave(left: Left) -> None:
        said(left)
        board.gate.answer = replace(board.gate.answer, earlier=None)

    monkeypatch.setattr(board.gate, "leave", leave)
    board.gate.left.clear()
    board.gate.entries.clear()
    assert (await board.call()).status == 200
    await board.ended()
    released, ended = board.gate.left
    assert (released.call_id, released.kept.again, released.kept.claim) == ("q", True, board.gate.entries[0].claim)
    assert (ended.call_id, ended.kept.again) == (board.dispatcher.sent[0].call_id, False)
    assert [entry.rate for entry in board.gate.entries] == [RATE, None]


async def test_while_redis_may_have_forgotten_what_waits_the_ledger_is_asked(board: Switchboard):
    board.gate.answer = replace(board.gate.answer, sure=False)
    assert (await board.call()).status == 200
    await board.ended()
    board.inbox.same = Same(call=stored("q"), words=True)
    assert (await board.call()).call_id == "q"
    board.inbox.same = replace(board.inbox.same, words=False)
    assert (await board.refusal()).code is Code.MESSAGE_ID_REUSED
    board.gate.away, board.inbox.same = True, replace(board.inbox.same, words=True)
    assert (await board.call()).call_id == "q"
    assert [left.kept.waits for left in board.gate.left] == [False, True, True, True]
    assert len(board.dispatcher.sent) == 1


async def test_one_that_hangs_up_while_the_ledger_is_asked_holds_nothing(board: Switchboard, tasks: Tasks, monkeypatch):
    board.gate.answer = replace(board.gate.answer, sure=False)
    asked = asyncio.Event()

    async def find_same(*_: object, **__: object) -> Same:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError("nobody sets it")

    monkeypatch.setattr(board.inbox, "find_same", find_same)
    caller = tasks.spawn(board.call(), "caller")
    await asked.wait()
    caller.cancel()
    await asyncio.wait([caller])
    [left] = board.gate.left
    assert (left.call_id, left.kept.again) == (board.gate.entries[0].call_id, True)


async def test_what_replicas_know_of_a_call_is_how_it_goes_out(board):
    await board.call(X_Timeout="7")
    [entry] = board.gate.entries
    journey = entry.journey
    assert (journey.replica, journey.idle_s, journey.limit_s, journey.by_deadline) == ("replica-1", 300.0, 7.0, True)
    assert journey.sent_bytes == len(board.dispatcher.sent[0].body)
