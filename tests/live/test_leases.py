"""Replicas that die, and what becomes of their calls, on a real Valkey."""

from dataclasses import replace

import pytest
from redis.asyncio import Redis

from gateway.core.endings import Ending
from gateway.core.journey import Arrival
from gateway.live.gate import Gate
from tests.harness.world import until
from tests.live.entries import ANY, CENT, JOURNEY, A, B, C, budget, call, ended, eventually_enters


async def dead(prefix: str, url: str, gate: Gate) -> None:
    """Let a replica's lease run out."""
    async with Redis.from_url(url) as client:
        await client.delete(f"{prefix}:replica:{gate._replica}")


async def test_the_calls_of_a_dead_replica_are_taken_over_once_and_those_that_have_ended_are_not(
    opened, one, other, prefix, servers
):
    async with opened() as dying:
        calls = [call(A, B, trace=str(number)) for number in range(3)]
        parked = call(A, C, trace="parked", held=False)
        for entry in (*calls, parked):
            await dying.enter(entry)
        dying.leave(ended(calls[0]))
        name = dying._replica
        assert name not in await one.leases.lapsed()
        assert await one.leases.inherit(name) == ([], False), "it is alive"
    await dead(prefix, servers.redis_url, dying)
    assert await one.leases.lapsed() == await other.leases.lapsed() == [name]
    taken = [await gate.leases.inherit(name) for gate in (one, other)]
    assert {orphan.call_id for orphan in taken[0][0]} == {entry.call_id for entry in calls[1:]}
    assert taken[1] == ([], False)
    [orphan, _] = taken[0][0]
    assert (orphan.caller_id, orphan.target_id, orphan.method) == (A, B, "message/send")
    assert orphan.trace_id in ("1", "2")
    assert 0 <= orphan.age_s < 60
    assert await one.leases.lapsed() == []


async def test_what_was_taken_over_by_one_that_dies_too_is_taken_over_again(opened, one, prefix, servers):
    async with opened() as first, opened() as second:
        entry = call(None, A, budget=budget(10 * CENT, reserve=6 * CENT))
        await first.enter(entry)
        await dead(prefix, servers.redis_url, first)
        [orphan], _ = await second.leases.inherit(first._replica)
        await dead(prefix, servers.redis_url, second)
        assert (await one.leases.inherit(second._replica))[0] == [replace(orphan, age_s=ANY)]
    one.leave(ended(replace(entry, budget=None)))
    await eventually_enters(one, replace(entry, call_id="x"))


async def test_who_inherits_a_call_learns_how_it_was_sent(opened, one):
    entry = call(A, B, journey=JOURNEY)
    async with opened(renew_s=0.01) as dying:
        await dying.enter(entry)
    [dead] = await until(one.leases.lapsed, len)
    [orphan], _ = await one.leases.inherit(dead)
    assert (orphan.call_id, orphan.journey) == (entry.call_id, JOURNEY)


async def test_a_call_that_has_ended_is_inherited_until_its_row_is_written(opened, one):
    entries = [call(A, B, trace=str(number), journey=JOURNEY) for number in range(2)]
    arrival = Arrival(ending=Ending.COMPLETED, duration_ms=15, journey=replace(JOURNEY, status=200))
    async with opened(renew_s=0.01) as dying:
        for entry in entries:
            await dying.enter(entry)
            dying.leave(replace(ended(entry), arrival=arrival))
        dying.let_go([entries[0].call_id])
        await dying.find(entries[0].call_id)
    [dead] = await until(one.leases.lapsed, len)
    [orphan], _ = await one.leases.inherit(dead)
    assert (orphan.call_id, orphan.arrival) == (entries[1].call_id, arrival)
    one.let_go([entries[1].call_id])
    assert await one.leases.inherit(one._replica) == ([], False)


# -- one that was held up


@pytest.fixture
def held_up(monkeypatch):
    """Let the gate believe that it has not renewed its lease for an hour."""

    def hold(gate: Gate) -> None:
        gate.leases._renewed_at -= 3600.0

    return hold


async def test_a_call_that_another_replica_has_taken_over_is_lost_and_one_that_nobody_took_is_not(
    opened, one, prefix, servers, held_up
):
    async with opened() as stopped:
        taken = call(A, B)
        await stopped.enter(taken)
        assert not await stopped.has_lost(taken.call_id, 0.0)
        await dead(prefix, servers.redis_url, stopped)
        await one.leases.inherit(stopped._replica)
        assert not await stopped.has_lost(taken.call_id, 0.0), "who was not held up asks nobody"
        held_up(stopped)
        kept = call(A, B, trace="another")
        await stopped.enter(kept)
        assert await stopped.has_lost(taken.call_id, 10.0)
        assert not await stopped.has_lost(kept.call_id, 10.0)
        assert not await stopped.has_lost(taken.call_id, -1.0), "it began after that"
        assert await one.leases.inherit(stopped._replica) == ([], False), "it has its lease again"
        one.leave(ended(taken))
        await one.find(taken.call_id)
        assert await stopped.has_lost(taken.call_id, 10.0)


async def test_a_call_of_which_redis_knows_nothing_is_not_lost(one, held_up):
    held_up(one)
    assert not await one.has_lost(call(A, B).call_id, 10.0)
