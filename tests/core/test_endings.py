"""core.endings: each way to end can happen, and says what its set says of it."""

import pytest

from gateway.core.answers import Ended, classify
from gateway.core.endings import CALLED_OFF, UNDELIVERED, UNREAD, Ending
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


def ended_by(endings: frozenset[Ending]) -> list[Ended]:
    return [ended for ended in map(classify, OUTCOMES) if ended.ending in endings]


def test_every_ending_can_happen() -> None:
    assert {classify(outcome).ending for outcome in OUTCOMES} == set(Ending)


@pytest.mark.parametrize(("endings", "delivered"), [(UNDELIVERED, False), (CALLED_OFF, False), (UNREAD, True)])
def test_what_a_set_of_endings_says_of_the_message_is_so(endings: frozenset[Ending], delivered: bool) -> None:
    found = ended_by(endings)
    assert len(found) == len(endings)
    assert {ended.delivered for ended in found} == {delivered}
