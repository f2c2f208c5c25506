"""A call lives exactly as long as its agent shows signs of life, as its caller sees it."""

import asyncio
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from tests.harness.agent import echo, result, silent_for
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, eventually

IDLE = {"A2A_IDLE_TIMEOUT_SECONDS": "1"}
LATE_MS = 200
"""How late a clock may be."""
AGENT_S = 5.0
"""How long the agent takes that is too slow without signs of life."""
BEAT_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Ended:
    """How a call ended, as its caller and as the readers of events saw it."""

    status: int
    body: Any
    headers: Mapping[str, str]
    took_s: float
    call_id: str

    @property
    def code(self) -> str | None:
        return self.body.get("code")


async def timed_call(
    world: World, to: Workspace, *, gateway: GatewayProcess | None = None, headers: Mapping[str, str] | None = None
) -> Ended:
    started = time.monotonic()
    status, body, answered = await world.call(to, gateway=gateway, headers=headers)
    took_s = time.monotonic() - started
    return Ended(status=status, body=body, headers=answered, took_s=took_s, call_id=answered["X-A2A-Call-ID"])


async def ended_after_ms(world: World, target: Workspace) -> dict[str, tuple[str, int]]:
    """Return of each call that has ended its ending, and how long it took as the gateway says."""
    async with world.reading(target, since="0-0") as reader:
        await eventually(lambda: reader.of("CALL_ENDED"))
        assert reader.gaps == []
        return {end["call_id"]: (end["ending"], end["duration_ms"]) for end in reader.of("CALL_ENDED")}


async def check_ended(world: World, target: Workspace, call: Ended, ending: str, after_s: float) -> None:
    """Not a moment too early, and hardly too late."""
    assert call.code == ending, call
    assert call.took_s >= after_s
    told, duration_ms = (await ended_after_ms(world, target))[call.call_id]
    assert told == ending
    assert duration_ms <= after_s * 1000 + LATE_MS


async def dripping(request: web.Request) -> web.StreamResponse:
    """The answer in pieces, none of which is late though the whole is."""
    pieces = web.json_response(result(await request.read())).body
    assert isinstance(pieces, bytes)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for start in range(0, len(pieces), len(pieces) // 6):
        await response.write(pieces[start : start + len(pieces) // 6])
        await asyncio.sleep(BEAT_S)
    return response


async def test_a_silent_agent_is_given_up_when_its_idle_time_is_over(world: World) -> None:
    await world.start(**IDLE)
    agent = await world.agent(silent_for(AGENT_S))
    target = await world.workspace(agent.url)

    async def started_after(seconds: float) -> Ended:
        await asyncio.sleep(seconds)
        return await timed_call(world, target)

    async with world.reading(target):  # somebody looks on; what the gateway itself tells is no sign of life
        calls = await asyncio.gather(*(started_after(0.3 * number) for number in range(10)))
    for call in calls:
        await check_ended(world, target, call, "idle_timeout", after_s=1.0)
        assert (call.status, call.headers["Retry-After"]) == (503, "30")
        assert (call.body["busy"], call.body["retry_after"], call.body["outcome"]) == (True, 30, "unknown")
        assert call.body["delivery_confirmed"] is None
    await eventually(lambda: agent.closed_early == 10)
    assert agent.open_connections == 0


async def test_a_sign_of_life_keeps_a_call_going_wherever_it_is_heard(world: World) -> None:
    here, there, deaf = await asyncio.gather(
        world.start(**IDLE),
        world.start(**IDLE),
        world.start(**IDLE, GATEWAY_REDIS_PREFIX=f"{world.env['GATEWAY_REDIS_PREFIX']}:elsewhere"),
    )
    agent = await world.agent(silent_for(AGENT_S))

    async def beaten_at(gateway: GatewayProcess) -> tuple[Ended, int]:
        target = await world.workspace(agent.url)
        async with world.reading(target, gateway=here) as reader, world.beating(target, BEAT_S, gateway=gateway):
            call = await timed_call(world, target, gateway=here)
            return call, len(reader.of("WORKSPACE_HEARTBEAT"))

    async def answered_in_pieces() -> Ended:
        slow = await world.workspace((await world.agent(dripping)).url)
        return await timed_call(world, slow, gateway=here)

    (first, _), (second, heard), (third, unheard), pieces = await asyncio.gather(
        beaten_at(here), beaten_at(there), beaten_at(deaf), answered_in_pieces()
    )
    assert [call.status for call in (first, second, third, pieces)] == [200] * 4
    assert min(first.took_s, second.took_s, third.took_s) >= AGENT_S
    assert pieces.took_s >= 6 * BEAT_S
    assert heard > 0, "the bus carries heartbeats from one replica to the other"
    assert unheard == 0, "cut off from the bus, so it was the database that knew"


async def test_a_heartbeat_of_a_wedged_runtime_keeps_nothing_alive(world: World) -> None:
    await world.start(**IDLE)
    agent = await world.agent(silent_for(AGENT_S))
    target = await world.workspace(agent.url)
    wedged = {"runtime_state": "wedged"}
    async with (
        world.beating(target, 0.2, **wedged, current_task="one thing"),
        world.beating(target, 0.2, **wedged, current_task="another"),  # so the task changes with every beat
    ):
        call = await timed_call(world, target)
    await check_ended(world, target, call, "idle_timeout", after_s=1.0)


async def test_the_total_time_holds_though_heartbeats_go_on(world: World) -> None:
    await world.start(**IDLE, A2A_CEILING_SECONDS="3")
    agent = await world.agent(silent_for(AGENT_S))
    caller = await world.workspace(agent.url)
    targets = [await world.workspace(agent.url) for _ in range(3)]
    by_workspace = caller.bearer | {"X-Workspace-ID": caller.id}

    async def call(target: Workspace, headers: Mapping[str, str]) -> Ended:
        async with world.beating(target, BEAT_S):
            return await timed_call(world, target, headers=headers)

    hurried, capped, lifted = await asyncio.gather(
        call(targets[0], {"X-Timeout": "2"}),
        call(targets[1], by_workspace),
        call(targets[2], by_workspace | {"X-Timeout": "0"}),
    )
    assert (hurried.status, capped.status, lifted.status) == (504, 504, 200)
    await check_ended(world, targets[0], hurried, "deadline", after_s=2.0)
    await check_ended(world, targets[1], capped, "ceiling", after_s=3.0)
    assert (hurried.body["outcome"], capped.body["outcome"]) == ("unknown", "unknown")
    await eventually(lambda: agent.closed_early == 2)


async def test_a_runtime_may_choose_its_own_idle_time_on_any_replica(world: World) -> None:
    here, there = await asyncio.gather(world.start(), world.start())
    agent = await world.agent(echo)
    target = await world.workspace(agent.url)
    assert (await timed_call(world, target, gateway=here)).status == 200  # from here on this replica knows it
    agent.behave = silent_for(AGENT_S)

    assert await world.beat(target, gateway=there, runtime_metadata={"idle_timeout_seconds": 1}) == 200
    await becomes(world, target, here, "idle_timeout")
    assert await world.beat(target, gateway=there, runtime_metadata={}) == 200
    await becomes(world, target, here, "deadline")


async def becomes(world: World, target: Workspace, gateway: GatewayProcess, code: str) -> None:
    """Call until calls end like this: a replica learns of a change within a second, not at once."""
    endings = []
    for _ in range(5):
        endings.append((await timed_call(world, target, gateway=gateway, headers={"X-Timeout": "1.5"})).code)
        if endings[-1] == code:
            return
    raise AssertionError(endings)


async def test_a_silence_that_the_database_cannot_confirm_ends_nothing_until_it_has_lasted_too_long(
    world: World,
) -> None:
    await world.start(**IDLE, A2A_BUS_LOST_SECONDS="1")
    agent = await world.agent(silent_for(AGENT_S))
    silent, beaten = await world.workspace(agent.url), await world.workspace(agent.url)

    async def take_the_database_away() -> None:
        await eventually(lambda: len(agent.bodies) == 2)
        await world.sql("ALTER TABLE liveness RENAME TO liveness_away")

    async with world.beating(beaten, BEAT_S):
        given_up, answered, _ = await asyncio.gather(
            timed_call(world, silent), timed_call(world, beaten), take_the_database_away()
        )
    assert (given_up.status, given_up.code) == (503, "bus_lost")
    assert given_up.took_s >= 2.0
    assert answered.status == 200
