"""What is told and written of a call that has ended."""

import asyncio
from dataclasses import replace

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.bus import Bus
from gateway.core.endings import Ending
from gateway.core.outcomes import (
    Answered,
    Clock,
    Cut,
    Expired,
    NotConnected,
    Reset,
    TooLarge,
    Unheld,
)
from gateway.services.tasks import Tasks
from tests.services.memory import Channel
from tests.services.switchboard import (
    BODY,
    CALLER,
    FAILURES,
    REPLY,
    TARGET,
    Switchboard,
)


async def test_a_browsers_call_gives_one_row_and_tells_everybody_of_the_answer(board):
    answer = await board.call()
    assert (answer.status, answer.body) == (200, REPLY)
    [row] = await board.written()
    assert (row["workspace_id"], row["activity_type"], row["source_id"], row["target_id"]) == (
        TARGET,
        "a2a_receive",
        None,
        TARGET,
    )
    assert (row["method"], row["status"], row["summary"]) == ("message/send", "ok", "message/send: completed")
    assert (row["calls"], row["input_tokens"], row["output_tokens"]) == (1, 3, 4)
    assert row["millionths"] == 3 * 100 + 4 * 1000
    assert (row["request_body"], row["response_body"]) == (orjson.loads(BODY), orjson.loads(REPLY))
    logged, response, ended = await board.heard()
    assert [one.type for one in (logged, response, ended)] == ["ACTIVITY_LOGGED", "A2A_RESPONSE", "CALL_ENDED"]
    assert orjson.loads(response.payload)["response_body"] == orjson.loads(REPLY)
    told = orjson.loads(ended.payload)
    assert (told["call_id"], told["ending"], told["status"]) == (row["call_id"], "completed", 200)
    assert board.dispatcher.sent[0].call_id == row["call_id"]


async def test_a_workspaces_call_gives_a_row_on_either_side_and_no_answer_to_browsers(board):
    await board.call(caller=CALLER)
    received, sent = await board.written()
    assert [(row["workspace_id"], row["activity_type"]) for row in (received, sent)] == [
        (TARGET, "a2a_receive"),
        (CALLER, "a2a_send"),
    ]
    for row in (received, sent):
        assert (row["source_id"], row["target_id"], row["call_id"]) == (CALLER, TARGET, received["call_id"])
    assert (received["calls"], sent["calls"]) == (1, 0), "one call is counted once"
    assert [(one.type, one.workspace_id) for one in await board.heard()] == [
        ("ACTIVITY_LOGGED", TARGET),
        ("ACTIVITY_LOGGED", CALLER),
        ("CALL_ENDED", TARGET),
    ]


async def test_a_workspace_that_calls_itself_has_one_row(board):
    await board.call(caller=TARGET, to=TARGET)
    assert [row["activity_type"] for row in await board.written()] == ["a2a_receive"]


async def test_an_answer_is_a_sign_of_its_agent_and_the_end_of_a_call_none_of_its_caller(board):
    await board.call()
    assert [(one.type, one.workspace_id) for one in await board.heard() if one.sign] == [("A2A_RESPONSE", TARGET)]
    await board.call(caller=CALLER)
    assert [one.type for one in await board.heard() if one.sign] == []


@pytest.mark.parametrize(("outcome", "ending"), FAILURES, ids=lambda value: str(value)[:40])
async def test_a_call_that_fails_is_told_and_written_and_no_sign_of_its_agent(board, outcome, ending):
    board.dispatcher.outcome = outcome
    await board.call()
    [row] = await board.written()
    assert (row["summary"], row["response_body"]) == (f"message/send: {ending.value}", None)
    assert row["status"] == (
        "ok" if ending in (Ending.TRUNCATED, Ending.RESPONSE_TOO_LARGE, Ending.OVERLOADED, Ending.BUDGET) else "error"
    )
    heard = await board.heard()
    assert [one.type for one in heard] == ["ACTIVITY_LOGGED", "CALL_ENDED"]
    assert orjson.loads(heard[1].payload)["ending"] == ending.value
    assert not any(one.sign for one in heard), "the gateway's own writing keeps no call alive"


def test_every_ending_that_a_dispatch_can_bring_has_been_tried_but_the_good_one():
    others = {
        Ending.COMPLETED, Ending.DELIVERED_TO_INBOX, Ending.EXPIRED, Ending.REJECTED,
        Ending.INTERRUPTED,
    }  # fmt: skip
    assert {ending for _, ending in FAILURES} == set(Ending) - others


@pytest.mark.parametrize("outcome", [*(outcome for outcome, _ in FAILURES), RuntimeError("a bug")])
async def test_a_call_that_fails_leaves_too_and_has_cost_nothing(board, outcome):
    board.dispatcher.outcome = outcome
    await board.call()
    await board.ended()
    assert [left.cost for left in board.gate.left] == [0]


@given(st.binary(max_size=64) | st.just(b"[" * 900 + b"]" * 900) | st.just(b'"\\ud800"') | st.just(b"1" * 400))
def test_whatever_an_agent_answers_the_call_ends_once_and_is_written(answered):
    async def run() -> None:
        async with Tasks() as tasks:
            channel = Channel()
            bus = Bus(channel, capacity=100, capacity_bytes=1_000_000)
            tasks.spawn(bus.run(), "bus")
            board = Switchboard(bus, channel, tasks)
            board.dispatcher.outcome = Answered(status=200, headers={}, body=answered)
            assert (await board.call()).body == answered
            assert len(await board.written()) == 1
            assert await board.heard.names() == ["ACTIVITY_LOGGED", "A2A_RESPONSE", "CALL_ENDED"]
        assert tasks.deaths == 0

    asyncio.run(run())


@pytest.mark.parametrize(
    ("outcome", "cost"),
    [
        (Reset(), 77),
        (Expired(clock=Clock.DEADLINE), 77),
        (Cut(status=200), 77),
        (TooLarge(), 77),
        (Unheld(status=200), 77),
        (NotConnected(), 0),
    ],
    ids=str,
)
async def test_a_call_of_which_nobody_knows_what_it_used_costs_what_it_held(board, outcome, cost):
    board.gate.answer = replace(board.gate.answer, held=77)
    board.dispatcher.outcome = outcome
    await board.call()
    [row] = await board.written()
    assert ([left.cost for left in board.gate.left], row["millionths"]) == ([cost], cost)


@pytest.mark.parametrize("status", [200, 500])
@pytest.mark.parametrize("padding", [0, 100_000])
async def test_what_an_answer_has_used_counts_however_long_it_is_and_if_it_is_an_error(board, status, padding):
    body = orjson.dumps({"jsonrpc": "2.0", "id": "1", "result": {"pad": "x" * padding, "usage": {"input_tokens": 9}}})
    board.dispatcher.outcome = Answered(status=status, headers={"Content-Type": "application/json"}, body=body)
    await board.call()
    [row] = await board.written()
    assert (row["input_tokens"], row["millionths"], board.gate.left[0].cost) == (9, 900, 900)
