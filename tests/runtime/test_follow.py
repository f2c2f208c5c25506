"""runtime.follow: whoever reads a turn, and however slowly, ends with what the task shows."""

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from runtime.agent import Agent
from runtime.follow import Follower
from runtime.jsonrpc import RpcError
from runtime.message import Incoming
from runtime.spawn import Tasks
from runtime.store import TaskStore
from runtime.turns import Turns

PIECES = st.lists(st.text("ab ", min_size=1, max_size=3), max_size=6)


class Reader:
    """A client: it keeps the artifact as the specification says, and what it has seen."""

    def __init__(self, follower):
        self.follower = follower
        self.kinds = []
        self.artifacts = {}
        self.state = None

    def read(self):
        """Take what there is."""
        while (event := self.follower.find_next()) is not None:
            self.take(event)

    def take(self, event):
        self.kinds.append(event["kind"])
        if event["kind"] == "task":
            self.artifacts = {one["artifactId"]: text_of(one) for one in event["artifacts"]}
        if event["kind"] == "artifact-update":
            artifact = event["artifact"]
            before = self.artifacts[artifact["artifactId"]] if event["append"] else ""
            self.artifacts[artifact["artifactId"]] = before + text_of(artifact)
        if "status" in event:
            self.state = event["status"]["state"]
        assert event.get("final", False) is self.follower.over


def text_of(artifact):
    assert all(part["text"] for part in artifact["parts"]) or artifact["parts"][0]["text"] == ""
    return "".join(part["text"] for part in artifact["parts"])


def expected(task):
    return {one["artifactId"]: text_of(one) for one in task.to_json()["artifacts"]}


@given(
    before=PIECES,
    pieces=PIECES,
    answer=st.one_of(st.text("ab ", max_size=4), st.integers(0, 20)),
    reads=st.sets(st.integers(0, 6)),
    joins=st.integers(0, 6),
    lost=st.sets(st.integers(0, 6)),
    ending=st.sampled_from(["completed", "failed", "canceled"]),
)
@settings(max_examples=300, deadline=None)
def test_every_reader_ends_with_the_task(before, pieces, answer, reads, joins, lost, ending):
    """One reads from the beginning, one joins later, and one has events that may have been lost told again."""

    async def run(take_turns, incoming):
        step, stepped = asyncio.Event(), asyncio.Event()
        said = before + pieces

        async def agent(turn):
            for piece in before:
                await turn.say(piece)
            turn.begin_task("t")
            for piece in pieces:
                step.clear()
                stepped.set()
                await step.wait()
                await turn.say(piece)
            if ending == "failed":
                raise ZeroDivisionError
            if ending == "canceled":
                raise asyncio.CancelledError
            return answer if isinstance(answer, str) else "".join(said) + "b" * answer

        turns = take_turns(agent)
        turn = turns.begin(incoming("hi"))
        readers = {"first": Reader(Follower(turn)), "again": Reader(Follower(turn))}
        for number in range(len(pieces)):
            await stepped.wait()
            stepped.clear()
            if number in reads:
                for reader in readers.values():
                    reader.read()
            if number in lost:
                readers["again"].follower.begin_artifact_again()
            if number == joins:
                readers["joined"] = Reader(Follower(turns.get_running(turn.task.id), heard=len(turn.said)))
            step.set()
        await turn.get_reply()
        for reader in readers.values():
            reader.read()
        ended = turns.get(turn.task.id)
        for reader in readers.values():
            assert reader.follower.over
            assert reader.artifacts == expected(ended)
            assert reader.state == ending
            assert reader.kinds[0] == "task"
            assert reader.kinds[-1] == "status-update"
            assert reader.kinds.count("task") == reader.kinds.count("status-update") == 1

    asyncio.run(with_turns(run))


async def with_turns(run):
    """What the fixtures give, for each example anew."""

    def incoming(text):
        message = {"role": "user", "messageId": "m1", "contextId": "c1", "parts": [{"kind": "text", "text": text}]}
        return Incoming.from_params({"message": message})

    async with Tasks() as tasks:
        await run(
            lambda answer: Turns(
                Agent(name="t", description="t", answer=answer),
                spawn=tasks.spawn,
                store=TaskStore(),
                on_change=lambda: None,
            ),
            incoming,
        )


async def test_a_turn_that_stays_a_message_is_one_event_whatever_it_has_said(take_turns, incoming):
    async def answer(turn):
        await turn.say("half")
        return "whole"

    follower = Follower(take_turns(answer).begin(incoming("hi")))
    event = await follower.next()
    assert (event["kind"], event["parts"][0]["text"], follower.over) == ("message", "whole", True)
    assert await follower.next() is None


async def test_a_turn_that_fails_without_a_task_raises_its_error(take_turns, incoming):
    async def answer(turn):
        raise ZeroDivisionError

    follower = Follower(take_turns(answer).begin(incoming("hi")))
    with pytest.raises(RpcError):
        await follower.next()
    assert follower.over


async def test_who_reads_at_once_gets_each_piece_by_itself_and_the_rest_of_the_answer(take_turns, incoming):
    async def answer(turn):
        turn.begin_task("t")
        for piece in "abc":
            await turn.say(piece)
        return "abcd"

    follower, events = Follower(take_turns(answer).begin(incoming("hi", blocking=False))), []
    while not follower.over:
        events.append(await follower.next())
    updates = [
        (one["artifact"]["parts"][0]["text"], one["append"], one["lastChunk"])
        for one in events
        if one["kind"] == "artifact-update"
    ]
    assert updates == [("a", False, False), ("b", True, False), ("c", True, False), ("d", True, True)]
    assert (events[0]["status"]["state"], events[0]["artifacts"]) == ("working", [])
    assert (events[-1]["status"]["state"], events[-1]["final"]) == ("completed", True)
    assert {one["taskId"] for one in events[1:]} == {events[0]["id"]}


async def test_who_is_slow_gets_what_was_said_meanwhile_in_one_piece(take_turns, incoming):
    async def answer(turn):
        turn.begin_task("t")
        for piece in "abc":
            await turn.say(piece)
        return "abc"

    turn = take_turns(answer).begin(incoming("hi"))
    reader = Reader(Follower(turn))
    await turn.get_reply()
    reader.read()
    assert reader.kinds == ["task", "artifact-update", "status-update"]


async def test_a_while_of_silence_is_told(take_turns, incoming):
    async def answer(turn):
        await asyncio.Event().wait()

    follower = Follower(take_turns(answer).begin(incoming("hi")))
    assert await follower.next(quiet_s=0.01) is None
    assert not follower.over
