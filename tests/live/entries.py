"""Calls that want to begin, as the gate is told of them."""

from dataclasses import replace
from uuid import uuid4

from gateway.core.journey import Journey
from gateway.core.rates import Rate
from gateway.live.gate import Gate
from gateway.ports import Budget, Entry, Left
from tests.harness.world import until

A, B, C = (f"00000000-0000-4000-8000-00000000000{name}" for name in "abc")
HOUR = Rate(requests=10, period_s=3600.0)
CENT = 1_000_000
JOURNEY = Journey(replica="one", idle_s=300.0, limit_s=60.0, by_deadline=False, sent_bytes=12)


class _Any(float):
    """Equal to every number."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, float)

    __hash__ = float.__hash__


ANY = _Any()


def call(caller: str | None, target: str, *, trace: str = "t", **fields: object) -> Entry:
    entry = Entry(
        payer="somebody", rate=None, call_id=str(uuid4()), caller_id=caller, target_id=target, trace_id=trace,
        method="message/send", held=True, serves=None, limit_s=None, budget=None,
    )  # fmt: skip
    return replace(entry, **fields)


def budget(limit: int, *, priced: int = 0, reported: int = 0, reserve: int = CENT, month: str = "2026-11") -> Budget:
    return Budget(month=month, limit=limit, priced=priced, reported=reported, reserve=reserve)


def ended(entry: Entry, cost: int = 0) -> Left:
    month = entry.budget.month if entry.budget is not None else ""
    return Left(call_id=entry.call_id, target_id=entry.target_id, trace_id=entry.trace_id, month=month, cost=cost)


async def eventually_enters(gate: Gate, entry: Entry) -> None:
    await until(lambda: gate.enter(entry), lambda entered: entered.barred is None)
