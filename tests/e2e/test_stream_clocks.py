"""What ends a stream that goes on too long, or not at all, whatever its agent says meanwhile."""

import asyncio
import time
from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import orjson

from tests.e2e.test_limits import PRICED, TEN_CENTS, budget, spent
from tests.e2e.test_streams import asked, events, open_stream
from tests.harness import faces
from tests.harness.busy import QUICK
from tests.harness.faces import CHUNKED, LAST_CHUNK, Behave, Peer, chunk, event
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, eventually, until

BEAT_S = 0.3
LATE_S = 0.25
SEEN_S = 1.0
"""How late a client sees it that shares the machine with others."""


def beating_on(pause_s: float, *, comments: bool = False, events_each: int = 0, last_after_s: float = 60.0) -> Behave:
    """An agent that says something now and then: a comment, or each so many times an event; and its last in the end."""

    async def behave(peer: Peer) -> None:
        await peer.say(CHUNKED, chunk(event(1)))
        began, said, times = time.monotonic(), 1, 0
        while not peer.gone and time.monotonic() - began < last_after_s:
            await asyncio.sleep(pause_s)
            times += 1
            if events_each and times % events_each == 0:
                said += 1
                await peer.say(chunk(event(said)))
            elif comments:
                await peer.say(chunk(b": still here\n\n"))
        await peer.say(chunk(event(said + 1, final=True)), LAST_CHUNK)

    return behave


async def commenting(peer: Peer) -> None:
    """An agent that begins its stream and never says anything."""
    await peer.say(CHUNKED)
    while not peer.gone:
        await peer.say(chunk(b": still here\n\n"))
        await asyncio.sleep(BEAT_S)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a stream ended for its caller, and after how long."""

    ending: str
    took_s: float
    events: int
    duration_s: float

    def check(self, ending: str, after_s: float) -> None:
        assert self.ending == ending
        assert self.took_s >= after_s
        assert self.took_s <= after_s + SEEN_S
        assert self.duration_s <= after_s + LATE_S


class Cast:
    """Agents, and streams of them, for as long as the test lasts."""

    def __init__(self, world: World, stack: AsyncExitStack) -> None:
        self._world = world
        self._stack = stack

    async def workspace(self, behave: Behave, **fields: Any) -> Workspace:
        agent = await self._stack.enter_async_context(faces.running(behave))
        return await self._world.workspace(agent.url, **fields)

    async def stream(
        self, target: Workspace, *, gateway: GatewayProcess | None = None, headers: Mapping[str, str] | None = None
    ) -> Ended:
        """Read a stream to its end."""
        began = time.monotonic()
        async with open_stream(self._world, target, gateway=gateway, headers=headers) as response:
            call_id = response.headers["X-A2A-Call-ID"]
            seen = events(await response.read())
        took_s = time.monotonic() - began
        path = f"/workspaces/{target.id}/a2a/calls/{call_id}"
        _, row, _ = await until(
            lambda: self._world.request("GET", path), lambda got: got[0] == 200 and got[1].get("ending")
        )
        _, last = seen[-1]
        ending = last["error"]["data"]["code"] if "error" in last else "completed"
        assert row["ending"] == ending
        count = len([said for _, said in seen if "result" in said])
        return Ended(ending=ending, took_s=took_s, events=count, duration_s=row["duration_ms"] / 1000)


async def test_comments_keep_a_stream_alive_unless_they_do_not_count(world: World):
    counting, not_counting = await asyncio.gather(
        world.start(A2A_IDLE_TIMEOUT_SECONDS="1"), world.start(A2A_IDLE_TIMEOUT_SECONDS="1", A2A_COMMENTS_COUNT="0")
    )
    async with AsyncExitStack() as stack:
        cast = Cast(world, stack)
        commenting = [await cast.workspace(beating_on(BEAT_S, comments=True, last_after_s=2.5)) for _ in range(2)]
        speaking = await cast.workspace(beating_on(BEAT_S, comments=True, events_each=2, last_after_s=2.5))
        alive, silent, spoken = await asyncio.gather(
            cast.stream(commenting[0], gateway=counting),
            cast.stream(commenting[1], gateway=not_counting),
            cast.stream(speaking, gateway=not_counting),
        )
    assert (alive.ending, spoken.ending) == ("completed", "completed")
    silent.check("idle_timeout", after_s=1.0)


async def test_any_sign_of_life_of_its_agent_on_any_replica_keeps_a_silent_stream_alive(world: World):
    here, there = await asyncio.gather(
        world.start(A2A_IDLE_TIMEOUT_SECONDS="1"), world.start(A2A_IDLE_TIMEOUT_SECONDS="1")
    )
    async with AsyncExitStack() as stack:
        cast = Cast(world, stack)
        target = await cast.workspace(beating_on(BEAT_S, last_after_s=3.0))
        async with world.beating(target, BEAT_S, gateway=there):
            got = await cast.stream(target, gateway=here)
    assert (got.ending, got.events) == ("completed", 2)


async def test_heartbeats_and_comments_do_not_keep_a_stream_alive_for_ever_that_does_not_go_on(world: World):
    await world.start(A2A_IDLE_TIMEOUT_SECONDS="1", A2A_STALL_TIMEOUT_SECONDS="2")
    async with AsyncExitStack() as stack:
        cast = Cast(world, stack)
        stalls = await cast.workspace(beating_on(BEAT_S, comments=True))
        mute = await cast.workspace(commenting)
        goes_on = await cast.workspace(beating_on(BEAT_S, comments=True, events_each=4, last_after_s=4.0))
        async with world.beating(stalls, BEAT_S), world.beating(mute, BEAT_S), world.beating(goes_on, BEAT_S):
            stalled, silent, done = await asyncio.gather(cast.stream(stalls), cast.stream(mute), cast.stream(goes_on))
    stalled.check("stalled", after_s=2.0)
    silent.check("stalled", after_s=2.0)
    assert (stalled.events, silent.events) == (1, 0)
    assert done.ending == "completed"
    assert done.took_s > 4.0


async def test_an_agent_that_lives_and_does_not_begin_to_answer_has_a_clock_of_its_own(world: World):
    await world.start(A2A_IDLE_TIMEOUT_SECONDS="1", A2A_FIRST_BYTE_SECONDS="2")
    async with AsyncExitStack() as stack:
        cast = Cast(world, stack)
        silent = await cast.workspace(Peer.stay)
        begins = await cast.workspace(beating_on(BEAT_S, comments=True, last_after_s=3.0))
        async with world.beating(silent, BEAT_S), world.beating(begins, BEAT_S):
            given_up, done = await asyncio.gather(cast.stream(silent), cast.stream(begins))
    given_up.check("first_byte_timeout", after_s=2.0)
    assert done.ending == "completed"


async def test_the_total_time_holds_for_streams_that_go_on(world: World):
    await world.start(A2A_IDLE_TIMEOUT_SECONDS="1", A2A_CEILING_SECONDS="2.5")
    async with AsyncExitStack() as stack:
        cast = Cast(world, stack)
        caller = await cast.workspace(Peer.stay)
        targets = [await cast.workspace(beating_on(BEAT_S, events_each=1, last_after_s=3.5)) for _ in range(3)]
        by_workspace = {**caller.bearer, "X-Workspace-ID": caller.id}
        hurried, capped, lifted = await asyncio.gather(
            cast.stream(targets[0], headers={"X-Timeout": "1.5"}),
            cast.stream(targets[1], headers=by_workspace),
            cast.stream(targets[2], headers={**by_workspace, "X-Timeout": "0"}),
        )
    hurried.check("deadline", after_s=1.5)
    capped.check("ceiling", after_s=2.5)
    assert capped.events > hurried.events > 2
    assert lifted.ending == "completed"


def spending(count: int, told: list[str], shut: list[bool] | None = None) -> Behave:
    """An agent that has six things to say, each for ten cents, and says so many; busy while it is `shut`."""

    async def behave(peer: Peer) -> None:
        said = orjson.loads(peer.body)
        if said["method"] == "tasks/cancel":
            told.append(said["params"]["id"])
            return
        if shut:
            await peer.say(b"HTTP/1.1 429 Busy\r\nContent-Length: 0\r\n\r\n")
            return
        await peer.say(CHUNKED)
        for number in range(1, count + 1):
            used = {"input_tokens": number * TEN_CENTS, "output_tokens": 0}
            line = orjson.loads(event(number, final=number == 6).removeprefix(b"data: "))
            line["result"]["metadata"]["usage"] = used
            await peer.say(chunk(b"data: " + orjson.dumps(line) + b"\n\n"))
        if count < 6:
            await peer.stay()
        await peer.say(LAST_CHUNK)

    return behave


async def test_a_stream_whose_agent_has_spent_its_budget_ends_in_its_middle(world: World):
    await world.start(**PRICED)
    told: list[str] = []
    async with AsyncExitStack() as stack:
        cast = Cast(world, stack)
        poor = await cast.workspace(spending(4, told), model="large", budget_limit=35)
        rich = await cast.workspace(spending(6, told), model="large", budget_limit=1000)
        cut, whole = await asyncio.gather(cast.stream(poor), cast.stream(rich))
        assert (cut.ending, whole.ending) == ("budget", "completed")
        assert (cut.events, whole.events) == (4, 6)
        await eventually(lambda: told == ["task-1"])
        await spent(world, rich, 60)
        shown = await until(lambda: budget(world, poor), lambda shown: shown["monthly_spend"])
        assert shown["monthly_spend"] >= 40
        assert shown["budget_remaining"] == 0
        async with open_stream(world, poor, body=asked()) as response:
            assert response.status == 402, "nor does the next one begin"


async def test_a_stream_that_has_waited_for_its_agent_ends_with_its_budget_as_well(world: World):
    await world.start(**PRICED, **QUICK)
    told: list[str] = []
    shut = [True]
    async with AsyncExitStack() as stack:
        cast = Cast(world, stack)
        poor = await cast.workspace(spending(4, told, shut), model="large", budget_limit=35)
        async with open_stream(world, poor, body=asked()) as response, asyncio.timeout(15):
            assert b": place 1" in await response.content.readline()
            shut.clear()
            said = events(await response.read())
        assert len(said) == 5
        assert said[-1][1]["error"]["data"]["code"] == "budget"
        await eventually(lambda: told == ["task-1"])
        path = f"/workspaces/{poor.id}/a2a/queue/{response.headers['X-A2A-Call-ID']}"
        status, row, _ = await until(lambda: world.request("GET", path), lambda got: got[1]["status"] != "dispatched")
        assert (status, row["status"], row["last_error"]) == (200, "failed", "budget")
        shown = await until(lambda: budget(world, poor), lambda shown: shown["monthly_spend"])
        assert shown["monthly_spend"] == 40, "what it has said that it used"


async def test_a_task_that_was_delegated_ends_with_its_targets_budget(world: World):
    await world.start(**PRICED, **QUICK)
    told: list[str] = []
    async with AsyncExitStack() as stack:
        cast = Cast(world, stack)
        source = await world.workspace()
        poor = await cast.workspace(spending(4, told), model="large", budget_limit=35)
        status, _, _ = await world.request(
            "POST",
            f"/workspaces/{source.id}/delegate",
            headers=source.bearer,
            json={"target_id": poor.id, "task": "spend"},
        )
        assert status == 202
        path = f"/workspaces/{source.id}/delegations"
        _, [row], _ = await until(
            lambda: world.request("GET", path, headers=source.bearer), lambda got: got[1][0]["status"] == "failed"
        )
        assert row["error"] == "budget"
        await eventually(lambda: told == ["task-1"])
        shown = await until(lambda: budget(world, poor), lambda shown: shown["monthly_spend"])
        assert shown["monthly_spend"] == 40
