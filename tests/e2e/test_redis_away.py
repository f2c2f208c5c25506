"""Redis is killed while calls are in flight: none ends for it, readers are told, and silences are judged without it."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from random import Random
from typing import Any, Final

import pytest
from aiohttp import web

from gateway.services.tasks import Tasks
from tests.harness import valkey as valkeys
from tests.harness.agent import echo, silent_for
from tests.harness.valkey import Valkey
from tests.harness.witness import Manner, Pace, Witness
from tests.harness.world import ADMIN_TOKEN, World, eventually

CALLS: Final = 100
WORKSPACES: Final = 10
IDLE_S: Final = 2.0
BEAT_S: Final = 0.5
AWAY_S: Final = 6.0
LONG_AWAY_S: Final = 60.0
TOLD_S: Final = 6.0
"""A reader hears that the bus is away within this time."""
BACK_S: Final = 3.0
"""A reader is complete within this time after the return of Redis."""
STEADY: Final = Manner(paces=(Pace.PROMPT,), stays_s=(600.0, 600.0))


@pytest.fixture
async def broker() -> AsyncIterator[Valkey]:
    async with valkeys.running() as one:
        yield one


@pytest.fixture
def away_s(pytestconfig: pytest.Config) -> float:
    return LONG_AWAY_S if pytestconfig.getoption("--long") else AWAY_S


@pytest.mark.timeout(LONG_AWAY_S + 120)
async def test_calls_outlive_redis_as_long_as_another_replica_hears_of_their_agents(
    world: World, broker: Valkey, away_s: float, capsys: pytest.CaptureFixture[str]
) -> None:
    env: dict[str, Any] = {
        "GATEWAY_REDIS_URL": broker.url,
        "GATEWAY_PROBE_SECONDS": "0.2",
        "A2A_IDLE_TIMEOUT_SECONDS": str(IDLE_S),
    }
    here, there = await asyncio.gather(world.start(**env), world.start(**env))
    may_answer = asyncio.Event()

    async def in_time(request: web.Request) -> web.StreamResponse:
        await may_answer.wait()
        return await echo(request)

    patient = await world.agent(in_time)
    targets = [await world.workspace(patient.url) for _ in range(WORKSPACES)]
    silent = await world.workspace((await world.agent(silent_for(away_s * 10))).url)
    witness = Witness(
        "reader", "/events/stream", ADMIN_TOKEN, manner=STEADY, choose=lambda: ("here", here.url), random=Random(0)
    )
    async with AsyncExitStack() as stack:
        tasks = await stack.enter_async_context(Tasks())
        tasks.spawn(witness.run(), "reader")
        await eventually(lambda: witness.paces[Pace.PROMPT] == 1)
        for target in targets:
            await stack.enter_async_context(world.beating(target, BEAT_S, gateway=there))
        calls = asyncio.gather(*(world.call(target, gateway=here) for target in targets * (CALLS // WORKSPACES)))
        await eventually(lambda: patient.open_connections == CALLS)

        broker.kill()
        killed = time.monotonic()
        status, body, _ = await world.call(silent, gateway=here)
        assert (status, body["code"]) == (503, "idle_timeout"), "the database alone has said so"
        await eventually(lambda: time.monotonic() - killed > away_s, within_s=away_s + 1)
        assert patient.open_connections == CALLS, "none has ended"
        assert patient.closed_early == 0
        ((said, told_at), *more) = witness.states
        assert (said, more) == ("degraded", [])
        assert told_at - killed < TOLD_S

        await broker.start()
        back = time.monotonic()
        may_answer.set()
        assert [status for status, _, _ in await calls] == [200] * CALLS
        await eventually(lambda: len(witness.states) == 2, within_s=BACK_S)
        assert witness.states[1][0] == "ok"
        left_s = BACK_S - (time.monotonic() - back)
        await eventually(lambda: witness.types["CALL_ENDED"] == CALLS + 1, within_s=left_s)
        complete_s = time.monotonic() - back
        with capsys.disabled():
            print(
                f"\nRedis away for {away_s:.0f} s: told after {told_at - killed:.2f} s; "
                f"told of its return after {witness.states[1][1] - back:.2f} s, complete after {complete_s:.2f} s"
            )
        assert witness.paces.total() == 1, "no stream was closed"
        assert tasks.deaths == 0
