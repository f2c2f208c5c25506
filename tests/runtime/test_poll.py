"""runtime.poll: messages are fetched, worked on once, and answered until the answer is taken."""

import asyncio
import logging

import pytest

from runtime import poll as polling
from runtime.client import connected
from runtime.poll import Poll
from runtime.spawn import Tasks

ID = "3f2b9c1e-0a4d-4b55-8a2f-1f1f1f1f1f1f"


def message(text="hi", *, id_="call-1", method="message/send", **params):
    said = {"role": "user", "messageId": "m", "contextId": "c", "parts": [{"kind": "text", "text": text}]}
    request = {"jsonrpc": "2.0", "id": 7, "method": method, "params": {"message": said, **params}}
    return {"id": id_, "request": request}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch):
    monkeypatch.setattr(polling, "FIRST_PAUSE_S", 0.01)
    monkeypatch.setattr(polling, "MOST_PAUSE_S", 0.02)


@pytest.fixture
async def start(gateway, take_turns):
    """Let an agent that answers like this fetch its messages."""
    async with connected(gateway.url) as client, Tasks() as tasks:

        def start(answer, *, most=10):
            turns = take_turns(answer)
            poll = Poll(
                gateway=client,
                workspace_id=ID,
                token=lambda: "t",
                turns=turns,
                most=most,
                spawn=tasks.spawn,
                wait_s=2.0,
            )
            registered = asyncio.Event()
            registered.set()
            tasks.spawn(poll.run(after=registered), name="poll")
            return poll, turns

        yield start


async def echo(turn):
    return f"echo: {turn.text}"


def replies(gateway):
    return [(call, body["body"]) for call, verb, body in gateway.settled if verb == "reply"]


@pytest.mark.parametrize("method", ["message/send", "message/stream"])
async def test_a_message_is_answered(start, gateway, wait_until, method):
    gateway.inbox.append(message("hello", method=method))
    start(echo)
    await wait_until(lambda: replies(gateway))
    [(call, body)] = replies(gateway)
    assert (call, body["jsonrpc"], body["result"]["parts"][0]["text"]) == ("call-1", "2.0", "echo: hello")
    path, query, token = gateway.takes[0]
    assert (path, query, token) == (f"/workspaces/{ID}/inbox", {"wait": "2", "limit": "10"}, "Bearer t")


async def test_nothing_is_fetched_before_the_gateway_knows_us(gateway, take_turns, tasks):
    async with connected(gateway.url) as client:
        poll = Poll(
            gateway=client, workspace_id=ID, token=lambda: "t", turns=take_turns(echo), most=1, spawn=tasks.spawn
        )
        registered = asyncio.Event()
        run = tasks.spawn(poll.run(after=registered), name="poll")
        await asyncio.sleep(0)
        assert gateway.takes == []
        run.cancel()


async def test_who_does_not_want_to_wait_gets_the_end_too(start, gateway, wait_until):
    async def task(turn):
        turn.begin_task("work")
        return "done"

    gateway.inbox.append(message(configuration={"blocking": False}))
    start(task)
    await wait_until(lambda: replies(gateway))
    assert replies(gateway)[0][1]["result"]["status"]["state"] == "completed"


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (message(method="SendMessage"), -32601),
        ({"id": "call-1", "request": {"jsonrpc": "2.0", "method": "message/send"}}, -32602),
        ({"id": "call-1", "request": {"jsonrpc": "1.0", "method": "message/send"}}, -32600),
    ],
)
async def test_what_the_agent_cannot_do_is_answered_with_the_error(start, gateway, wait_until, wrong, code):
    gateway.inbox.append(wrong)
    start(echo)
    await wait_until(lambda: replies(gateway))
    assert replies(gateway)[0][1]["error"]["code"] == code


async def test_the_agents_own_failure_is_an_answer(start, gateway, wait_until):
    async def fail(turn):
        raise ZeroDivisionError("secret")

    gateway.inbox.append(message())
    start(fail)
    await wait_until(lambda: replies(gateway))
    assert replies(gateway)[0][1]["error"] == {"code": -32603, "message": "the agent failed to answer"}


async def test_a_message_that_comes_again_is_worked_on_once_and_its_lease_is_kept(start, gateway, wait_until):
    gateway.lease_s = 0.06
    turns_taken, may_end = [], asyncio.Event()

    async def slow(turn):
        turns_taken.append(turn.text)
        await may_end.wait()
        return "done"

    gateway.inbox.append(message())
    start(slow)
    await wait_until(lambda: turns_taken)
    gateway.inbox.append(message())
    await wait_until(lambda: not gateway.inbox)
    await wait_until(lambda: sum(verb == "events" for _, verb, _ in gateway.settled) >= 3)
    may_end.set()
    await wait_until(lambda: replies(gateway))
    kept = len(gateway.settled)
    gateway.inbox.append(message("next", id_="call-2"))
    await wait_until(lambda: len(replies(gateway)) == 2)
    assert turns_taken == ["hi", "next"]
    assert all(call == "call-2" for call, _, _ in gateway.settled[kept:])


async def test_an_answer_is_brought_until_it_is_taken(start, gateway, wait_until):
    gateway.on_settle["reply"] = [(503, {"error": "later"}), (401, {"error": "who?"}), (500, {})]
    gateway.inbox.append(message())
    start(echo)
    await wait_until(lambda: len(replies(gateway)) == 4)
    assert len({str(body) for _, body in replies(gateway)}) == 1


async def test_an_answer_that_nobody_wants_is_dropped_and_logged(start, gateway, wait_until, caplog):
    caplog.set_level(logging.WARNING)
    gateway.on_settle["reply"] = [(409, {"error": "the call has ended"})]
    gateway.inbox += [message(), message(id_="call-2")]
    poll, _ = start(echo)
    await wait_until(lambda: len(replies(gateway)) == 2 and "working=0" in repr(poll))
    assert "answer_dropped message=call-1" in caplog.text


async def test_an_answer_that_is_too_large_becomes_an_error(start, gateway, wait_until):
    async def long(turn):
        return "x" * 10_000

    gateway.on_settle["reply"] = [(413, {"error": "too large"})]
    gateway.inbox.append(message())
    start(long)
    await wait_until(lambda: len(replies(gateway)) == 2)
    assert replies(gateway)[1][1]["error"]["message"] == "the answer is too large"


async def test_no_more_is_fetched_than_the_agent_works_on_at_once(start, gateway, wait_until):
    may_end = asyncio.Event()
    running, most = 0, 0

    async def slow(turn):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await may_end.wait()
        running -= 1
        return "done"

    gateway.inbox += [message(id_=f"call-{number}") for number in range(7)]
    start(slow, most=2)
    await wait_until(lambda: running == 2)
    assert len(gateway.inbox) == 5
    may_end.set()
    await wait_until(lambda: len(replies(gateway)) == 7)
    assert most == 2


@pytest.mark.parametrize("trouble", [(503, {"error": "ill"}, {}), (401, {"error": "who?"}, {}), (200, {"x": 1}, {})])
async def test_trouble_is_told_once_and_outlived(start, gateway, wait_until, caplog, trouble):
    caplog.set_level(logging.WARNING)
    gateway.on_take = trouble
    start(echo)
    await wait_until(lambda: len(gateway.takes) >= 3)
    assert caplog.text.count("inbox_trouble") == 1
    gateway.on_take = None
    gateway.inbox.append(message())
    await wait_until(lambda: replies(gateway))


@pytest.mark.parametrize("method", ["message/send", "message/stream"])
@pytest.mark.parametrize("as_task", [False, True])
async def test_what_is_cut_off_is_not_answered(start, gateway, wait_until, as_task, method):
    begun = asyncio.Event()

    async def endless(turn):
        if as_task:
            turn.begin_task("endless")
        begun.set()
        await asyncio.Event().wait()
        return ""

    gateway.inbox.append(message(method=method))
    poll, turns = start(endless)
    await begun.wait()
    await turns.close(drain_s=0)
    await poll.close()
    assert "working=0" in repr(poll)
    assert replies(gateway) == []


def told(gateway, call="call-1"):
    return [body["event"] for one, verb, body in gateway.settled if verb == "events" and one == call]


async def test_a_caller_that_streams_is_told_what_is_said_and_the_answer_ends_it(start, gateway, wait_until):
    async def answer(turn):
        turn.begin_task("count")
        await turn.say("a")
        await wait_until(lambda: len(told(gateway)) == 2)
        await turn.say("b")
        return "abc"

    gateway.inbox.append(message(method="message/stream"))
    start(answer)
    await wait_until(lambda: replies(gateway))
    begun, *updates = told(gateway)
    assert (begun["kind"], begun["status"]["state"], begun["final"]) == ("status-update", "working", False)
    texts = [(one["artifact"]["parts"][0]["text"], one["append"]) for one in updates]
    assert texts == [("a", False), ("b", True), ("c", True)]
    [(_, body)] = replies(gateway)
    ended = body["result"]
    assert (ended["kind"], ended["status"]["state"], ended["final"]) == ("status-update", "completed", True)
    assert ended["status"]["message"]["parts"][0]["text"] == "abc"
    assert {one["taskId"] for one in told(gateway)} == {ended["taskId"]}


async def test_a_caller_that_does_not_stream_is_told_nothing_meanwhile(start, gateway, wait_until):
    async def answer(turn):
        turn.begin_task("count")
        await turn.say("a")
        return "abc"

    gateway.inbox.append(message())
    start(answer)
    await wait_until(lambda: replies(gateway))
    assert replies(gateway)[0][1]["result"]["artifacts"][0]["parts"][0]["text"] == "abc"
    assert told(gateway) == []


async def test_a_lease_is_kept_without_a_word_to_a_caller_that_streams(start, gateway, wait_until):
    gateway.lease_s = 0.03
    may_end = asyncio.Event()

    async def slow(turn):
        await may_end.wait()
        return "done"

    gateway.inbox.append(message(method="message/stream"))
    start(slow)
    await wait_until(lambda: len(told(gateway)) >= 4)
    assert all(event == {} for event in told(gateway))
    may_end.set()
    await wait_until(lambda: replies(gateway))


async def test_a_failure_ends_the_stream_with_its_status(start, gateway, wait_until):
    async def fail(turn):
        turn.begin_task("t")
        await turn.say("half")
        raise ZeroDivisionError

    gateway.inbox.append(message(method="message/stream"))
    start(fail)
    await wait_until(lambda: replies(gateway))
    ended = replies(gateway)[0][1]["result"]
    assert (ended["status"]["state"], ended["final"]) == ("failed", True)
    assert told(gateway)[-1]["artifact"]["parts"][0]["text"] == "half"
