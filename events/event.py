"""What can happen: the catalogue of events, and one event."""

import re
import secrets
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

MAX_PAYLOAD_BYTES: Final = 64 * 1024
"""A payload's size in the journal; a larger one is cut to what `shorten` keeps."""
MAX_WHOLE_BYTES: Final = 16 * 1024 * 1024
"""A payload's size beside the journal; of a larger one nothing is kept but what `shorten` keeps."""
_REFERENCE: Final = re.compile(rb'\{"truncated":true,"whole":"([0-9a-f]{32})"[,}]')
_KEPT_TEXT: Final = 2048
_DEEPEST: Final = 200
"""Levels of nesting that a payload keeps; the writer of JSON knows 254."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Kind:
    """A row of the catalogue. `sign`: may be a sign of life. `journal`: kept for readers who come back.

    `whole`: readers get all of a payload that is too large for the journal. `about`: when it is told, for people.
    `data`: what the payload may hold, each name not always; none while nothing publishes it.
    """

    sign: bool
    journal: bool = True
    whole: bool = False
    about: str
    data: tuple[str, ...] = ()


_MADE: Final = ("name", "runtime")
_JUDGED: Final = ("name", "error_rate", "sample_error", "runtime_state")
CATALOGUE: Final[Mapping[str, Kind]] = {
    "WORKSPACE_HEARTBEAT": Kind(
        sign=True, journal=False, about="every heartbeat", data=("active_tasks", "uptime_seconds")
    ),
    "TASK_UPDATED": Kind(
        sign=True, about="what it works on has changed; empty: nothing", data=("current_task", "active_tasks")
    ),
    "ACTIVITY_LOGGED": Kind(
        sign=True,
        about="a line of its history; of a body over 64 KiB the first 2 KiB, as text",
        data=(
            *("activity_type", "method", "summary", "status", "source_id", "target_id", "duration_ms"),
            *("request_body", "response_body"),
        ),
    ),
    "AGENT_MESSAGE": Kind(
        sign=True,
        whole=True,
        about="its agent tells people something, unasked",
        data=("message", "workspace_id", "name", "attachments"),
    ),
    "A2A_RESPONSE": Kind(
        sign=True,
        whole=True,
        about="it has answered a call that no workspace made; `response_body` is the answer",
        data=("response_body", "method", "duration_ms"),
    ),
    "AGENT_EVENT": Kind(
        sign=True,
        about="an event that its agent serves itself ([feeds](feeds.md)); over 64 KiB cut short",
        data=("type", "data"),
    ),
    "CALL_ENDED": Kind(
        sign=False,
        about="any call to it has ended; `ending` is `completed` or a `code` of the README's table",
        data=("call_id", "ending", "status", "duration_ms"),
    ),
    "DELEGATION_SENT": Kind(
        sign=False,
        about="it has delegated a task to `target_id`",
        data=("delegation_id", "target_id", "task_preview"),
    ),
    "DELEGATION_STATUS": Kind(
        sign=False,
        about="a task that it has delegated was sent, or waits for a busy agent",
        data=("delegation_id", "target_id", "status"),
    ),
    "DELEGATION_COMPLETE": Kind(
        sign=False,
        about="one was answered; `via` is `queue`, `inbox` or `update` if that was not at once",
        data=("delegation_id", "target_id", "response_preview", "via"),
    ),
    "DELEGATION_FAILED": Kind(
        sign=False,
        about="one was not; `error` is a `code` of the README (a refusal's, too: `no_url`), or what was said",
        data=("delegation_id", "target_id", "error"),
    ),
    "AGENT_CARD_UPDATED": Kind(sign=True, about="its agent has a new card", data=("agent_card",)),
    "WORKSPACE_PROVISIONING": Kind(sign=False, about="it has been made, and is to be started", data=_MADE),
    "WORKSPACE_ONLINE": Kind(
        sign=True,
        about="it has been made, has registered or has recovered",
        data=(*_MADE, "url", "agent_card", *_JUDGED[1:]),
    ),
    "WORKSPACE_OFFLINE": Kind(sign=False, about="it has been silent for too long"),
    "WORKSPACE_DEGRADED": Kind(
        sign=False, about="its heartbeats tell of many errors, or that it is stuck", data=_JUDGED
    ),
    "WORKSPACE_AWAITING_AGENT": Kind(sign=False, about="it has been made, and no agent is there yet", data=_MADE),
    "WORKSPACE_PAUSED": Kind(sign=False, about="it has been paused"),
    "WORKSPACE_HIBERNATING": Kind(sign=False, about="it is being put to sleep"),
    "WORKSPACE_HIBERNATED": Kind(sign=False, about="it sleeps"),
    "WORKSPACE_REMOVED": Kind(
        sign=False,
        about="it has been removed, `cascade_deleted` others with it",
        data=("name", "cascade_deleted"),
    ),
    "WORKSPACE_PROVISION_FAILED": Kind(sign=False, about="it could not be started"),
}
"""Every event that readers may see. Whether one of a kind that may be a sign is one, its publisher says."""

GAP: Final = "GAP"
"""In the journal: something that was published before this is missing. It concerns every workspace."""
EVERYWHERE: Final = "*"
"""In the place of a workspace: all of them."""
CHANGED: Final = ".changed"
"""Not for readers: wakes the caches of every process, which then read the list of changes."""
PROBE: Final = ".probe"
"""Not for readers: published every few seconds, so that whoever does not hear one knows that it hears nothing."""


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


@dataclass(frozen=True, kw_only=True, slots=True)
class Event:
    """One happening in one workspace. `payload` is JSON of at most MAX_PAYLOAD_BYTES; `at_ms` is Unix milliseconds.

    `whole` is all of the payload where that is larger, as its publisher holds it: it travels beside the journal.
    """

    type: str
    workspace_id: str
    payload: bytes
    sign: bool = False
    at_ms: int = field(default_factory=_now_ms)
    whole: bytes | None = field(default=None, repr=False)

    @property
    def size_bytes(self) -> int:
        """What it takes while it waits for Redis."""
        return len(self.payload) + len(self.whole or b"")

    @property
    def reference(self) -> str | None:
        """The name under which all of the payload is kept, if it travels beside the journal."""
        found = _REFERENCE.match(self.payload)
        return None if found is None else found[1].decode()

    @property
    def journalled(self) -> bool:
        """Whether it is kept for readers who come back."""
        kind = CATALOGUE.get(self.type)
        return self.type == GAP or (kind is not None and kind.journal)


def event(type_: str, workspace_id: str, data: Mapping[str, Any], *, sign: bool = False) -> Event:
    """Return an event of the catalogue; raises ValueError where the catalogue does not allow it, and for no data.

    data: values may be orjson.Fragment, one line of JSON each. sign: whether the workspace itself showed life. What the
    gateway or a caller did is none, whatever the event's kind.
    """
    kind = CATALOGUE.get(type_)
    if kind is None:
        raise ValueError(f"{type_} is not in the catalogue")
    if sign and not kind.sign:
        raise ValueError(f"{type_} is never a sign of life")
    try:
        payload = orjson.dumps(data)
    except TypeError:  # what callers may send and JSON cannot say: lone surrogates, nesting without end, ...
        data = {_plain(str(name)): _plain(value) for name, value in data.items()}
        payload = orjson.dumps(data)
    if len(payload) <= MAX_PAYLOAD_BYTES:
        return Event(type=type_, workspace_id=workspace_id, payload=payload, sign=sign)
    whole = payload if kind.whole and len(payload) <= MAX_WHOLE_BYTES else None
    payload = orjson.dumps(shorten(data, reference=None if whole is None else secrets.token_hex(16)))
    return Event(type=type_, workspace_id=workspace_id, payload=payload, sign=sign, whole=whole)


def changed() -> Event:
    """Return the wake-up for the caches of every process."""
    return Event(type=CHANGED, workspace_id="-", payload=b"{}")


def probe(by: str, number: int) -> Event:
    """Return a probe of this process."""
    return Event(type=PROBE, workspace_id="-", payload=orjson.dumps({"by": by, "number": number}))


def gap(reason: str) -> Event:
    """Return the entry that stands for what could not be published, or is not in the journal any more."""
    return Event(type=GAP, workspace_id=EVERYWHERE, payload=orjson.dumps({"reason": reason}))


def shorten(data: Mapping[str, Any], *, reference: str | None = None) -> dict[str, Any]:
    """Return the payload cut to size: long values become their first 2 KB of JSON text, and `truncated` says so.

    Fields that do not fit even so are left out, the last ones first. `reference` names the whole, and stands before
    all that others may have said.
    """
    short: dict[str, Any] = {"truncated": True}
    if reference is not None:
        short["whole"] = reference
    room = MAX_PAYLOAD_BYTES - len(orjson.dumps(short))
    for name, value in data.items():
        text = value.encode() if isinstance(value, str) else orjson.dumps(value)
        kept = value if len(text) <= _KEPT_TEXT else text[:_KEPT_TEXT].decode("utf-8", "ignore")
        size = len(orjson.dumps({name: kept}))
        if size <= room and name not in short:
            room -= size
            short[name] = kept
    return short


def _plain(value: Any, depth: int = 1) -> Any:
    """Return the value as near as JSON comes to it: `?` for lone surrogates, null for what is too deep or too big."""
    match value:
        case None | bool() | float() | orjson.Fragment():
            return value
        case int():
            return value if -(2**63) <= value < 2**64 else float(value) if abs(value) < 2**1000 else None
        case Mapping() if depth < _DEEPEST:
            return {_plain(str(name)): _plain(item, depth + 1) for name, item in value.items()}
        case list() | tuple() if depth < _DEEPEST:
            return [_plain(item, depth + 1) for item in value]
        case Mapping() | list() | tuple():
            return None
        case _:
            return str(value).encode("utf-8", "replace").decode()
