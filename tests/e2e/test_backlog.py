"""The queue of a busy agent, all of it: what stands in it and in which order, and what is dropped from it."""

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tests.harness.busy import QUICK, SLOW, BusyAgent, busy, ended, queued, status
from tests.harness.locks import locked
from tests.harness.tasks import delegated
from tests.harness.world import Workspace, World, eventually, until

AGED = "update calls set created_at = created_at - interval '100 seconds' where id = any(%s::uuid[])"


async def line(world: World, of: Workspace, query: str = "", **options: Any) -> tuple[int, Any]:
    code, said, _ = await world.request("GET", f"/workspaces/{of.id}/a2a/queue{query}", **options)
    return code, said


async def drop(world: World, of: Workspace, stale_s: str, **options: Any) -> tuple[int, Any]:
    path = f"/workspaces/{of.id}/a2a/queue?stale_secs={stale_s}"
    code, said, _ = await world.request("DELETE", path, **options)
    return code, said


async def pages(world: World, of: Workspace, limit: int) -> list[list[Any]]:
    """The whole queue, page by page."""
    read, after = [], ""
    while True:
        code, said = await line(world, of, f"?limit={limit}{after}")
        assert code == 200
        read.append(said["calls"])
        if said["next"] is None:
            return read
        after = f"&after={said['next']}"


async def member(world: World) -> Mapping[str, str]:
    _, made, _ = await world.request("POST", "/org/tokens", json={})
    return {"Authorization": f"Bearer {made['auth_token']}"}


async def test_a_queue_is_listed_in_the_order_in_which_it_is_sent(world: World):
    await world.start(**SLOW)
    target, agent = await busy(world, BusyAgent(work_s=60.0))
    one, other = await world.workspace(), await world.workspace()
    first = await queued(world, target, "a", headers=one.bearer)
    second = await queued(world, target, "b", headers=one.bearer)
    turn = await queued(world, target, "c", headers=other.bearer)
    urgent = await queued(world, target, "d", headers={"X-A2A-Priority": "100"})
    task = await delegated(world, other, target)
    await until(lambda: world.sql("select 1 from calls where state = 'queued' and id = %s", task), len)
    code, said = await line(world, target, headers=target.bearer)
    assert (code, said["next"]) == (200, None)
    calls = said["calls"]
    assert [call["queue_id"] for call in calls] == [urgent, first, turn, second, task]
    assert [call["position"] for call in calls] == [1, 2, 3, 4, 5]
    assert [call["caller_id"] for call in calls] == [None, one.id, other.id, one.id, other.id]
    assert [call["kind"] for call in calls] == ["queued"] * 4 + ["delegation"]
    for call in calls:
        assert (call["status"], call["last_error"], call["busy"], call["attempts"]) == ("queued", "agent_busy", 1, 0)
        assert 0 <= call["age_seconds"] < 60
        assert not {"body", "request_body", "response_body"} & set(call)
    for call in calls[:4]:
        assert (await status(world, target, call["queue_id"]))[1]["position"] == call["position"]
    assert (await line(world, one))[1] == {"calls": [], "next": None}
    agent.shut = False
    async with world.beating(target, 0.1):
        await eventually(lambda: agent.taken == ["d"])
    calls = (await line(world, target))[1]["calls"]
    assert [(call["queue_id"], call["status"], call["position"]) for call in calls] == [
        (urgent, "dispatched", None), (first, "queued", 1), (turn, "queued", 2), (second, "queued", 3),
        (task, "queued", 4),
    ]  # fmt: skip
    assert calls[0]["dispatched_at"] is not None


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_page_by_page_it_is_the_same_queue(world: World, limit: int):
    await world.start(**SLOW)
    target, agent = await busy(world, BusyAgent(work_s=60.0))
    callers = [await world.workspace() for _ in range(2)]
    for number in range(6):
        await queued(world, target, headers=callers[number % 3 % 2].bearer)
    await queued(world, target, headers={"X-A2A-Priority": "10"})
    agent.shut = False
    async with world.beating(target, 0.1):
        await eventually(lambda: agent.taken)
    [whole] = await pages(world, target, 100)
    assert [call["position"] for call in whole] == [None, 1, 2, 3, 4, 5, 6]
    read = await pages(world, target, limit)
    names = [[(call["queue_id"], call["position"]) for call in page] for page in read]
    assert [name for page in names for name in page] == [(call["queue_id"], call["position"]) for call in whole]
    assert [len(page) for page in names[:-1]] == [limit] * (len(names) - 1)
    assert 0 < len(names[-1]) <= limit


async def test_what_is_asked_for_wrongly_is_refused_by_name_and_ends_nothing(world: World):
    await world.start(**SLOW)
    target, _ = await busy(world)
    await queued(world, target)
    for query in ("after=", "after=x", "after=1.2", "after=1.2.3.4", "after=-1.2.3", "after=1.2.3%20", "limit=0"):
        code, said = await line(world, target, f"?{query}")
        assert (code, said["code"], said["field"]) == (400, "invalid_request", query.split("=")[0])
    assert (await line(world, target, f"?after=999.{9 * '9'}.{18 * '9'}"))[0] == 200
    for wrong in ("", "-1", "x", "nan", "1e3", "1" * 10):
        code, said = await drop(world, target, wrong)
        assert (code, said["code"], said["field"]) == (400, "invalid_request", "stale_secs")
    assert (await world.request("DELETE", f"/workspaces/{target.id}/a2a/queue"))[0] == 400, "it must be said"
    assert (await world.request("POST", "/admin/a2a-queue/drop-stale"))[0] == 400
    assert len((await line(world, target))[1]["calls"]) == 1


async def test_what_has_waited_too_long_is_dropped_and_who_stays_for_it_is_told(world: World):
    await world.start(**SLOW)
    other = await world.start(**SLOW)
    target, agent = await busy(world)
    elsewhere, _ = await busy(world)
    caller = await world.workspace()
    old = [await queued(world, target, headers=caller.bearer) for _ in range(2)]
    young, beside = await queued(world, target), await queued(world, elsewhere)
    async with world.reading(target) as reader, asyncio.TaskGroup() as group:
        staying = group.create_task(world.call(target, "stay", headers={"Prefer": "wait=30"}))
        query = "select id::text from calls where state = 'queued' and not (id = any(%s::uuid[]))"
        [(stays,)] = await until(lambda: world.sql(query, [*old, young, beside]), len)
        await world.sql(AGED, [*old, stays, beside])
        assert await drop(world, target, "50", gateway=other) == (200, {"status": "dropped", "calls": 3})
        code, said, headers = await staying
        assert (code, said["code"], headers["X-A2A-Call-ID"]) == (410, "expired", stays)
        await eventually(lambda: len(reader.of("CALL_ENDED")) == 3)
        assert await drop(world, target, "50") == (200, {"status": "dropped", "calls": 0}), "each ends once"
    assert {(end["call_id"], end["ending"]) for end in reader.of("CALL_ENDED")} == {
        (id_, "expired") for id_ in [*old, stays]
    }
    assert len(reader.of("CALL_ENDED")) == 3
    for id_ in old:
        code, said, _ = await status(world, target, id_)
        assert (code, said["code"]) == (410, "expired")
        rows = await world.sql("select workspace_id from activity where call_id = %s", id_)
        assert sorted(rows) == sorted([(target.id,), (caller.id,)])
    assert [call["queue_id"] for call in (await line(world, target))[1]["calls"]] == [young]
    assert [call["queue_id"] for call in (await line(world, elsewhere))[1]["calls"]] == [beside]
    agent.shut = False
    async with world.beating(target, 0.1):
        assert (await ended(world, target, young))["status"] == "completed"
    assert agent.taken == ["hi"]


async def test_what_its_agent_has_is_not_dropped(world: World):
    await world.start(**QUICK)
    target, agent = await busy(world, BusyAgent(work_s=60.0))
    out = await queued(world, target, "one")
    agent.shut = False
    await eventually(lambda: agent.taken)
    waits = await queued(world, target, "two")
    await world.sql(AGED, [out, waits])
    assert await drop(world, target, "0") == (200, {"status": "dropped", "calls": 1})
    assert [call["queue_id"] for call in (await line(world, target))[1]["calls"]] == [out]


async def test_a_long_queue_is_dropped_whole_and_by_two_at_once_each_call_once(world: World):
    gateways = [await world.start(**SLOW) for _ in range(2)]
    target, _ = await busy(world)
    id_ = await queued(world, target)
    copies = """
        insert into calls (id, kind, state, workspace_id, method, body, lane, turn, outgoing, last_error, not_before,
                           expires_at, created_at)
        select gen_random_uuid(), kind, state, workspace_id, method, body, lane, turn + n, outgoing, last_error,
               not_before, expires_at, created_at
          from calls, generate_series(1, 499) n where id = %s
    """
    await world.sql(copies, id_)
    async with asyncio.TaskGroup() as group:
        asked = [group.create_task(drop(world, target, "0", gateway=one)) for one in gateways]
    assert [one.result()[0] for one in asked] == [200, 200]
    assert sum(one.result()[1]["calls"] for one in asked) == 500
    assert await world.sql("select distinct ending from calls") == [("expired",)]


async def test_the_operator_drops_what_is_stale_everywhere(world: World):
    await world.start(**SLOW)
    targets = [(await busy(world))[0] for _ in range(2)]
    old = [await queued(world, target) for target in targets]
    young = await queued(world, targets[0])
    await world.sql(AGED, old)
    path = "/admin/a2a-queue/drop-stale?stale_secs=50"
    assert (await world.request("POST", path, headers=await member(world)))[0] == 403
    code, said, _ = await world.request("POST", path)
    assert (code, said) == (200, {"status": "dropped", "calls": 2})
    assert await world.sql("select id::text from calls where state = 'queued'") == [(young,)]


async def test_the_workspace_and_the_organisation_may_and_for_others_there_is_nothing_to_see(world: World):
    await world.start(**SLOW)
    target, _ = await busy(world)
    caller = await world.workspace()
    await queued(world, target, headers=caller.bearer)
    for ask in (line, drop):
        for who in (target.bearer, await member(world), {}):
            assert (await ask(world, target, "?limit=1" if ask is line else "1000", headers=who))[0] == 200
        code, said = await ask(world, target, "?limit=1" if ask is line else "0", headers=caller.bearer)
        assert (code, said["code"]) == (403, "not_allowed")
    assert len((await line(world, target))[1]["calls"]) == 1


async def test_without_the_database_nobody_is_told_that_a_queue_is_empty(world: World):
    await world.start(**SLOW, GATEWAY_STATEMENT_TIMEOUT_SECONDS="0.5")
    target, _ = await busy(world)
    await queued(world, target)
    with locked(world, "calls"):
        for code, said in (await line(world, target), await drop(world, target, "0")):
            assert (code, said["code"]) == (503, "platform_unavailable")
    assert len((await line(world, target))[1]["calls"]) == 1
