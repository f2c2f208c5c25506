"""What replicas decide together, on a real Valkey: rates, chains, deadlines, budgets."""

import contextlib
from dataclasses import replace
from itertools import pairwise
from uuid import uuid4

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.asyncio import Redis

from gateway.core.rates import Rate
from gateway.live.gate import Gate
from gateway.live.leases import RENEWALS
from gateway.live.records import AFTER_S
from gateway.ports import Barred, LiveUnavailable
from tests.harness.valkey import valkey
from tests.harness.world import eventually, until
from tests.live.conftest import MAX_DEPTH, RENEW_S
from tests.live.entries import CENT, HOUR, A, B, C, budget, call, ended, eventually_enters

# -- rates


async def test_a_bucket_is_emptied_by_all_replicas_together(one, other):
    taken = [await gate.take("a", HOUR) for gate in (one, other) * 5]
    assert [standing.remaining for standing in taken] == list(range(9, -1, -1))
    assert all(standing.allowed and standing.limit == 10 for standing in taken)
    for gate in (one, other):
        refused = await gate.take("a", HOUR)
        assert (refused.allowed, refused.remaining) == (False, 0)
        assert 0 < refused.retry_s <= 360
        assert 3500 < refused.reset_s <= 3600
    assert (await other.take("b", HOUR)).remaining == 9, "everybody has their own"


async def test_a_bucket_fills_while_time_goes_by(one):
    quick = Rate(requests=1, period_s=0.05)
    assert (await one.take("a", quick)).allowed
    refused = await one.take("a", quick)
    assert not refused.allowed
    await until(lambda: one.take("a", quick), lambda standing: standing.allowed)


async def test_a_request_that_is_refused_costs_nothing(one):
    rate = Rate(requests=2, period_s=3600.0)
    for _ in range(2):
        await one.take("a", rate)
    waits = [(await one.take("a", rate)).retry_s for _ in range(20)]
    assert max(waits) <= 1800, "asking does not put the next one off"


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(1, 30), st.integers(1, 60))
async def test_never_more_than_the_bucket_holds_go_at_once(one, requests, asked):
    """The property of the bucket: of any number that come at once, as many go on as it holds, and the rest wait."""
    rate, payer = Rate(requests=requests, period_s=86_400.0), uuid4().hex
    came = [await one.take(payer, rate) for _ in range(asked)]
    assert sum(standing.allowed for standing in came) == min(requests, asked)
    assert [standing.allowed for standing in came] == sorted((s.allowed for s in came), reverse=True)


# -- chains


async def test_a_call_made_while_serving_another_is_one_deeper_and_ends_no_later(one, other):
    first = call(None, A, limit_s=100.0)
    assert (await one.enter(first)).depth == 1
    second = call(A, B, serves=first.call_id, trace="another", limit_s=1000.0)
    below = await other.enter(second)
    assert below.depth == 2
    assert 90 < below.left_s <= 100
    third = call(B, C, serves=second.call_id, trace="a third")
    deepest = await one.enter(third)
    assert deepest.depth == 3
    assert 90 < deepest.left_s <= 100, "it is inherited from the first, though the second asked for more"


async def test_a_trace_tells_whom_a_call_serves_where_no_call_id_does(one, other):
    await one.enter(call(None, A, limit_s=50.0))
    below = await other.enter(call(A, B))
    assert (below.depth, 40 < below.left_s <= 50) == (2, True)
    assert (await other.enter(call(A, B, trace="another"))).depth == 1


async def test_nobody_makes_anothers_call_shorter_by_calling_in_its_trace(one, other):
    first = call(None, A, limit_s=100.0)
    await one.enter(first)
    await other.enter(call(C, A, limit_s=1.0))
    assert (await one.enter(call(A, B))).left_s > 90
    await one.enter(call(None, A, trace="endless"))
    await other.enter(call(C, A, trace="endless", limit_s=1.0))
    assert (await one.enter(call(A, B, trace="endless"))).left_s is None
    later = call(None, A, trace="one after the other", limit_s=100.0)
    await one.enter(later)
    one.leave(ended(later))
    await until(
        lambda: one.enter(call(A, B, trace="one after the other", call_id=str(uuid4()))),
        lambda below: below.left_s is None,
    )
    await one.enter(call(C, A, trace="one after the other", limit_s=1.0))
    assert (await one.enter(call(A, B, trace="one after the other"))).left_s <= 1, "the first is over"


async def test_nobody_serves_a_call_that_was_made_to_another(one):
    first = call(None, A, limit_s=5.0)
    await one.enter(first)
    stranger = await one.enter(call(C, B, serves=first.call_id))
    assert (stranger.depth, stranger.left_s) == (1, None)


async def test_a_chain_that_is_too_deep_is_refused_on_any_replica_and_leaves_nothing(one, other):
    before, callers = None, [None, A, B, C, A]
    for depth, (caller, target) in enumerate(pairwise(callers), 1):
        entry = call(caller, target, trace=f"t{depth}", serves=before)
        assert (await one.enter(entry)).depth == depth
        before = entry.call_id
    assert depth == MAX_DEPTH
    too_deep = call(A, B, trace="last", serves=before)
    refused = await other.enter(too_deep)
    assert (refused.barred, refused.depth) == (Barred.DEEP, MAX_DEPTH + 1)
    assert (await one.enter(call(B, C, trace="next", serves=too_deep.call_id))).depth == 1


async def test_a_loop_through_one_trace_is_found(one):
    """A calls B calls A calls B, and none of them says more than the trace."""
    await one.enter(call(None, A))
    for depth in range(2, MAX_DEPTH + 1):
        caller, target = (A, B) if depth % 2 == 0 else (B, A)
        assert (await one.enter(call(caller, target))).depth == depth
    assert (await one.enter(call(B, A))).barred is Barred.DEEP


async def test_what_a_call_starts_after_it_has_ended_is_below_it_but_has_time_of_its_own(one, other):
    first = call(None, A, limit_s=100.0)
    await one.enter(first)
    one.leave(ended(first))
    for late in (call(A, B, serves=first.call_id, trace="another"), call(A, B)):
        below = await until(
            lambda late=late: other.enter(replace(late, call_id=str(uuid4()))), lambda below: below.left_s is None
        )
        assert below.depth == 2


# -- budgets


async def test_a_hundred_calls_at_once_spend_no_more_than_there_is(one, other):
    """Each costs five cents and twelve are left: two may run, and what they have cost lets no third begin."""
    gates_, allowed = (one, other), []
    for number in range(100):
        entry = call(None, A, trace=str(number), budget=budget(100 * CENT, priced=88 * CENT, reserve=5 * CENT))
        gate = gates_[number % 2]
        if (await gate.enter(entry)).barred is None:
            allowed.append((gate, entry))
    assert len(allowed) == 2
    for gate, entry in allowed:
        gate.leave(ended(entry, cost=5 * CENT))
    last = replace(allowed[0][1], trace_id="last")
    await eventually_enters(one, replace(last, call_id="last"))
    assert (await other.enter(replace(last, call_id="x"))).barred is Barred.SPENT, "it is alone no more"
    one.leave(ended(replace(last, call_id="last"), cost=5 * CENT))
    assert (await one.enter(replace(last, call_id="y"))).barred is Barred.SPENT, "103 of 100 cents are spent"


async def test_a_call_holds_as_much_as_others_have_cost(one):
    entry = call(None, A, budget=budget(100 * CENT))
    await one.enter(entry)
    one.leave(ended(entry, cost=40 * CENT))
    await eventually_enters(one, call(None, A, trace="1", budget=budget(100 * CENT)))
    assert (await one.enter(call(None, A, trace="2", budget=budget(100 * CENT)))).barred is Barred.SPENT


async def test_what_is_spent_is_what_redis_knows_or_what_the_database_does_if_that_is_more(one):
    entry = call(None, A, budget=budget(10 * CENT))
    await one.enter(entry)
    one.leave(ended(entry, cost=11 * CENT))
    assert (await one.enter(call(None, A, budget=budget(10 * CENT)))).barred is Barred.SPENT
    assert (await one.enter(call(None, B, budget=budget(10 * CENT, priced=10 * CENT)))).barred is Barred.SPENT
    assert (await one.enter(call(None, C, budget=budget(10 * CENT, reported=10 * CENT)))).barred is Barred.SPENT
    assert (await one.enter(call(None, C, budget=budget(10 * CENT, reported=9 * CENT)))).barred is None, "corrected"
    another_month = budget(10 * CENT, month="2026-12")
    assert (await one.enter(call(None, A, budget=another_month))).barred is None


async def test_a_call_that_holds_nothing_begins_while_anything_is_left_and_leaves_the_rest_to_others(one):
    free = replace(budget(10 * CENT, reserve=9 * CENT), reserve=None)
    await one.enter(call(None, A, trace="1", budget=budget(10 * CENT, reserve=9 * CENT)))
    for number in range(3):
        assert (await one.enter(call(None, A, trace=f"free {number}", budget=free))).barred is None
    spent = replace(free, priced=10 * CENT)
    assert (await one.enter(call(None, A, trace="2", budget=spent))).barred is Barred.SPENT


async def test_an_ending_that_is_told_twice_is_spent_once(one):
    entry = call(None, A, budget=budget(10 * CENT))
    await one.enter(entry)
    for _ in range(5):
        one.leave(ended(entry, cost=9 * CENT))
    again = call(None, A, trace="1", budget=budget(10 * CENT))
    await eventually_enters(one, again)


async def test_what_a_dead_replica_holds_is_free_again_once_its_lease_has_run_out(opened, one, prefix, servers):
    entry = call(None, A, budget=budget(10 * CENT, reserve=6 * CENT))
    async with opened() as dying:
        await dying.enter(entry)
    next_one = replace(entry, call_id="x")
    assert (await one.enter(next_one)).barred is Barred.SPENT, "it may be alive"
    async with Redis.from_url(servers.redis_url) as client:
        leases = [key async for key in client.scan_iter(f"{prefix}:replica:*")]
        assert len(leases) == 2
        assert all(0 < left_ms <= RENEWALS * RENEW_S * 1000 for left_ms in [await client.pttl(key) for key in leases])
        await client.delete(*leases)
    assert (await one.enter(next_one)).barred is None


async def test_everything_in_redis_runs_out(one, prefix, servers):
    entry = call(A, B, rate=HOUR, limit_s=10.0, budget=budget(10 * CENT))
    await one.enter(entry)
    endless = call(A, C, trace="2")
    await one.enter(endless)
    one.leave(ended(entry, cost=CENT))
    async with Redis.from_url(servers.redis_url) as client:
        ended_call = f"{prefix}:call:{entry.call_id}"
        await until(lambda: client.pttl(ended_call), lambda left_ms: left_ms <= AFTER_S * 1000)
        keys = [key async for key in client.scan_iter(f"{prefix}:*")]
        assert len(keys) >= 6
        assert all(left_ms > 0 for left_ms in [await client.pttl(key) for key in keys]), "nothing stays for ever"


# -- Redis away


async def test_endings_wait_for_a_redis_that_is_away_and_cost_nothing_then(opened, tmp_path, prefix):
    with valkey(tmp_path / "valkey") as server:
        await server.start()
        async with opened(server.url, answer_s=0.2) as gate:
            entry = call(None, A, budget=budget(10 * CENT, reserve=6 * CENT))
            await gate.enter(entry)
            server.stall()
            gate.leave(ended(entry, cost=9 * CENT))
            await eventually(lambda: not gate.is_up)
            server.go_on()
            await eventually(lambda: gate.is_up)
            await eventually_enters(gate, replace(entry, call_id="x"))


@pytest.mark.parametrize("times", [1, 3])
async def test_flushed_scripts_are_taught_again(one, servers, times):
    async with Redis.from_url(servers.redis_url) as client:
        for _ in range(times):
            await client.script_flush()
            await until(lambda: asked(one), bool)


async def asked(gate: Gate) -> bool:
    with contextlib.suppress(LiveUnavailable):
        return (await gate.take("a", Rate(requests=1000, period_s=1.0))).allowed
    return False


# -- calls that wait for a busy agent


async def test_a_call_that_has_waited_begins_again_as_deep_as_it_was_though_those_above_it_are_forgotten(one, other):
    first = call(None, A)
    second = call(A, B, serves=first.call_id)
    await one.enter(first)
    assert (await one.enter(second)).depth == 2
    one.leave(ended(first))
    one.leave(replace(ended(second), keep_s=1000.0))
    again = replace(second, serves=None, trace_id="another")
    assert (await until(lambda: other.enter(again), lambda entered: entered.depth == 2)).left_s is None
    assert (await other.enter(call(B, C, serves=second.call_id))).depth == 3


async def test_a_call_that_waits_holds_nothing_of_a_budget_and_one_that_has_begun_again_does(one, other):
    waits = call(None, A, budget=budget(CENT))
    await one.enter(waits)
    assert (await other.enter(call(None, A, budget=budget(CENT)))).barred is Barred.SPENT
    one.leave(replace(ended(waits), keep_s=1000.0))
    between = call(None, A, budget=budget(CENT))
    await eventually_enters(other, between)
    other.leave(ended(between))
    await eventually_enters(other, waits)
    assert (await one.enter(call(None, A, budget=budget(CENT)))).barred is Barred.SPENT
    other.leave(ended(waits))
    await eventually_enters(one, call(None, A, budget=budget(CENT)))
