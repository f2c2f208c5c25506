"""A gateway is killed in the middle of calls: within moments each has ended for everybody else."""

import asyncio
import os
import signal
from contextlib import suppress
from typing import Any, Final

import aiohttp

from tests.harness import valkey as valkeys
from tests.harness.agent import silent_for
from tests.harness.world import World, eventually, until

PROBE_S: Final = 0.2
CALLS: Final = 5
ROWS: Final = "select activity_type, source_id::text, error_detail, status from activity order by activity_type"


async def test_the_calls_of_a_gateway_that_was_killed_end_as_interrupted_and_hold_no_budget(world: World) -> None:
    env: dict[str, Any] = {"GATEWAY_PROBE_SECONDS": str(PROBE_S), "GATEWAY_CALL_RESERVE_CENTS": "9"}
    doomed, left = await asyncio.gather(world.start(**env), world.start(**env))
    agent = await world.agent(silent_for(60))
    target = await world.workspace(agent.url)
    priced = await world.workspace(agent.url, budget_limit=10)
    broken = 0

    async def call(one, headers) -> None:
        nonlocal broken
        with suppress(aiohttp.ClientError):
            await world.call(one, gateway=doomed, headers=headers)
            raise AssertionError("it was answered")
        broken += 1

    async with asyncio.TaskGroup() as callers, world.reading(target, gateway=left) as reader:
        for _ in range(CALLS):
            callers.create_task(call(target, target.bearer))
        callers.create_task(call(priced, {}))
        await eventually(lambda: agent.open_connections == CALLS + 1)
        os.kill(doomed.pid, signal.SIGKILL)
        await eventually(lambda: broken == CALLS + 1)
        await eventually(lambda: len(reader.of("CALL_ENDED")) == CALLS, within_s=20)
    assert {event["ending"] for event in reader.of("CALL_ENDED")} == {"interrupted"}
    assert len({event["call_id"] for event in reader.of("CALL_ENDED")}) == CALLS
    rows = await until(lambda: world.sql(ROWS), lambda rows: len(rows) == CALLS + 1)
    assert set(rows) == {
        ("a2a_receive", target.id, "interrupted", "error"),
        ("a2a_receive", None, "interrupted", "error"),
    }
    _, text, _ = await world.request("GET", "/metrics", gateway=left)
    assert f"gateway_calls_interrupted_total {CALLS + 1}.0" in text.decode()
    status, body, _ = await world.call(priced, gateway=left, headers={"X-Timeout": "0.5"})
    assert (status, body["code"]) == (504, "deadline"), "its budget is free again"


async def test_a_gateway_that_is_alive_keeps_its_calls_however_long_redis_is_away(world: World) -> None:
    async with valkeys.running() as broker:
        env = {"GATEWAY_PROBE_SECONDS": str(PROBE_S), "GATEWAY_REDIS_URL": broker.url}
        one, _ = await asyncio.gather(world.start(**env), world.start(**env))
        may_answer = asyncio.Event()

        async def in_time(request):
            await may_answer.wait()
            return await silent_for(0)(request)

        agent = await world.agent(in_time)
        target = await world.workspace(agent.url)
        async with asyncio.TaskGroup() as callers:
            answer = callers.create_task(world.call(target, gateway=one))
            await eventually(lambda: agent.open_connections == 1)
            broker.stall()
            await asyncio.sleep(PROBE_S * 2.5 * 4)  # all leases run out meanwhile: that is what is tried
            broker.go_on()
            await asyncio.sleep(PROBE_S * 2.5 * 4)  # and who wakes first looks for the dead
            may_answer.set()
        assert (await answer)[0] == 200
        rows = await until(lambda: world.sql(ROWS), lambda rows: len(rows) == 1)
        assert rows[0][2:] == (None, "ok")
