"""runtime.turns: started, found, cancelled and ended."""

import asyncio

import pytest

from runtime.jsonrpc import Code, RpcError
from runtime.said import LIMIT_CHARS
from runtime.turns import Busy, Vitals


class Gate:
    """An answer that waits until it is let through."""

    def __init__(self, *, task=True):
        self.open = asyncio.Event()
        self.entered = 0
        self.task = task

    async def __call__(self, turn):
        if self.task:
            turn.begin_task(turn.text)
        self.entered += 1
        await self.open.wait()
        return f"done {turn.text}"


async def sent(turns, message):
    try:
        return await turns.send(message)
    except RpcError as error:
        return error


async def test_an_answer_is_a_message_in_the_same_context(take_turns, incoming):
    async def answer(turn):
        return turn.text.upper()

    reply = await take_turns(answer).send(incoming("hi"))
    assert (reply["kind"], reply["contextId"]) == ("message", "c1")
    assert reply["parts"] == [{"kind": "text", "text": "HI"}]


async def test_a_sender_that_blocks_gets_the_completed_task_and_can_get_it_again(take_turns, incoming, wait_until):
    gate = Gate()
    turns = take_turns(gate)
    async with asyncio.TaskGroup() as group:
        sending = group.create_task(turns.send(incoming("a")))
        await wait_until(lambda: gate.entered)
        assert turns.vitals() == Vitals(active_tasks=1, current_task="a")
        gate.open.set()
    reply = sending.result()
    assert (reply["kind"], reply["status"]["state"]) == ("task", "completed")
    assert turns.get(reply["id"]).to_json() == reply
    assert turns.vitals() == Vitals(active_tasks=0, current_task="")


async def test_a_sender_that_does_not_block_gets_the_working_task(take_turns, incoming, wait_until, caplog):
    gate = Gate()
    turns = take_turns(gate)
    reply = await turns.send(incoming("a", blocking=False))
    assert reply["status"]["state"] == "working"
    gate.open.set()
    await wait_until(lambda: turns.get(reply["id"]).state == "completed")
    assert caplog.text == ""


async def test_begin_and_end_of_a_task_are_told_with_the_vitals_of_that_moment(take_turns, incoming):
    changes = []
    gate = Gate()
    gate.open.set()
    await take_turns(gate, changes=changes).send(incoming("a"))
    assert changes == [Vitals(active_tasks=1, current_task="a"), Vitals(active_tasks=0, current_task="")]


async def test_the_newest_of_several_tasks_is_the_current_one(take_turns, incoming):
    gate = Gate()
    turns = take_turns(gate)
    for text in "ab":
        await turns.send(incoming(text, blocking=False))
    assert turns.vitals() == Vitals(active_tasks=2, current_task="b")


async def test_cancelling_a_task_answers_its_sender_too(take_turns, incoming, wait_until):
    gate = Gate()
    turns = take_turns(gate)
    async with asyncio.TaskGroup() as group:
        blocked = group.create_task(sent(turns, incoming("a")))
        await wait_until(lambda: gate.entered)
        task_id = next(iter(turns._begun))
        cancelled = await turns.cancel(task_id)
    assert cancelled.state == "canceled"
    assert blocked.result()["status"]["state"] == "canceled"
    with pytest.raises(RpcError) as caught:
        await turns.cancel(task_id)
    assert caught.value.code is Code.TASK_NOT_CANCELABLE


async def test_a_task_that_does_not_stop_is_not_called_canceled(take_turns, incoming, monkeypatch):
    monkeypatch.setattr("runtime.turns.CANCEL_LIMIT_S", 0.02)
    release = asyncio.Event()

    async def stubborn(turn):
        turn.begin_task("mule")
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        return "done"

    turns = take_turns(stubborn)
    task = await turns.send(incoming("a", blocking=False))
    with pytest.raises(RpcError) as caught:
        await turns.cancel(task["id"])
    assert caught.value.code is Code.TASK_NOT_CANCELABLE
    assert turns.get(task["id"]).state == "working"
    release.set()


@pytest.mark.parametrize("as_task", [True, False])
async def test_a_failing_answer_is_an_error_without_its_inner_words(take_turns, incoming, caplog, as_task):
    async def fall(turn):
        if as_task:
            turn.begin_task("t")
        raise TimeoutError("secret detail")

    reply = await sent(take_turns(fall), incoming("a"))
    if as_task:
        assert reply["status"]["state"] == "failed"
        assert "secret" not in str(reply)
    else:
        assert (reply.code, "secret" in reply.sentence) == (Code.INTERNAL_ERROR, False)
    assert "secret detail" in caplog.text


@pytest.mark.parametrize("text", [7, None, "\ud800"])
async def test_an_answer_that_is_not_text_is_a_failure(take_turns, incoming, text):
    async def wrong(turn):
        if turn.text == "task":
            turn.begin_task("t")
        return text

    turns = take_turns(wrong)
    assert (await sent(turns, incoming("a"))).code is Code.INTERNAL_ERROR
    assert (await sent(turns, incoming("task")))["status"]["state"] == "failed"


async def test_unknown_tasks_are_not_found_by_get_cancel_and_send(take_turns, incoming):
    turns = take_turns(Gate())
    for attempt in (turns.cancel("nope"), turns.send(incoming("a", task_id="nope"))):
        with pytest.raises(RpcError) as caught:
            await attempt
        assert caught.value.code is Code.TASK_NOT_FOUND
    with pytest.raises(RpcError):
        turns.get("nope")


async def test_a_known_task_takes_no_further_messages(take_turns, incoming):
    turns = take_turns(Gate())
    task = await turns.send(incoming("a", blocking=False))
    with pytest.raises(RpcError) as caught:
        await turns.send(incoming("more", task_id=task["id"]))
    assert caught.value.code is Code.UNSUPPORTED_OPERATION


async def test_one_message_too_many_is_busy_and_room_is_made_by_an_end(take_turns, incoming, wait_until):
    gate = Gate()
    turns = take_turns(gate, max_active=2)
    for text in "ab":
        await turns.send(incoming(text, blocking=False))
    with pytest.raises(Busy):
        await turns.send(incoming("c"))
    gate.open.set()
    await wait_until(lambda: turns.vitals().active_tasks == 0)
    assert (await turns.send(incoming("c")))["status"]["state"] == "completed"


async def test_a_sender_that_leaves_does_not_stop_the_work(take_turns, incoming, wait_until):
    gate = Gate()
    turns = take_turns(gate)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await turns.send(incoming("a"))
    assert turns.vitals().active_tasks == 1
    task_id = next(iter(turns._begun))
    gate.open.set()
    await wait_until(lambda: turns.get(task_id).state == "completed")


async def test_a_sender_that_leaves_early_does_not_keep_the_task_from_beginning(take_turns, incoming, wait_until):
    may_begin = asyncio.Event()

    async def answer(turn):
        await may_begin.wait()
        began.append(turn.begin_task("late"))
        return "done"

    began = []
    turns = take_turns(answer)
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.02):
            await turns.send(incoming("a"))
    may_begin.set()
    await wait_until(lambda: began and turns.get(began[0]).state == "completed")


async def test_closing_lets_work_end_within_its_time(take_turns, incoming, wait_until):
    gate = Gate()
    turns = take_turns(gate)
    async with asyncio.TaskGroup() as group:
        blocked = group.create_task(turns.send(incoming("a")))
        await wait_until(lambda: gate.entered)
        group.create_task(turns.close(drain_s=5))
        await wait_until(lambda: "closing=True" in repr(turns))
        with pytest.raises(Busy):
            await turns.send(incoming("b"))
        gate.open.set()
    assert blocked.result()["status"]["state"] == "completed"


@pytest.mark.parametrize("task", [True, False])
async def test_closing_cancels_what_outlives_its_time_and_answers_the_sender(take_turns, incoming, wait_until, task):
    gate = Gate(task=task)
    turns = take_turns(gate)
    async with asyncio.TaskGroup() as group:
        blocked = group.create_task(sent(turns, incoming("a")))
        await wait_until(lambda: gate.entered)
        await turns.close(drain_s=0)
    reply = blocked.result()
    assert reply["status"]["state"] == "canceled" if task else reply.code is Code.INTERNAL_ERROR
    assert turns.vitals().active_tasks == 0


async def test_a_task_shows_what_it_has_said_while_it_works(take_turns, incoming, wait_until):
    gate = Gate()

    async def answer(turn):
        turn.begin_task("t")
        await turn.say("half ")
        return await gate(turn)

    gate.task = False
    turns = take_turns(answer)
    task = await turns.send(incoming("a", blocking=False))
    await wait_until(lambda: gate.entered)
    running = turns.get_running(task["id"])
    assert turns.get(task["id"]).text == "half "
    gate.open.set()
    await wait_until(lambda: running.said.over)
    assert turns.get(task["id"]).text == "done a"
    with pytest.raises(RpcError) as caught:
        turns.get_running(task["id"])
    assert caught.value.code is Code.UNSUPPORTED_OPERATION
    with pytest.raises(RpcError) as caught:
        turns.get_running("nope")
    assert caught.value.code is Code.TASK_NOT_FOUND


@pytest.mark.parametrize("wrong", [7, "\ud800", "x" * (LIMIT_CHARS + 1)])
async def test_who_says_what_cannot_be_said_has_failed(take_turns, incoming, wrong):
    async def answer(turn):
        turn.begin_task("t")
        await turn.say("half")
        await turn.say(wrong)
        return "done"

    reply = await take_turns(answer).send(incoming("a"))
    assert (reply["status"]["state"], reply["artifacts"][0]["parts"][0]["text"]) == ("failed", "half")
