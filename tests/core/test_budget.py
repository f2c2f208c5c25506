"""core.budget: whether a workspace may still spend."""

import pytest

from gateway.core.budget import Spend, exhausted, remaining
from gateway.core.prices import MILLION


@pytest.mark.parametrize(
    ("limit", "spend", "over", "left"),
    [
        (100, Spend(reported_cents=99), False, 1),
        (100, Spend(reported_cents=100), True, 0),
        (100, Spend(priced=100 * MILLION - 1), False, 1),
        (100, Spend(priced=100 * MILLION), True, 0),
        (100, Spend(priced=60 * MILLION, reported_cents=60), False, 40),
        (100, Spend(priced=250 * MILLION), True, 0),
        (0, Spend(), True, 0),
        (None, Spend(reported_cents=10**12), False, None),
    ],
)
def test_a_limit_is_reached_exactly_by_the_larger_count_and_no_limit_never_is(limit, spend, over, left) -> None:
    assert exhausted(limit, spend) is over
    assert remaining(limit, spend) == left
