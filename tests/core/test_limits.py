"""core.limits: how long a call may take in all."""

import pytest

from gateway.core.limits import Limit, decide_limit, read_timeout, read_wait
from gateway.core.refusals import Refusal

DAY = 86400.0


@pytest.mark.parametrize(
    ("wanted_s", "by_workspace", "limit"),
    [
        (None, False, Limit(seconds=None)),
        (None, True, Limit(seconds=1800)),
        (0, False, Limit(seconds=None)),
        (0, True, Limit(seconds=21600)),
        (2, False, Limit(seconds=2, by_deadline=True)),
        (2, True, Limit(seconds=2, by_deadline=True)),
        (DAY, False, Limit(seconds=DAY, by_deadline=True)),
        (DAY, True, Limit(seconds=21600)),
    ],
)
def test_the_table_of_limits(wanted_s: float | None, by_workspace: bool, limit: Limit) -> None:
    assert decide_limit(wanted_s, by_workspace=by_workspace, ceiling_s=1800, max_s=21600) == limit


def test_the_header_is_a_number_of_seconds() -> None:
    assert read_timeout(None) is None
    assert read_timeout("2.5") == 2.5
    assert read_timeout("0") == 0


@pytest.mark.parametrize("header", ["", "soon", "-1", "nan", "inf", "1e999"])
def test_what_is_no_time_is_refused_by_name(header: str) -> None:
    with pytest.raises(Refusal, match="X-Timeout"):
        read_timeout(header)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, 0), ("", 0), ("wait=10", 10), ("respond-async, wait=10", 10), ('Wait = "7"; x=1, handling=lenient', 7),
        ("wait", 0), ("wait=soon", 0), ("wait=-1", 0), ("x-wait=9", 0), ("wait=1.5", 0), ("a; wait=9", 0),
        ("wait=9999999999", 0),
    ],
)  # fmt: skip
def test_a_preference_that_says_nothing_of_waiting_is_ignored(header: str | None, seconds: float) -> None:
    assert read_wait(header) == seconds
