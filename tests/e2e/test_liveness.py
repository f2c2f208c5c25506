"""How the loops of a process stand, as its operator sees it, while it works and while its datastores are away."""

import asyncio
import re
from typing import Any

import pytest

from tests.harness import valkey as valkeys
from tests.harness.world import World, until

LOOPS = {
    *("gate:connect", "gate:renew", "bus:publish", "bus:probe", "bus:listen", "bus:watch", "bus:serve"),
    *("changes:read", "heartbeats:write", "activity:write", "waiting:write", "instances:renew", "tokens:used"),
    *("streams:journal", "streams:renew", "feeds:keep"),
    *("streams:feed", "streams:sweep", "streams:visible", "queue:send", "queue:renew", "delegations:send"),
    *("delegations:renew", "calls:reap", "calls:recall", "calls:expire", "calls:forget"),
}


async def look(world: World) -> dict[str, Any]:
    status, said, _ = await world.request("GET", "/admin/liveness")
    assert (status, said["tasks_died"]) == (200, 0)
    return {one["name"]: one for one in said["loops"]}


async def test_the_operator_sees_every_loop_turn(world: World) -> None:
    await world.start()
    await world.call(await world.workspace((await world.agent()).url))
    loops = await look(world)
    assert set(loops) == LOOPS
    assert {one["state"] for one in loops.values()} <= {"running", "idle"}
    assert {(one["restarts"], one["last_error"]) for one in loops.values()} == {(0, None)}
    assert all(one["seconds_since_turn"] < one["hangs_after_seconds"] for one in loops.values())
    status, said, _ = await world.request("GET", "/readyz", headers={"Authorization": None})
    assert (status, said["loops"]) == (200, "running")
    told = [one["does"] for one in loops.values()]
    assert all(re.fullmatch(r"[A-Z][^\n]{10,100}\.", one) for one in told), told
    assert len(set(told)) == len(told), "no two do the same"
    seen: list[float] = []

    def turned(now: dict[str, Any]) -> bool:
        seen.append(now["bus:probe"]["seconds_since_turn"])
        return seen[-1] < max(seen)

    await until(lambda: look(world), turned)


async def test_nobody_else_sees_them(world: World) -> None:
    await world.start()
    one = await world.workspace()
    for headers, refused in ((one.bearer, 403), ({"Authorization": None}, 401)):
        status, said, _ = await world.request("GET", "/admin/liveness", headers=headers)
        assert (status, "loops" in said) == (refused, False)


@pytest.mark.parametrize("away_s", [3.0])
async def test_no_loop_ends_because_redis_is_away(world: World, away_s: float) -> None:
    async with valkeys.running() as broker:
        world.env["GATEWAY_REDIS_URL"] = broker.url
        await world.start()
        broker.kill()
        ends = asyncio.get_running_loop().time() + away_s
        while asyncio.get_running_loop().time() < ends:
            loops = await look(world)
            assert {one["state"] for one in loops.values()} <= {"running", "idle"}
            assert {one["restarts"] for one in loops.values()} == {0}
            await asyncio.sleep(0.2)
