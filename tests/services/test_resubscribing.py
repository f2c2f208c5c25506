"""services.resubscribing: what an agent may answer that was asked for the rest of a stream, and what comes of it."""

import orjson
import pytest

from gateway.core import answers, outcomes
from gateway.core.outcomes import Answered, Clock, Expired, NotConnected, Outcome, Reset, Streamed
from gateway.ports import Same, StreamHead
from gateway.services.streams import Opened
from tests.services.switchboard import TARGET, Switchboard, stored

HELD = "00000000-0000-4000-8000-0000000000aa"
BODY = orjson.dumps({"jsonrpc": "2.0", "id": 7, "method": "tasks/resubscribe", "params": {"id": "t"}})
HEAD = StreamHead(call_id=HELD, workspace_id=TARGET, status=200, headers={}, id_json=b"1")
EVENT = b'data: {"jsonrpc":"2.0","id":1,"result":{"kind":"task","id":"t","status":{"state":"completed"}}}\n\n'
STREAM = Streamed(status=200, headers={"Content-Type": "text/event-stream"})


def said(code: int, *, status: int = 200) -> Answered:
    error = {"code": code, "message": "no"}
    return Answered(status=status, headers={}, body=orjson.dumps({"jsonrpc": "2.0", "id": 7, "error": error}))


@pytest.fixture
def holding(board: Switchboard) -> Switchboard:
    """A gateway that holds the stream of task t, of an earlier call."""
    relay = board.agent_streams.begin(HEAD)
    relay.feed(EVENT)
    board.agent_streams.end(relay, answers.classify(STREAM))
    board.inbox.same = Same(call=stored(HELD), words=True)
    return board


@pytest.mark.parametrize(
    ("outcome", "ours"),
    [
        (said(-32601), True),
        (said(-32001, status=404), True),
        (said(-32004), True),
        (said(-32009, status=400), True),
        (said(-32602), False),
        (said(-32603, status=500), False),
        (Answered(status=404, headers={}, body=b""), True),
        (Answered(status=405, headers={}, body=b"<html>"), True),
        (Answered(status=501, headers={}, body=b""), True),
        (Answered(status=502, headers={}, body=b""), True),
        (Answered(status=500, headers={}, body=b""), False),
        (Answered(status=401, headers={}, body=b""), False),
        (Answered(status=200, headers={}, body=b'{"jsonrpc":"2.0","id":7,"result":{}}'), False),
        (NotConnected(), True),
        (Reset(), True),
        (Expired(clock=Clock.IDLE), True),
        (Expired(clock=Clock.DEADLINE), False),
        (outcomes.Stopped(), False),
        (outcomes.Cancelled(under_way=True), False),
    ],
)
async def test_an_agent_that_cannot_is_told_from_one_that_does_not_want_to(
    holding: Switchboard, outcome: Outcome, ours: bool
) -> None:
    holding.dispatcher.outcome = outcome
    got = await holding.call(body=BODY)
    assert len(holding.dispatcher.sent) == 1, "the agent is asked first"
    assert isinstance(got, Opened) is ours
    if isinstance(got, Opened):
        assert (got.head.call_id, got.id_json, got.after) == (HELD, b"7", 0)


async def test_it_goes_on_behind_what_the_caller_has(holding: Switchboard) -> None:
    holding.dispatcher.outcome = NotConnected()
    for last, after in ((f"{HELD}-1", 1), ("of-another-call-1", 0)):
        got = await holding.call(body=BODY, Last_Event_ID=last)
        assert isinstance(got, Opened)
        assert got.after == after


async def test_who_may_not_see_the_call_and_who_cannot_look_get_what_the_agent_says(holding: Switchboard) -> None:
    holding.dispatcher.outcome = said(-32601)
    same, holding.inbox.same = holding.inbox.same, None
    assert (await holding.call(body=BODY)).status == 200
    holding.inbox.same = same
    holding.journal.away = True
    got = await holding.call(body=BODY)
    assert not isinstance(got, Opened)
    assert orjson.loads(got.body)["error"]["code"] == -32601


async def test_other_methods_are_the_agents_own(holding: Switchboard) -> None:
    holding.dispatcher.outcome = said(-32601)
    got = await holding.call(body=BODY.replace(b"tasks/resubscribe", b"tasks/get"))
    assert not isinstance(got, Opened)


@pytest.mark.parametrize(
    ("chunks", "ours"),
    [
        ([b'data: {"jsonrpc":"2.0","id":7,"error":{"code":-32001,"message":"no"}}\n\n'], True),
        ([b'data: {"jsonrpc":"2.0","id":7,"error":{"code":-32603,"message":"no"}}\n\n'], False),
        ([EVENT], False),
        ([EVENT, b'data: {"jsonrpc":"2.0","id":7,"error":{"code":-32001,"message":"no"}}\n\n'], False),
    ],
)
async def test_an_agent_may_say_so_in_its_stream(holding: Switchboard, chunks: list[bytes], ours: bool) -> None:
    holding.dispatcher.outcome, holding.dispatcher.chunks = STREAM, chunks
    got = await holding.call(body=BODY)
    assert isinstance(got, Opened)
    assert (got.head.call_id == HELD) is ours
    assert holding.journal.tasks[TARGET, "t"] == HELD, "the rest of a stream is not taken for the whole"
