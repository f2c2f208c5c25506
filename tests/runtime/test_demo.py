"""runtime.demo: echo, slow, stream and task."""

import asyncio

import pytest

from runtime import demo
from runtime.demo import DEMO
from runtime.follow import Follower


@pytest.fixture
def turns(take_turns):
    return take_turns(DEMO.answer)


@pytest.mark.parametrize("text", ["hi", "", "  spaces  ", "slowly", "task", "two\nlines"])
async def test_it_echoes(turns, incoming, text):
    reply = await turns.send(incoming(text))
    assert (reply["kind"], reply["parts"]) == ("message", [{"kind": "text", "text": f"echo: {text}"}])


async def test_task_answers_with_a_completed_task(turns, incoming):
    reply = await turns.send(incoming("task tidy up"))
    assert (reply["kind"], reply["status"]["state"]) == ("task", "completed")
    assert reply["artifacts"][0]["parts"] == [{"kind": "text", "text": "echo: tidy up"}]


async def test_slow_waits_as_long_as_it_was_told_and_shows_it(turns, incoming, wait_until):
    loop = asyncio.get_running_loop()
    started_s = loop.time()
    working = await turns.send(incoming("slow 0.2", blocking=False))
    assert (turns.vitals().active_tasks, turns.vitals().current_task) == (1, "slow 0.2")
    await wait_until(lambda: turns.get(working["id"]).state == "completed")
    assert loop.time() - started_s >= 0.2
    assert turns.vitals().active_tasks == 0


@pytest.mark.parametrize("seconds", ["", "x", "-1", "601", "nan", "inf"])
async def test_slow_refuses_what_is_no_reasonable_time(turns, incoming, seconds):
    reply = await turns.send(incoming(f"slow {seconds}"))
    assert reply["kind"] == "message"
    assert "0 to 600" in reply["parts"][0]["text"]


async def test_stream_says_its_pieces_one_by_one(turns, incoming, monkeypatch):
    monkeypatch.setattr(demo, "STREAM_PAUSE_S", 0.01)
    follower, texts = Follower(turns.begin(incoming("stream 3"))), []
    while not follower.over:
        event = await follower.next()
        if event["kind"] == "artifact-update":
            texts.append(event["artifact"]["parts"][0]["text"])
    assert texts == ["1 of 3\n", "2 of 3\n", "3 of 3\n"]
    assert event["status"]["state"] == "completed"


@pytest.mark.parametrize("count", ["", "x", "0", "-1", "601", "1.5", "1" * 5000, "²"])
async def test_stream_refuses_what_is_no_reasonable_count(turns, incoming, count):
    reply = await turns.send(incoming(f"stream {count}"))
    assert reply["kind"] == "message"
    assert "1 to 600" in reply["parts"][0]["text"]
