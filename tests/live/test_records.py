"""A call that is sent, as other replicas see its record on a real Valkey."""

from dataclasses import replace
from uuid import uuid4

from redis.asyncio import Redis

from gateway.core.endings import Ending
from gateway.core.journey import Arrival
from gateway.live.records import AFTER_S
from tests.live.entries import JOURNEY, A, B, call, ended


async def test_a_call_under_way_is_found_by_any_replica_and_for_a_while_after_its_end(one, other, prefix, servers):
    entry = call(A, B, limit_s=60.0, journey=JOURNEY)
    await one.enter(entry)
    found = await other.find(entry.call_id)
    assert (found.call_id, found.target_id, found.caller_id, found.method) == (entry.call_id, B, A, "message/send")
    assert (found.journey, found.arrival) == (JOURNEY, None)
    assert 0 <= found.age_s < 10
    arrival = Arrival(ending=Ending.CANCELLED, duration_ms=1500, journey=replace(JOURNEY, status=409))
    one.leave(replace(ended(entry), arrival=arrival))
    assert (await one.find(entry.call_id)).arrival == arrival, "who has ended it sees so at once"
    assert (await other.find(entry.call_id)).arrival == arrival
    async with Redis.from_url(servers.redis_url) as redis:
        assert 0 < await redis.pttl(f"{prefix}:call:{entry.call_id}") <= AFTER_S * 1000


async def test_a_call_that_was_given_up_or_is_not_sent_is_not_found(one):
    given_up, parked = call(A, B, journey=JOURNEY), call(A, B)
    for entry in (given_up, parked):
        await one.enter(entry)
    one.leave(ended(given_up))
    for call_id in (given_up.call_id, parked.call_id, str(uuid4())):
        assert await one.find(call_id) is None


async def test_a_call_is_shown_with_the_time_that_the_one_it_serves_leaves_it(one):
    above = call(None, A, limit_s=10.0, journey=JOURNEY)
    await one.enter(above)
    below = call(A, B, serves=above.call_id, limit_s=60.0, journey=JOURNEY)
    await one.enter(below)
    journey = (await one.find(below.call_id)).journey
    assert journey.by_deadline
    assert 0 < journey.limit_s <= 10
