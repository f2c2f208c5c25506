"""runtime.backoff: longer each time, never the same, never without end."""

from itertools import islice

from hypothesis import given
from hypothesis import strategies as st

from runtime.backoff import pauses


def test_pauses_double_until_the_most():
    assert list(islice(pauses(first_s=1, most_s=5, jitter=lambda: 1), 5)) == [1, 2, 4, 5, 5]


def test_half_of_a_pause_is_chance():
    assert list(islice(pauses(first_s=1, most_s=5, jitter=lambda: 0), 3)) == [0.5, 1, 2]


@given(first_s=st.floats(0.001, 100), most_s=st.floats(0.001, 100))
def test_no_pause_is_longer_than_the_most_or_shorter_than_half_the_smaller_bound(first_s, most_s):
    for pause_s in islice(pauses(first_s=first_s, most_s=most_s), 20):
        assert min(first_s, most_s) / 2 <= pause_s <= most_s
