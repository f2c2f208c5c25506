"""runtime.tell: a caller's stream has what was said once, however the gateway is."""

import asyncio

import pytest

from runtime import tell as telling
from runtime.client import connected
from runtime.tell import find_last_event, tell

ID = "3f2b9c1e-0a4d-4b55-8a2f-1f1f1f1f1f1f"


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(telling, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(telling, "MOST_PAUSE_S", 0.02)


@pytest.fixture
async def told(gateway, take_turns, incoming):
    """Take a turn and tell it: what the caller's artifact is then, and the turn."""

    async def run(answer):
        turn = take_turns(answer).begin(incoming("hi"))
        async with connected(gateway.url) as client, asyncio.timeout(10):
            await tell(turn, gateway=client, workspace_id=ID, call_id="call-1", token=lambda: "t")
        return turn

    return run


def artifact(settled):
    """What a caller has that gets these events."""
    text = ""
    for _, _, body in settled:
        event = body["event"]
        if event["kind"] == "artifact-update":
            text = text * event["append"] + event["artifact"]["parts"][0]["text"]
    return text


async def answer(turn):
    turn.begin_task("t")
    for piece in "abcd":
        await turn.say(piece)
        await asyncio.sleep(0.005)
    return "abcde"


@pytest.mark.parametrize("failing", range(6))
@pytest.mark.parametrize("trouble", [(503, {}), (500, {}), (401, {"error": "who?"}), (200, "no object")])
async def test_an_event_that_may_be_lost_is_told_again_in_its_place(gateway, told, failing, trouble):
    gateway.on_settle["events"] = [(200, {"status": "kept"})] * failing + [trouble] * 2
    turn = await told(answer)
    assert artifact(gateway.settled) == turn.ended.text == "abcde", "what was denied had been taken"
    del gateway.settled[failing : failing + 2]
    assert artifact(gateway.settled) == turn.ended.text, "or had not"
    assert all(verb == "events" for _, verb, _ in gateway.settled)


async def test_a_gateway_that_does_not_want_it_is_told_no_more(gateway, told):
    gateway.on_settle["events"] = [(200, {"status": "kept"}), (409, {"error": "the call has ended"})]
    turn = await told(answer)
    assert len(gateway.settled) == 2
    assert (await turn.get_reply())["status"]["state"] == "completed"


@pytest.mark.parametrize("fails", [False, True])
async def test_nothing_is_told_of_a_message(gateway, told, fails):
    async def plain(turn):
        await turn.say("half")
        return 1 / 0 if fails else "whole"

    turn = await told(plain)
    assert gateway.settled == []
    assert turn.said.over
    assert find_last_event(turn) is None
