"""What the events of an agent's stream say: whose task it is, whether all has been said; and the ids they get."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson

from gateway.core import inbox, jsontext, usage, views
from gateway.core.claims import address_event, address_events
from gateway.core.usage import Usage

MEDIA_TYPE: Final = "text/event-stream"
SHORT_BYTES: Final = 64 * 1024
"""What is read without a look at what it is made of: it takes less than a millisecond whatever that is."""
READ_BYTES: Final = 1024 * 1024
"""A longer event is not read on its way: that would hold up everybody else."""
OVER: Final = frozenset({"completed", "canceled", "cancelled", "failed", "rejected"})
WAITING: Final = frozenset({"input-required", "auth-required"})
"""States of a task after which its stream may end: it is over, or it is somebody else's turn."""
TASK_ID_CHARS: Final = 256


UNUSED: Final = Usage()


@dataclass(frozen=True, kw_only=True, slots=True)
class Said:
    """What one event says. `last`: its stream may end with it; `for_now`: unless its task is taken up again, which
    `goes_on` says. `task_id`: None if it names no task."""

    last: bool = False
    for_now: bool = False
    goes_on: bool = False
    task_id: str | None = None
    usage: Usage = UNUSED


NOTHING: Final = Said()


def begins(status: int, headers: Mapping[str, str]) -> bool:
    """Return whether an answer that begins so is a stream that can be passed on: some have no content (RFC 9110, 15.3),
    and what a stream is ended with would be taken for the next answer on the caller's connection."""
    return status < HTTPStatus.MULTIPLE_CHOICES and status not in _WITHOUT_CONTENT and is_stream(headers)


_WITHOUT_CONTENT: Final = frozenset({HTTPStatus.NO_CONTENT, HTTPStatus.RESET_CONTENT})


def is_stream(headers: Mapping[str, str]) -> bool:
    """Return whether an answer with these headers is an event stream, whatever its caller accepts."""
    return headers.get("Content-Type", "").partition(";")[0].strip().lower() == MEDIA_TYPE


def read(data: bytes, *, long: bool = False) -> Said:
    """Read the data of an event: a JSON-RPC response of A2A 0.2, 0.3 or 1.0, or what would be its result.

    long: though it is longer than an event that is read on its way.
    """
    if (len(data) > READ_BYTES and not long) or (len(data) > SHORT_BYTES and jsontext.is_crowded(data)):
        return NOTHING
    said: Any = None
    with suppress(orjson.JSONDecodeError):
        said = orjson.loads(data)
    if not isinstance(said, dict):
        return NOTHING
    if said.get("error") is not None and said.get("result") is None:
        return Said(last=True, usage=usage.read(said))
    result = said.get("result", said)
    if not isinstance(result, dict):
        return NOTHING
    kind, one = _unfold(result)
    used = UNUSED
    if b"usage" in data:
        used = usage.read(said if one is result and "result" in said else {"result": one})
    task_id = one.get("id" if kind == "task" else "taskId")
    if not isinstance(task_id, str) or not 0 < len(task_id) <= TASK_ID_CHARS:
        task_id = None
    state = _state(one) if kind in _WITH_STATE else ""
    over = kind == "message" or one.get("final") is True or state in OVER
    waits = state in WAITING
    return Said(
        last=over or waits,
        for_now=waits and not over,
        goes_on=bool(state) and not (over or waits),
        task_id=task_id,
        usage=used,
    )


_V1: Final = {
    "message": "message",
    "msg": "message",  # in HTTP+JSON of A2A 0.3
    "task": "task",
    "statusUpdate": "status-update",
    "artifactUpdate": "artifact",
}
_WITH_STATE: Final = frozenset({"task", "status-update"})


def _unfold(result: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The kind of a result, and what it is: A2A 1.0 says it by the name of a member, those before by `kind`."""
    kind = result.get("kind")
    if isinstance(kind, str):
        return kind, result
    for name, meant in _V1.items():
        one = result.get(name)
        if isinstance(one, dict):
            return meant, one
    return "", result


def _state(one: dict[str, Any]) -> str:
    """The state of a task, as all versions write it."""
    status = one.get("status")
    state = status.get("state") if isinstance(status, dict) else None
    return state.lower().removeprefix("task_state_").replace("_", "-") if isinstance(state, str) else ""


def address(raw: bytes, id_json: bytes | None) -> bytes:
    """Return an event under another JSON-RPC id, or all those of an answer that is kept whole."""
    if b'"jsonrpc"' not in raw:
        return raw
    return address_events(raw, id_json)


def address_one(raw: bytes, id_json: bytes | None) -> bytes:
    """Return one event, or a comment, under another JSON-RPC id: for each of its readers, who may be many."""
    return address_event(raw, id_json) if b'"jsonrpc"' in raw else raw


def event_id(call_id: str, number: int) -> str:
    """Return the id of an event, by which its stream is resumed."""
    return f"{call_id}-{number}"


def find_number(call_id: str, id_: str | None) -> int | None:
    """Return the number in the id of an event of this call; 0, before the first, without one; None: it is none."""
    if not id_:
        return 0
    head, _, number = id_.rpartition("-")
    if head != call_id or not (number.isascii() and number.isdigit()) or len(number) > _DIGITS:
        return None
    return int(number)


_DIGITS: Final = 15


def numbered(raw: bytes, call_id: str, number: int) -> bytes:
    """Return an event as readers get it: its id before its first line."""
    return b"id: %b-%d\n%b" % (call_id.encode(), number, raw)


def of_event(event: bytes, id_json: bytes | None) -> bytes:
    """Return what an agent that polls has said of its work, as an event of its caller's stream."""
    return b"data: %b\n\n" % views.whole(inbox.as_response(event, id_json))


def place_comment(place: int) -> bytes:
    """Return what a caller that waits is told of its place in the queue: a comment, for an event would have to be an
    agent's."""
    return b": place %d\n" % place
