"""live.gate: a replica that was held up for longer than its lease lasts learns which of its calls others have."""

import pytest

from gateway.live import gate as gates
from tests.live.test_gate import A, B, call, dead, ended


@pytest.fixture
def held_up(monkeypatch):
    """Let the gate believe that it has not renewed its lease for an hour."""

    def hold(gate: gates.Gate) -> None:
        gate._renewed_at -= 3600.0

    return hold


async def test_a_call_that_another_replica_has_taken_over_is_lost_and_one_that_nobody_took_is_not(
    opened, one, prefix, servers, held_up
):
    async with opened() as stopped:
        taken = call(A, B)
        await stopped.enter(taken)
        assert not await stopped.has_lost(taken.call_id, 0.0)
        await dead(prefix, servers.redis_url, stopped)
        await one.inherit(stopped._replica)
        assert not await stopped.has_lost(taken.call_id, 0.0), "who was not held up asks nobody"
        held_up(stopped)
        kept = call(A, B, trace="another")
        await stopped.enter(kept)
        assert await stopped.has_lost(taken.call_id, 10.0)
        assert not await stopped.has_lost(kept.call_id, 10.0)
        assert not await stopped.has_lost(taken.call_id, -1.0), "it began after that"
        assert await one.inherit(stopped._replica) == ([], False), "it has its lease again"
        one.leave(ended(taken))
        await one.find(taken.call_id)
        assert await stopped.has_lost(taken.call_id, 10.0)


async def test_a_call_of_which_redis_knows_nothing_is_not_lost(one, held_up):
    held_up(one)
    assert not await one.has_lost(call(A, B).call_id, 10.0)
