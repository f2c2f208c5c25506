"""How a trace goes on through the gateway (W3C Trace Context, level 1)."""

import re
import secrets
from typing import Final

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})")


def trace_id(traceparent: str) -> str:
    """Return the trace that a traceparent of ours belongs to."""
    return traceparent[3:35]


def continued(traceparent: str | None, tracestate: str | None) -> dict[str, str]:
    """Return the trace headers of what goes out: the caller's trace under a span of ours, or a new trace."""
    match = _TRACEPARENT.fullmatch(traceparent) if traceparent else None
    span = secrets.token_hex(8)
    if match is None or match[1] == "ff" or match[2] == "0" * 32 or match[3] == "0" * 16:
        return {"traceparent": f"00-{secrets.token_hex(16)}-{span}-00"}
    headers = {"traceparent": f"00-{match[2]}-{span}-{match[4]}"}
    if tracestate:
        headers["tracestate"] = tracestate
    return headers
