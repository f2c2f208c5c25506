"""Agents of the kit that poll, behind replicas of which one is killed: every call ends once, with its own answer."""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from tests.harness import process
from tests.harness.door import Door
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, eventually

CALLS = 24
AGENTS = 3
DONE_S = 40.0


@asynccontextmanager
async def polling(target: Workspace, url: str, folder: Path) -> AsyncIterator[None]:
    """Run the demo agent for this workspace: it listens nowhere."""
    env = {
        "GATEWAY_URL": url,
        "WORKSPACE_ID": target.id,
        "WORKSPACE_TOKEN": target.token,
        "A2A_DELIVERY_MODE": "poll",
        "A2A_STATE_DIR": str(folder),
        "A2A_HEARTBEAT_SECONDS": "1",
    }
    async with process.started(env=env, module="runtime.demo") as agent:
        assert agent.url == f"{url}/workspaces/{target.id}/a2a"
        yield


def said(result: dict[str, Any]) -> str:
    """The text of a message, or of a task's artifact."""
    parts = result["parts"] if result["kind"] == "message" else result["artifacts"][0]["parts"]
    return str(parts[0]["text"])


@dataclass
class Told:
    """What callers got: an answer at once, the id of a call that waits, or nothing."""

    answered: dict[str, str] = field(default_factory=dict)
    queued: dict[str, str] = field(default_factory=dict)
    nothing: list[str] = field(default_factory=list)

    async def call(self, world: World, target: Workspace, text: str, gateway: GatewayProcess, wait_s: int) -> None:
        headers = {"Prefer": f"wait={wait_s}"} if wait_s else {}
        try:
            status, body, _ = await world.call(target, text, gateway=gateway, headers=headers)
        except aiohttp.ClientError:
            self.nothing.append(text)
            return
        assert status == 200, body
        if "result" in body:
            assert body["id"] == "1"
            self.answered[text] = said(body["result"])
        else:
            self.queued[text] = body["id"]


@pytest.mark.timeout(180)
async def test_every_call_ends_once_with_its_own_answer_though_a_replica_is_killed(world: World, tmp_path: Path):
    env = {"GATEWAY_INBOX_LEASE_SECONDS": "2"}
    killed, staying = await world.start(**env), await world.start(**env)
    told = Told()
    targets = [await world.workspace(delivery_mode="poll") for _ in range(AGENTS)]

    async def calls(first: int) -> None:
        """Half of the callers stay for the answer, half of them at either replica."""
        async with asyncio.timeout(DONE_S), asyncio.TaskGroup() as group:
            for number in range(first, first + CALLS):
                gateway = (killed, staying)[number % 2] if killed.exit_code is None else staying
                text = f"slow {0.2 + number / 1000:g}" if number % 5 == 0 else f"hello {number}"
                where = targets[number % AGENTS]
                group.create_task(told.call(world, where, text, gateway, 30 if number % 4 < 2 else 0))

    async with AsyncExitStack() as stack:
        door = await stack.enter_async_context(Door(lambda: [killed, staying]))
        for number, target in enumerate(targets):
            await stack.enter_async_context(polling(target, door.url, tmp_path / str(number)))
        before = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            group.create_task(calls(0))
            await eventually(lambda: len(told.answered) + len(told.queued) >= CALLS // 3, DONE_S)
            killed.send(signal.SIGKILL)
            await killed.wait()
            world.gateways.remove(killed)
        await calls(CALLS)
        rows: list[tuple[Any, ...]] = []
        while not rows or any(state != "completed" for _, state, *_ in rows):
            assert asyncio.get_running_loop().time() - before < DONE_S, rows
            rows = await world.sql("select id::text, state, ending, attempts, body, answer from calls")
    kept = {id_: orjson.loads(bytes(body))["params"]["message"]["parts"][0]["text"] for id_, *_, body, _ in rows}
    assert len(set(kept.values())) == len(kept)
    for id_, _, ending, _, _, answer in rows:
        assert ending == "completed"
        assert said(orjson.loads(bytes(answer))["result"]) == f"echo: {kept[id_]}"
    assert told.answered == {text: f"echo: {text}" for text in told.answered}
    assert told.queued.items() <= {text: id_ for id_, text in kept.items()}.items()
    assert set(told.answered) | set(told.queued) <= set(kept.values())
    assert told.answered
    assert told.queued
    assert len(told.answered) + len(told.queued) + len(told.nothing) == 2 * CALLS
    ends = await world.sql("select call_id::text from activity where activity_type = 'a2a_receive' and status = 'ok'")
    assert sorted(id_ for (id_,) in ends) == sorted(kept)
