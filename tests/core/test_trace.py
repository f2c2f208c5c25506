"""core.trace: how a trace goes on through the gateway."""

import re

import pytest

from gateway.core.trace import continued

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"


def test_the_callers_trace_goes_on_under_a_span_of_ours() -> None:
    headers = continued(f"00-{TRACE}-{SPAN}-01", "vendor=1")
    assert re.fullmatch(rf"00-{TRACE}-(?!{SPAN})[0-9a-f]{{16}}-01", headers["traceparent"])
    assert headers["tracestate"] == "vendor=1"


@pytest.mark.parametrize(
    "header", [None, "", "junk", f"ff-{TRACE}-{SPAN}-01", f"00-{'0' * 32}-{SPAN}-01", f"00-{TRACE}-{'0' * 16}-01"]
)
def test_without_a_sound_one_a_new_trace_begins(header: str | None) -> None:
    headers = continued(header, "vendor=1")
    assert re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-00", headers["traceparent"])
    assert TRACE not in headers["traceparent"]
    assert "tracestate" not in headers
