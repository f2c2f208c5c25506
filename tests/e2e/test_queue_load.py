"""Many calls that wait for one busy agent, on several replicas, some of which die: each comes to one end."""

import asyncio
import signal
import time
from collections import Counter, defaultdict

import pytest

from tests.harness.busy import FINAL, QUICK, BusyAgent, busy, queued
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, until

AT_ONCE = 20
"""Callers that ask at the same moment."""


async def fill(world: World, target: Workspace, callers: list[Workspace], count: int) -> dict[str, str]:
    """Let each caller in turn send `count` calls, one after the other; return text by call id."""
    ids: dict[str, str] = {}

    async def send(number: int, caller: Workspace) -> None:
        gateway = world.gateways[number % len(world.gateways)]
        for nth in range(count):
            text = f"{number}:{nth}"
            ids[await queued(world, target, text, gateway=gateway, headers=caller.bearer)] = text

    async with asyncio.TaskGroup() as group:
        for number, caller in enumerate(callers):
            group.create_task(send(number, caller))
    return ids


async def all_ended(world: World, within_s: float) -> dict[str, tuple[str, str]]:
    """State and ending of each call, once none waits any more."""
    left = "select count(*) from calls where state <> all(%s)"
    await until(lambda: world.sql(left, sorted(FINAL)), lambda rows: rows == [(0,)], within_s)
    rows = await world.sql("select id::text, state, ending from calls")
    return {id_: (state, ending) for id_, state, ending in rows}


def by_caller(taken: list[str]) -> dict[str, list[int]]:
    """The numbers of each caller's calls, in the order in which the agent took them."""
    order: dict[str, list[int]] = defaultdict(list)
    for text in taken:
        caller, nth = text.split(":")
        order[caller].append(int(nth))
    return order


async def test_calls_of_several_callers_are_all_sent_once_in_order_and_by_turns(world: World):
    await asyncio.gather(world.start(**QUICK), world.start(**QUICK))
    target, agent = await busy(world)
    callers = [await world.workspace() for _ in range(5)]
    ids = await fill(world, target, callers, 40)
    assert agent.taken == []
    agent.shut = False
    async with world.beating(target, 0.5):
        ends = await all_ended(world, 60)
    assert ends == dict.fromkeys(ids, ("completed", "completed"))
    assert Counter(agent.taken) == Counter(ids.values())
    assert agent.most == 1
    for order in by_caller(agent.taken).values():
        assert order == sorted(order)
    for at in range(0, 200, 5):  # each turn serves each caller once
        assert {text.split(":")[0] for text in agent.taken[at : at + 5]} == set("01234")
    told = await world.sql("select count(*) from activity where activity_type = 'a2a_receive' and status = 'ok'")
    assert told == [(200,)]


async def test_a_workspace_that_may_work_on_several_is_never_sent_more_and_shuts_in_between(world: World):
    await asyncio.gather(world.start(**QUICK), world.start(**QUICK))
    target, agent = await busy(world, BusyAgent(places=100, work_s=0.02), max_concurrent_tasks=3)
    callers = [await world.workspace() for _ in range(3)]
    ids = await fill(world, target, callers, 20)
    agent.shut = False
    for _ in range(3):
        seen = len(agent.taken)
        await until(lambda: asyncio.sleep(0, len(agent.taken)), lambda count, seen=seen: count >= seen + 10, 30)
        agent.shut = True
        refused = agent.refused
        await until(lambda: asyncio.sleep(0, agent.refused), lambda count, refused=refused: count > refused, 30)
        agent.shut = False
    ends = await all_ended(world, 60)
    assert ends == dict.fromkeys(ids, ("completed", "completed"))
    assert Counter(agent.taken) == Counter(ids.values())
    assert agent.most == 3


async def test_of_a_replica_that_is_killed_each_call_ends_once_and_none_that_was_sent_is_sent_again(world: World):
    await asyncio.gather(*(world.start(**QUICK) for _ in range(3)))
    target, agent = await busy(world, BusyAgent(places=100, work_s=0.1), max_concurrent_tasks=6)
    callers = [await world.workspace() for _ in range(4)]
    ids = await fill(world, target, callers, 25)
    survivor, *doomed = world.gateways
    agent.shut = False
    out: set[str] = set()
    for one in doomed:
        seen = len(agent.taken)
        await until(lambda: asyncio.sleep(0, len(agent.taken)), lambda count, seen=seen: count >= seen + 12, 30)
        one.send(signal.SIGSTOP)  # from now on it sends nothing that it has not said in the ledger
        out |= {id_ for (id_,) in await world.sql("select id::text from calls where state = 'dispatched'")}
        await kill(one)
    ends = await all_ended(world, 60)
    assert set(ends) == set(ids)
    assert set(ends.values()) <= {("completed", "completed"), ("interrupted", "interrupted")}
    taken = Counter(agent.taken)
    assert set(taken.values()) == {1}, "nothing is sent twice"
    done = {text for id_, text in ids.items() if ends[id_][0] == "completed"}
    unknown = {id_ for id_ in ids if ends[id_][0] == "interrupted"}
    assert done <= set(taken), "nothing is done that was never sent"
    assert unknown <= out, "only what was out when a replica died is unknown: on its way, or answered and not written"
    assert agent.most <= 6
    assert survivor.exit_code is None
    heard = await world.sql("select call_id, count(*) from activity where call_id is not null and activity_type = "
                            "'a2a_receive' group by call_id having count(*) > 1")  # fmt: skip
    assert heard == []


async def kill(gateway: GatewayProcess) -> None:
    gateway.send(signal.SIGKILL)
    await gateway.wait()


async def test_a_replica_that_is_stopped_in_good_order_leaves_nothing_that_may_not_go_on(world: World):
    await asyncio.gather(world.start(**QUICK), world.start(**QUICK, GATEWAY_DRAIN_SECONDS="5"))
    target, agent = await busy(world, BusyAgent(places=100, work_s=0.1), max_concurrent_tasks=4)
    ids = await fill(world, target, [await world.workspace()], 40)
    agent.shut = False
    await until(lambda: asyncio.sleep(0, len(agent.taken)), lambda count: count >= 8, 30)
    assert await world.gateways[1].stop() == 0
    ends = await all_ended(world, 60)
    assert ends == dict.fromkeys(ids, ("completed", "completed"))
    assert Counter(agent.taken) == Counter(ids.values())


@pytest.mark.parametrize("count", [2_000, pytest.param(10_000, marks=[pytest.mark.long, pytest.mark.timeout(1200)])])
async def test_a_long_queue_drains_as_fast_as_its_agent_works(world: World, count: int, record_property):
    gateways = await asyncio.gather(world.start(**QUICK), world.start(**QUICK))
    work_s, places = 0.05, 8
    target, agent = await busy(world, BusyAgent(places=1000, work_s=work_s), max_concurrent_tasks=places)
    await insert(world, target, count)
    agent.shut = False
    began = time.monotonic()
    ends = await all_ended(world, 1000)
    took_s = time.monotonic() - began
    assert set(ends.values()) == {("completed", "completed")}
    assert len(agent.taken) == len(set(agent.taken)) == count
    assert agent.most <= places
    bound = await by_hand(world, agent, places, count // 10)
    rate = f"{count} calls in {took_s:.1f} s: {count / took_s:.0f}/s; called directly by as many at once as it has "
    rate += f"places for the agent does {bound:.0f}/s, and without any time in between {places / work_s:.0f}/s"
    record_property("drain", rate)
    print(f"\n{rate}, {len(gateways)} replicas")


async def by_hand(world: World, agent: BusyAgent, at_once: int, count: int) -> float:
    """How many calls a second an agent does whose callers each send the next one as soon as they have an answer."""
    left = iter(range(count))

    async def call() -> None:
        for number in left:
            params = {"message": {"parts": [{"kind": "text", "text": f"by hand {number}"}]}}
            body = {"jsonrpc": "2.0", "id": number, "method": "message/send", "params": params}
            async with world.session.post(agent.server.url, json=body) as response:
                assert response.status == 200
                await response.read()

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(call())
    return count / (time.monotonic() - began)


async def insert(world: World, target: Workspace, count: int) -> None:
    """Let a call wait, and as many more like it: to ask for each would take longer than to drain them."""
    first = await queued(world, target, "0")
    await world.sql(
        """insert into calls (id, kind, state, workspace_id, method, body, lane, turn, outgoing, not_before, expires_at)
           select gen_random_uuid(), c.kind, 'queued', c.workspace_id, c.method,
                  convert_to(replace(convert_from(c.body, 'utf8'), '"text": "0"', '"text": "' || n || '"'), 'utf8'),
                  'lane ' || n %% 10, n, c.outgoing, c.not_before, c.expires_at
             from calls c, generate_series(1, %s) n where c.id = %s""",
        count - 1,
        first,
    )
