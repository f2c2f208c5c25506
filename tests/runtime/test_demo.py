"""runtime.demo: echo, slow and task."""

import asyncio

import pytest

from runtime.demo import DEMO


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
