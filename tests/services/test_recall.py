from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest

from gateway.core.claims import Claim
from gateway.ports import LiveUnavailable, StoreUnavailable, Waiting
from gateway.services import recall as recalls
from gateway.services.recall import Recall
from tests.services.memory import Away, Gate

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Ledger(Away):
    """The messages whose calls wait."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.rows = [
            Waiting(
                call_id=f"c{number}",
                claim=Claim(key=f"k{number}", words="w"),
                expires_at=NOW + timedelta(seconds=number),
                left_s=5,
            )
            for number in range(count)
        ]

    async def list_waiting(self, after: Waiting | None, *, limit: int) -> Sequence[Waiting]:
        await self.turn()
        return [row for row in self.rows if after is None or row.expires_at > after.expires_at][:limit]


@pytest.fixture
def gate() -> Gate:
    gate = Gate()
    gate.told = 0
    return gate


async def test_a_redis_that_has_come_up_is_told_of_every_message_that_waits_once(gate, monkeypatch):
    monkeypatch.setattr(recalls, "BATCH", 3)
    ledger = Ledger(7)
    recall = Recall(gate=gate, calls=ledger)
    await recall.tick()
    assert (gate.remembered, gate.told) == (ledger.rows, 1)
    await recall.tick()
    assert len(gate.remembered) == 7
    gate.ups = 2
    await recall.tick()
    assert (len(gate.remembered), gate.told) == (14, 2)


async def test_it_is_not_told_until_all_was_said(gate):
    ledger = Ledger(2)
    recall = Recall(gate=gate, calls=ledger)
    ledger.away = True
    with pytest.raises(StoreUnavailable):
        await recall.tick()
    ledger.away, gate.away = False, True
    with pytest.raises(LiveUnavailable):
        await recall.tick()
    assert gate.told == 0


async def test_one_that_comes_up_again_meanwhile_is_told_again(gate):
    ledger = Ledger(1)

    class Fleeting(Gate):
        async def remember(self, waiting: Waiting) -> None:
            await super().remember(waiting)
            self.ups += len(self.remembered) == 1

    fleeting = Fleeting()
    fleeting.told = 0
    recall = Recall(gate=fleeting, calls=ledger)
    await recall.tick()
    assert fleeting.told < fleeting.ups
    await recall.tick()
    assert (fleeting.told, len(fleeting.remembered)) == (fleeting.ups, 2)
