"""core.backoff: ever longer, never past the bound, never less than half, however long an outage lasts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.app import bus
from gateway.core import feeds
from gateway.core.backoff import Backoff
from gateway.core.retry import STEEPEST, backoff_s
from gateway.live import pipe
from gateway.services import loops

BACKOFFS = st.builds(Backoff, first_s=st.floats(0.01, 60), growth=st.floats(1, 16), most_s=st.floats(60, 3600))
OURS = {"feeds": feeds.BACKOFF, "loops": loops.RESTART, "bus": bus.RETRY, "pipe": pipe.RETRY}


def test_waits_grow_up_to_the_longest() -> None:
    one = Backoff(first_s=1.0, growth=1.5, most_s=3.0)
    assert [one.after_s(failures, 1.0) for failures in (1, 2, 3, 4, 5)] == [1.0, 1.5, 2.25, 3.0, 3.0]


@given(BACKOFFS, st.integers(1, 10**9), st.floats(0, 1))
def test_a_wait_is_within_its_bounds_and_never_shorter_than_the_one_before(
    one: Backoff, failures: int, chance: float
) -> None:
    wait_s = one.after_s(failures, chance)
    assert one.first_s / 2 <= wait_s <= one.most_s
    assert wait_s <= one.after_s(failures + 1, chance)
    assert one.after_s(failures, 0.0) * 2 == pytest.approx(one.after_s(failures, 1.0))


@pytest.mark.parametrize("name", OURS)
def test_whoever_waits_comes_to_the_longest_wait_and_stays_there(name: str) -> None:
    one = OURS[name]
    assert one.after_s(1, 1.0) == one.first_s
    assert {one.after_s(failures, 1.0) for failures in (50, 2000, 10**7)} == {one.most_s}


@given(st.floats(0.01, 60), st.integers(1, 10**6))
def test_a_call_that_waits_comes_to_thirty_two_times_its_first_wait(first_s: float, times: int) -> None:
    assert backoff_s(first_s, times, 1.0) == first_s * 2 ** min(times - 1, STEEPEST)
