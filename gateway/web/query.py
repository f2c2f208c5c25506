"""What stands behind the question mark: each value checked once, and shown in /openapi.json as it is checked."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from aiohttp import web

from gateway.core.activity import TYPES
from gateway.core.ids import find_uuid
from gateway.core.queue import Place, find_place
from gateway.core.refusals import bad_field
from gateway.ports import Filters

Schema = Mapping[str, Any]

MAX_ROWS: Final = 500
DEFAULT_ROWS: Final = 100
MAX_SINCE_S: Final = 30 * 86400.0
MAX_MESSAGES: Final = 50
DEFAULT_MESSAGES: Final = 10
DEFAULT_WAIT_S: Final = 25.0

MAX_CALLS: Final = 100
DEFAULT_CALLS: Final = 50

_NUMBER: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_UUID: Final[Schema] = {"type": "string", "format": "uuid"}

HISTORY: Final[Mapping[str, Schema]] = {
    "type": {"type": "string", "enum": list(TYPES)},
    "source": {"type": "string", "enum": ["canvas", "agent"]},
    "peer_id": _UUID,
    "since_id": _UUID,
    "since_secs": {"type": "number", "exclusiveMinimum": 0},
    "before_ts": {"type": "string", "format": "date-time"},
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_ROWS},
}
INBOX: Final[Mapping[str, Schema]] = {
    "wait": {
        "type": "number",
        "minimum": 0,
        "default": DEFAULT_WAIT_S,
        "description": "Seconds to wait for a message where there is none; 0: not at all.",
    },
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_MESSAGES, "default": DEFAULT_MESSAGES},
}
BACKLOG: Final[Mapping[str, Schema]] = {
    "after": {"type": "string", "description": "Where the last answer ended: its `next`."},
    "limit": {"type": "integer", "minimum": 1, "maximum": MAX_CALLS, "default": DEFAULT_CALLS},
}
STALE: Final[Mapping[str, Schema]] = {
    "stale_secs": {
        "type": "number",
        "minimum": 0,
        "description": "Calls that came longer ago than so many seconds; must be there. 0: all that wait.",
    },
}


def filters(request: web.Request) -> Filters:
    """Return which rows of a history are asked for; refuses the value that says nothing, by its name."""
    return Filters(
        activity_type=_one_of(request, "type", TYPES),
        by_people={None: None, "canvas": True, "agent": False}[_one_of(request, "source", ("canvas", "agent"))],
        peer_id=_uuid(request, "peer_id"),
        since_s=_since_s(request),
        before=_time(request, "before_ts"),
        limit=_count(request, "limit", default=DEFAULT_ROWS, most=MAX_ROWS),
    )


def since_id(request: web.Request) -> str | None:
    """Return the row after which somebody wants to read."""
    return _uuid(request, "since_id")


def wait_s(request: web.Request) -> float:
    """Return for how long somebody would wait."""
    said = request.query.get("wait")
    if said is None:
        return DEFAULT_WAIT_S
    if _NUMBER.fullmatch(said) is None:
        raise bad_field("wait", "must be a number of seconds, 0 or more")
    return float(said)


def messages(request: web.Request) -> int:
    """Return how many messages somebody takes at once."""
    return _count(request, "limit", default=DEFAULT_MESSAGES, most=MAX_MESSAGES)


def after(request: web.Request) -> Place | None:
    """Return the place in a queue after which somebody wants to read."""
    said = request.query.get("after")
    if said is None:
        return None
    found = find_place(said)
    if found is None:
        raise bad_field("after", "must be what `next` of the last answer said")
    return found


def calls(request: web.Request) -> int:
    """Return how many calls of a queue somebody reads at once."""
    return _count(request, "limit", default=DEFAULT_CALLS, most=MAX_CALLS)


def stale_s(request: web.Request) -> float:
    """Return since when calls count as stale; refuses who does not say it, for that ends them."""
    said = request.query.get("stale_secs")
    if said is None or _NUMBER.fullmatch(said) is None:
        raise bad_field("stale_secs", "must be a number of seconds, 0 or more")
    return float(said)


def _one_of(request: web.Request, name: str, words: tuple[str, ...]) -> str | None:
    said = request.query.get(name)
    if said is not None and said not in words:
        raise bad_field(name, f"must be one of {', '.join(words)}")
    return said


def _uuid(request: web.Request, name: str) -> str | None:
    said = request.query.get(name)
    if said is None:
        return None
    found = find_uuid(said)
    if found is None:
        raise bad_field(name, "must be a UUID")
    return found


def _count(request: web.Request, name: str, *, default: int, most: int) -> int:
    """More than may be had is not refused: who asks for it gets as many as there may be."""
    said = request.query.get(name)
    if said is None:
        return default
    if not (said.isascii() and said.isdigit()) or len(said) > 9 or int(said) == 0:
        raise bad_field(name, "must be a whole number above 0")
    return min(int(said), most)


def _since_s(request: web.Request) -> float | None:
    said = request.query.get("since_secs")
    if said is None:
        return None
    if _NUMBER.fullmatch(said) is None or float(said) == 0:
        raise bad_field("since_secs", "must be a number of seconds above 0")
    return min(float(said), MAX_SINCE_S)


def _time(request: web.Request, name: str) -> datetime | None:
    said = request.query.get(name)
    if said is None:
        return None
    try:
        at = datetime.fromisoformat(said)
        return at.astimezone(UTC) if at.tzinfo is not None else at.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # PostgreSQL knows no offset beyond 16 hours, and no time before the year 1
        raise bad_field(name, "must be a time as RFC 3339 writes it") from None
