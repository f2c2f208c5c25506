"""core.outcomes: a clock that runs out is the ending it is named after."""

import pytest

from gateway.core.answers import classify
from gateway.core.endings import Ending
from gateway.core.outcomes import Clock, Expired


@pytest.mark.parametrize("clock", Clock)
def test_a_clock_that_runs_out_causes_the_ending_of_its_name(clock: Clock) -> None:
    assert classify(Expired(clock=clock)).ending is Ending(clock)
