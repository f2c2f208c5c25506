"""SIGTERM: those who can finish do, the rest are told, and everything is written down."""

import asyncio
import signal
import time
from collections import Counter
from contextlib import closing
from typing import Any

import aiohttp
import psycopg2
from aiohttp import web

from tests.harness.agent import ScriptedAgent, result, silent_for
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, eventually

LONG_S = 60.0


async def draining(world: World) -> None:
    """Wait until the gateway says that it takes no more calls."""
    async with asyncio.timeout(5):
        while True:
            status, _, _ = await world.request("GET", "/readyz")
            if status == 503:
                return
            await asyncio.sleep(0.01)


async def waiting_for_a_lock(world: World) -> None:
    """Wait until somebody waits for a lock in the database."""
    async with asyncio.timeout(5):
        while True:
            query = (
                "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
            )
            ((waiting,),) = await world.sql(query)
            if waiting:
                return
            await asyncio.sleep(0.01)


async def written(world: World, target: Workspace) -> Counter[str]:
    """Return how many calls the database knows, by ending."""
    rows = await world.sql(
        "SELECT coalesce(error_detail, 'completed'), count(*) FROM activity"
        " WHERE workspace_id = %s AND activity_type = 'a2a_receive' GROUP BY 1",
        target.id,
    )
    return Counter(dict(rows))


async def in_flight(agent: ScriptedAgent, calls: int) -> None:
    await eventually(lambda: agent.open_connections == calls)


async def stop_after(world: World, gateway: GatewayProcess, agent: ScriptedAgent, calls: int) -> None:
    await in_flight(agent, calls)
    gateway.send(signal.SIGTERM)
    await draining(world)


async def test_calls_that_end_in_time_are_answered_and_the_others_told(world: World) -> None:
    gateway = await world.start(GATEWAY_DRAIN_SECONDS="1.5")
    time_to_answer = asyncio.Event()

    async def when_it_is_time(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        await time_to_answer.wait()
        return web.json_response(result(body))

    prompt, stuck = await world.agent(when_it_is_time), await world.agent(silent_for(LONG_S))
    quick, slow = await world.workspace(prompt.url), await world.workspace(stuck.url)
    late: list[Any] = []

    async def stop() -> None:
        await in_flight(prompt, 5)
        await stop_after(world, gateway, stuck, 5)
        late.append(await world.call(quick, gateway=gateway))
        time_to_answer.set()

    async with world.reading(slow) as reader:
        calls = [world.call(quick) for _ in range(5)] + [world.call(slow) for _ in range(5)]
        *answers, _ = await asyncio.gather(*calls, stop())
        await eventually(lambda: reader.ended)

    assert [status for status, _, _ in answers] == [200] * 5 + [503] * 5
    for _, body, headers in answers[5:]:
        assert (body["code"], body["outcome"], headers["Retry-After"]) == ("gateway_shutdown", "unknown", "5")
    ((status, body, headers),) = late
    assert (status, body["code"], headers["Retry-After"]) == (503, "draining", "5")
    assert await gateway.wait() == 0
    assert await written(world, quick) == {"completed": 5}
    assert await written(world, slow) == {"gateway_shutdown": 5}
    await eventually(lambda: stuck.closed_early == 5)


async def test_what_was_answered_just_before_the_end_is_in_the_history(world: World) -> None:
    gateway = await world.start(GATEWAY_WRITE_EVERY_SECONDS="60", GATEWAY_DATABASE_POOL="3")
    target = await world.workspace((await world.agent()).url)
    answers = await asyncio.gather(*(world.call(target) for _ in range(300)))
    assert {status for status, _, _ in answers} == {200}
    assert await written(world, target) == {}, "nothing of it was written yet"
    assert await gateway.stop() == 0
    assert await written(world, target) == {"completed": 300}
    ((calls,),) = await world.sql("SELECT calls FROM usage WHERE workspace_id = %s", target.id)
    assert calls == 300

    await world.start()
    async with world.reading(target, gateway=world.gateways[1], since="0-0") as reader:
        await eventually(lambda: len(reader.of("CALL_ENDED")) == 300)
        assert reader.gaps == []


async def test_every_call_that_reached_an_agent_is_answered_and_written_down_however_it_meets_the_end(
    world: World,
) -> None:
    gateway = await world.start(GATEWAY_DRAIN_SECONDS="5")
    agent = await world.agent(silent_for(0.2))
    target = await world.workspace(agent.url)
    answered = 0

    async def keep_calling() -> None:
        nonlocal answered
        while True:
            try:
                status, body, _ = await world.call(target)
            except aiohttp.ClientError:
                return  # it came when the door was closed
            if status != 200:
                assert body["code"] == "draining"
                return
            answered += 1

    async def stop() -> None:
        await eventually(lambda: answered > 100)
        gateway.send(signal.SIGTERM)

    await asyncio.gather(*(keep_calling() for _ in range(50)), stop())
    assert await gateway.wait() == 0
    assert answered == len(agent.bodies)
    assert await written(world, target) == {"completed": answered}


async def test_a_call_that_is_let_in_too_late_is_refused_before_its_agent_hears_of_it(world: World) -> None:
    gateway = await world.start(GATEWAY_DRAIN_SECONDS="5")
    agent, slow = await world.agent(), await world.agent(silent_for(1.0))
    target, holding = await world.workspace(agent.url), await world.workspace(slow.url)

    async def stop_while_it_waits(session: Any) -> None:
        await waiting_for_a_lock(world)
        gateway.send(signal.SIGTERM)
        await draining(world)
        session.rollback()

    with closing(psycopg2.connect(world.env["GATEWAY_DATABASE_URL"])) as session:
        async with asyncio.TaskGroup() as group:
            group.create_task(world.call(holding))  # as long as it lasts, the gateway does not end
            await in_flight(slow, 1)
            session.cursor().execute("LOCK TABLE workspaces")
            group.create_task(stop_while_it_waits(session))
            status, body, _ = await world.call(target)
    assert (status, body["code"]) == (503, "draining")
    assert agent.bodies == []
    assert await gateway.wait() == 0


async def test_a_second_signal_ends_it_at_once(world: World) -> None:
    gateway = await world.start(GATEWAY_DRAIN_SECONDS=str(LONG_S))
    agent = await world.agent(silent_for(LONG_S))
    target = await world.workspace(agent.url)

    async def lose_the_answer() -> None:
        try:
            await world.call(target)
        except aiohttp.ClientError:
            return
        raise AssertionError("there was an answer")

    async def stop_twice() -> int:
        await stop_after(world, gateway, agent, 1)
        return await gateway.stop()

    started = time.monotonic()
    _, code = await asyncio.gather(lose_the_answer(), stop_twice())
    assert code == 1
    assert time.monotonic() - started < LONG_S / 2
