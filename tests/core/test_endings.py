"""core.endings: each way to end can happen."""

from gateway.core.answers import classify
from gateway.core.endings import Ending
from gateway.core.outcomes import (
    Answered,
    Broke,
    Cancelled,
    Clock,
    Cut,
    Dead,
    Expired,
    Lapsed,
    NotConnected,
    Orphaned,
    Outcome,
    Parked,
    Rejected,
    Reset,
    Spent,
    Stopped,
    Streamed,
    TooLarge,
    Unheld,
)


def answered(status: int) -> Answered:
    return Answered(status=status, headers={}, body=b"{}")


OUTCOMES: list[Outcome] = [
    answered(200), answered(500), answered(429), NotConnected(), Dead(), Reset(), Cut(status=200), TooLarge(),
    Unheld(status=200), *(Expired(clock=clock) for clock in Clock), Stopped(), Spent(), Orphaned(),
    Streamed(status=200, headers={}),
    Parked(call_id="c", method="m"), Lapsed(), Rejected(reason="removed"), Cancelled(), Broke(),
]  # fmt: skip
"""One of each kind, with every clock."""


def test_every_ending_can_happen() -> None:
    assert {classify(outcome).ending for outcome in OUTCOMES} == set(Ending)
