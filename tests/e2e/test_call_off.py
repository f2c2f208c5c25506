"""A call that is out of its queue, or left by delegation, is called off on any replica: it ends once, for good."""

import asyncio
import signal
from typing import Any, Final

import pytest
from aiohttp import web

from tests.harness.agent import result, silent_for
from tests.harness.busy import QUICK, SLOW, BusyAgent, busy, ended, queued, status
from tests.harness.tasks import delegated, stands
from tests.harness.world import Workspace, World, eventually, until

NOBODYS: Final = """
update calls set state = %s, claim = gen_random_uuid(), lease_until = now() + interval '1 second', dispatched_at = null
 where id = %s
"""
"""As if a process had it that was killed before it sent it."""


async def cancel(world: World, to: Workspace, call_id: str, **asked: Any) -> tuple[int, Any]:
    code, said, _ = await world.request("POST", f"/workspaces/{to.id}/a2a/calls/{call_id}/cancel", **asked)
    return code, said


async def out(world: World, target: Workspace, agent: BusyAgent, **asked: Any) -> str:
    """A call that its agent works on after it has waited; return its id."""
    agent.shut = True
    taken = len(agent.taken)
    id_ = await queued(world, target, **asked)
    agent.shut = False
    await eventually(lambda: len(agent.taken) > taken)
    return id_


async def test_one_that_is_out_is_called_off_on_another_replica_and_the_next_has_its_place(world: World):
    first = await world.start(**QUICK)
    target, agent = await busy(world, BusyAgent(work_s=60.0))
    caller = await world.workspace()
    async with asyncio.TaskGroup() as group:
        staying = group.create_task(world.call(target, "one", headers={**caller.bearer, "Prefer": "wait=30"}))
        [(id_,)] = await until(lambda: world.sql("select id from calls where state = 'queued'"), len)
        agent.shut = False
        await eventually(lambda: agent.taken == ["one"])
        next_ = await queued(world, target, "two", headers=caller.bearer)
        agent.work_s = 0.0
        other = await world.start(**QUICK)
        async with world.reading(target, gateway=other) as reader:
            for gateway in (other, first):  # twice is once
                code, said = await cancel(world, target, id_, gateway=gateway, headers=caller.bearer)
                assert (code, said) == (200, {"status": "cancelled", "state": "cancelled"})
            code, said, headers = await staying
            assert (code, said["code"], said["outcome"]) == (409, "cancelled", "unknown")
            assert headers["X-A2A-Call-ID"] == id_
            assert (await ended(world, target, next_))["status"] == "completed"
            await eventually(lambda: len(reader.of("CALL_ENDED")) == 2)
    told = {one["call_id"]: one["ending"] for one in reader.of("CALL_ENDED")}  # two replicas may have told them
    assert told == {id_: "cancelled", next_: "completed"}
    assert (agent.taken, agent.server.closed_early) == (["one", "two"], 1)
    said = (await status(world, target, id_))[1]
    assert (said["status"], said["ending"], said["attempts"]) == ("cancelled", "cancelled", 1)
    rows = await world.sql("select workspace_id, error_detail from activity where call_id = %s", id_)
    assert sorted(rows) == sorted([(target.id, "cancelled"), (caller.id, "cancelled")])


async def test_its_part_of_the_budget_is_free_for_the_next(world: World):
    await world.start(**QUICK, GATEWAY_CALL_RESERVE_CENTS="10")
    target, agent = await busy(world, BusyAgent(places=2, work_s=60.0), max_concurrent_tasks=2, budget_limit=10)
    id_ = await out(world, target, agent)
    agent.shut, agent.work_s = True, 0.0
    assert (await world.call(target, "two"))[0] == 402, "all of it is held"
    assert (await cancel(world, target, id_))[0] == 200
    agent.shut = False
    assert (await until(lambda: world.call(target, "two"), lambda got: got[0] == 200))[0] == 200


async def test_the_word_arrives_without_redis(world: World):
    await world.start(**QUICK)
    target, agent = await busy(world, BusyAgent(work_s=60.0))
    id_ = await out(world, target, agent)
    await world.sql("update calls set called_off_at = now() where id = %s", id_)
    await world.sql("insert into changes (kind, key) values ('call', %s)", id_)  # and no event that wakes anybody
    assert (await ended(world, target, id_))["ending"] == "cancelled"
    assert len(agent.taken) == 1


@pytest.mark.parametrize("answers", [200, 429], ids=["done", "busy"])
async def test_a_cancel_and_an_answer_at_the_same_moment_are_one_end(world: World, answers: int):
    gateways = [await world.start(**QUICK) for _ in range(2)]
    shut, sent, free = True, asyncio.Event(), asyncio.Event()

    async def behave(request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if shut:
            return web.json_response({}, status=429)
        sent.set()
        await free.wait()
        return web.json_response(result(body), status=answers)

    target = await world.workspace((await world.agent(behave)).url)
    async with world.reading(target) as reader:
        ends: dict[str, str] = {}
        for number in range(16):
            shut = True
            sent.clear()
            free.clear()
            id_ = await queued(world, target)
            shut = False
            await eventually(sent.is_set)
            async with asyncio.TaskGroup() as group:
                ask = group.create_task(cancel(world, target, id_, gateway=gateways[number % 2]))
                await asyncio.sleep(number * 0.002)  # the earlier, the more often it is the cancel that wins
                free.set()
            code, said = ask.result()
            shut = True
            ends[id_] = "cancelled" if code == 200 else said["ending"]
            assert (code, said["state"]) in ((200, "cancelled"), (409, "completed")), said
            assert (await status(world, target, id_))[1]["ending"] == ends[id_]
        await eventually(lambda: len(reader.of("CALL_ENDED")) == len(ends))
    assert {one["call_id"]: one["ending"] for one in reader.of("CALL_ENDED")} == ends
    assert answers == 200 or set(ends.values()) == {"cancelled"}, "who called it off has been obeyed"
    rows = await world.sql("select call_id::text, count(*) from activity group by call_id")
    assert sorted(rows) == sorted((id_, 1) for id_ in ends)


async def test_one_whose_replica_is_killed_after_it_was_sent_is_interrupted_and_not_sent_again(world: World):
    first = await world.start(**QUICK)
    other = await world.start(**QUICK)
    target, agent = await busy(world, BusyAgent(work_s=60.0))
    id_ = await out(world, target, agent)
    for one in (first, other):  # whichever of them has it
        one.send(signal.SIGKILL)
    last = await world.start(**QUICK)
    code, said = await cancel(world, target, id_, gateway=last)
    assert (code, said.get("status") or said["ending"]) in ((202, "cancelling"), (409, "interrupted"))
    done = await until(lambda: status(world, target, id_, gateway=last), lambda got: got[1]["ending"] is not None)
    assert done[1]["ending"] == "interrupted"
    assert agent.taken == ["hi"]


@pytest.mark.parametrize("state", ["dispatched", "pending"], ids=["queued", "delegated"])
async def test_one_whose_replica_is_killed_before_it_was_sent_is_cancelled_and_never_sent(world: World, state: str):
    await world.start(**SLOW)
    target, agent = await busy(world)
    source = await world.workspace()
    if state == "dispatched":
        id_ = await queued(world, target, headers=source.bearer)
    else:
        id_ = await delegated(world, source, target)
        await until(lambda: world.sql("select 1 from calls where state = 'queued' and id = %s", id_), len)
    await world.sql(NOBODYS, state, id_)
    agent.shut = False
    async with world.reading(target) as reader, world.beating(target, 0.1):
        code, said = await cancel(world, target, id_, headers=source.bearer)
        assert (code, said["status"]) in ((200, "cancelled"), (202, "cancelling"))
        query = "select state, ending from calls where id = %s"
        row = await until(lambda: world.sql(query, id_), lambda got: got[0][1] is not None)
        await eventually(lambda: reader.of("CALL_ENDED"))
        assert row == [("cancelled", "cancelled")]
        assert (await cancel(world, target, id_, headers=source.bearer))[0] == 200
        next_ = await out(world, target, agent)
        assert (await ended(world, target, next_))["status"] == "completed"
    assert [one["ending"] for one in reader.of("CALL_ENDED") if one["call_id"] == id_] == ["cancelled"]
    assert agent.taken == ["hi"], "only the other one has been sent"


async def test_one_that_came_back_is_not_sent_though_who_called_it_off_is_gone(world: World):
    await world.start(**QUICK)
    target, agent = await busy(world)
    id_ = await queued(world, target)
    await world.sql("update calls set called_off_at = now() where id = %s", id_)
    agent.shut = False
    assert (await ended(world, target, id_))["ending"] == "cancelled"
    assert agent.taken == []


async def test_a_delegation_that_is_out_is_called_off_on_another_replica_and_its_source_is_told(world: World):
    first = await world.start(**QUICK)
    agent = await world.agent(silent_for(60))
    target, source = await world.workspace(agent.url), await world.workspace()
    id_ = await delegated(world, source, target, gateway=first)
    await eventually(lambda: agent.open_connections == 1)
    other = await world.start(**QUICK)
    async with world.reading(source, gateway=other) as reader:
        code, said = await cancel(world, target, id_, gateway=other, headers=source.bearer)
        assert (code, said["state"]) == (200, "cancelled")
        await eventually(lambda: reader.of("DELEGATION_FAILED"))
    await eventually(lambda: agent.closed_early == 1)
    assert [event["error"] for event in reader.of("DELEGATION_FAILED")] == ["cancelled"]
    assert (await stands(world, source, id_))["status"] == "cancelled"


async def test_a_delegation_that_was_not_sent_yet_is_called_off_for_good(world: World):
    await world.start(**QUICK)
    agent = await world.agent()
    target, source = await world.workspace(agent.url), await world.workspace()
    id_ = await delegated(world, source, target)
    await stands(world, source, id_)
    # as one that is put off: nobody has it, and it is not due
    await world.sql(
        "update calls set state = 'pending', ending = null, ended_at = null, claim = null, lease_until = null,"
        " not_before = now() + interval '1 hour' where id = %s",
        id_,
    )
    code, said = await cancel(world, target, id_, headers=source.bearer)
    assert (code, said["state"]) == (200, "cancelled")
    await world.sql("update calls set not_before = now()")
    other = await delegated(world, source, target)
    await stands(world, source, other)
    assert (len(agent.bodies), await world.sql("select state from calls where id = %s", id_)) == (2, [("cancelled",)])


async def test_what_an_agent_has_fetched_or_its_source_has_sent_itself_is_not_the_gateways_to_end(world: World):
    await world.start(**QUICK)
    source = await world.workspace()
    target = await world.workspace(delivery_mode="poll")
    id_ = await delegated(world, source, target)
    path = f"/workspaces/{target.id}/inbox/{id_}/ack"
    assert (await world.request("POST", path, headers=target.bearer))[0] == 200
    code, said = await cancel(world, target, id_, headers=source.bearer)
    assert (code, said["code"], said["state"]) == (409, "call_under_way", "dispatched")
