"""An agent whose own loop is stuck beats on, and says so: nothing takes that for a sign of life."""

import asyncio
import time
from pathlib import Path
from typing import Any

from tests.harness import process
from tests.harness.world import World, until

IDLE_S = 2.0
BEAT_S = 0.1
WEDGED_S = 0.5
STUCK_S = 30.0


async def test_a_call_to_an_agent_that_is_stuck_ends_for_silence_though_it_beats_on(
    world: World, tmp_path: Path
) -> None:
    gateway = await world.start(A2A_IDLE_TIMEOUT_SECONDS=str(IDLE_S))
    target = await world.workspace()
    env = {
        "GATEWAY_URL": gateway.url,
        "WORKSPACE_ID": target.id,
        "WORKSPACE_TOKEN": target.token,
        "A2A_STATE_DIR": str(tmp_path),
        "A2A_HEARTBEAT_SECONDS": str(BEAT_S),
        "A2A_WEDGED_SECONDS": str(WEDGED_S),
    }

    async def stands() -> Any:
        return (await world.request("GET", f"/workspaces/{target.id}"))[1]

    async with process.started(env=env, module="tests.harness.stuck"), world.reading(target) as reader:
        status, said, _ = await world.call(target, "0")
        assert (status, said["result"]["parts"][0]["text"]) == (200, "awake")
        assert (await stands())["status"] == "online"
        began = time.monotonic()
        async with asyncio.TaskGroup() as group:
            calling = group.create_task(world.call(target, str(STUCK_S)))
            shown = await until(stands, lambda one: one["runtime_state"] == "wedged")
            assert (shown["status"], shown["active_tasks"]) == ("degraded", 1)
            assert not calling.done()
        status, said, _ = calling.result()
        took_s = time.monotonic() - began
        assert (status, said["code"], said["outcome"]) == (503, "idle_timeout", "unknown")
        assert IDLE_S <= took_s < STUCK_S / 2, "counted from its last beat that was none of a stuck loop"
        heard = len(reader.of("WORKSPACE_HEARTBEAT"))
        await until(stands, lambda one: len(reader.of("WORKSPACE_HEARTBEAT")) >= heard + 3)
        assert (await stands())["runtime_state"] == "wedged", "it beats on"
        assert "WORKSPACE_DEGRADED" in {event["type"] for event in reader.events}


async def test_one_that_is_free_again_is_online_again(world: World, tmp_path: Path) -> None:
    gateway = await world.start(A2A_IDLE_TIMEOUT_SECONDS="20")
    target = await world.workspace()
    env = {
        "GATEWAY_URL": gateway.url,
        "WORKSPACE_ID": target.id,
        "WORKSPACE_TOKEN": target.token,
        "A2A_STATE_DIR": str(tmp_path),
        "A2A_HEARTBEAT_SECONDS": str(BEAT_S),
        "A2A_WEDGED_SECONDS": str(WEDGED_S),
    }

    async def stands() -> Any:
        _, said, _ = await world.request("GET", f"/workspaces/{target.id}")
        return said["status"], said["runtime_state"]

    async with process.started(env=env, module="tests.harness.stuck"):
        async with asyncio.TaskGroup() as group:
            calling = group.create_task(world.call(target, "3"))
            await until(stands, lambda one: one == ("degraded", "wedged"))
        assert calling.result()[0] == 200
        await until(stands, lambda one: one == ("online", None))
