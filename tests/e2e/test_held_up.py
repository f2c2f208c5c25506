"""A replica that is held up for longer than its leases last, and goes on: what others have ended meanwhile it does not
end once more."""

import asyncio
import signal
from typing import Final

from aiohttp import web

from tests.e2e.test_joining import once, send
from tests.harness.agent import result
from tests.harness.process import GatewayProcess
from tests.harness.world import World, eventually, until

ENV: Final = {"GATEWAY_PROBE_SECONDS": "0.2"}
HISTORY: Final = "select activity_type, status, error_detail from activity order by 1"
LEDGER: Final = "select state, ending from calls"
LATE_S: Final = 30.0
"""Within which a call is taken over whose replica does nothing."""


async def leave(world: World, gateway: GatewayProcess) -> None:
    """Let a replica go in good order: what it has to write is written then."""
    await gateway.stop()
    world.gateways.remove(gateway)


async def test_a_call_that_has_been_ended_for_it_ends_once_though_its_agent_answers_at_last(world: World) -> None:
    stopped, left = await asyncio.gather(world.start(**ENV), world.start(**ENV))
    opened = asyncio.Event()
    agent = await world.agent(once(opened))
    target, caller = await world.workspace(agent.url), await world.workspace()
    async with world.reading(target, gateway=left) as reader, asyncio.TaskGroup() as group:
        calling = group.create_task(send(world, target, gateway=stopped, headers=caller.bearer))
        await eventually(lambda: agent.open_connections == 1)
        stopped.send(signal.SIGSTOP)
        await eventually(lambda: reader.of("CALL_ENDED"), within_s=LATE_S)
        opened.set()
        await eventually(lambda: agent.open_connections == 0)
        stopped.send(signal.SIGCONT)
        code, said, _ = await calling
        assert (code, said["result"]["parts"][0]["text"]) == (200, "done"), "who still waits gets what there is"
        code, said, _ = await send(world, target, gateway=left, headers=caller.bearer)
        assert (code, said["result"]["parts"][0]["text"]) == (200, "done"), "it is not made once more"
        await leave(world, stopped)
        await until(lambda: world.sql(HISTORY), lambda rows: len(rows) >= 2)
        marker = await world.call(target, gateway=left)
        await eventually(lambda: reader.of("CALL_ENDED")[-1]["call_id"] == marker[2]["X-A2A-Call-ID"])
    assert [event["ending"] for event in reader.of("CALL_ENDED")] == ["interrupted", "completed"]
    await until(lambda: world.sql(LEDGER), lambda rows: len(rows) == 2)
    assert sorted(await world.sql(LEDGER)) == [("completed", "completed"), ("interrupted", "interrupted")]
    assert await world.sql(HISTORY) == [
        ("a2a_receive", "error", "interrupted"), ("a2a_receive", "ok", None), ("a2a_send", "error", "interrupted"),
    ]  # fmt: skip
    assert await world.sql("select calls from usage") == [(2,)]
    assert len(agent.bodies) == 2


async def test_an_end_that_has_been_written_for_it_is_in_no_history_twice_and_counts_once(world: World) -> None:
    stopped, _ = await asyncio.gather(world.start(**ENV, GATEWAY_WRITE_EVERY_SECONDS="3600"), world.start(**ENV))

    async def behave(request: web.Request) -> web.StreamResponse:
        said = result(await request.read())
        return web.json_response({**said, "usage": {"input_tokens": 3, "output_tokens": 4}})

    target, caller = await world.workspace((await world.agent(behave)).url), await world.workspace()
    assert (await world.call(target, gateway=stopped, headers=caller.bearer))[0] == 200
    stopped.send(signal.SIGSTOP)
    await until(lambda: world.sql(HISTORY), lambda rows: len(rows) == 2, LATE_S)
    stopped.send(signal.SIGCONT)
    await leave(world, stopped)
    assert await world.sql(HISTORY) == [("a2a_receive", "ok", None), ("a2a_send", "ok", None)]
    assert await world.sql(LEDGER) == [("completed", "completed")]
    assert await world.sql("select calls from usage") == [(1,)]
