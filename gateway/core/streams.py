"""What the events of an agent's stream say: whose task it is, whether all has been said; and how a stream is ended."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

import orjson

from gateway.core import http_json, inbox, jsontext, usage, views
from gateway.core.answers import Answer, Ended
from gateway.core.causes import RETRIABLE
from gateway.core.claims import address_event, address_events
from gateway.core.endings import Ending
from gateway.core.refusals import Code, Refusal
from gateway.core.usage import Usage

MEDIA_TYPE: Final = "text/event-stream"
STATUS_TOLD_IN_BAND: Final = frozenset({502, 503, 504})
"""Answers of ours that a streaming caller gets as an event: clients of streams lose the body of any other answer ..."""
CODES_TOLD_IN_BAND: Final[Mapping[Code, int]] = {
    Code.UNSAFE_URL: 502,
    Code.NO_URL: 503,
    Code.INBOX_FULL: 503,
    Code.OVERLOADED: 503,
    Code.DRAINING: 503,
    Code.INTERRUPTED: 503,
    Code.PLATFORM_UNAVAILABLE: 503,
}
"""... and the refusals that have such a status, once it is known who calls."""
SERVER_ERROR: Final = -32000
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


def farewell(
    answer: Answer, ending: str, *, call_id: str, last: int, resumable: bool = True, plain: bool = False
) -> bytes:
    """Return what the last event of a stream says that has not completed: a JSON-RPC error, without its id.

    answer: what a caller of the same call would have got that does not stream. last: the number of the event before.
    resumable: whether its journal has it all, as far as is known. plain: as HTTP+JSON has it, without JSON-RPC.
    """
    fields = _members(answer.body)
    sentence = fields.pop("error", None)
    retriable = ending in _RETRIABLE and not last
    fields.pop("busy", None)  # the code says it, of who is
    if not retriable:
        fields.pop("retry_after", None)
    if last:
        fields["delivery_confirmed"] = True
    data = {
        **fields,
        "code": ending,
        "http_status": int(answer.status),
        "retriable": retriable,
        "call_id": call_id,
        "last_event_id": event_id(call_id, last) if last else None,
    }
    if not resumable:
        data["resumable"] = False
    message = sentence if isinstance(sentence, str) else f"the stream has ended: {ending}"
    if plain:
        return http_json.error(answer.status, message, data)
    return orjson.dumps({"code": SERVER_ERROR, "message": message, "data": data})


def failure(
    code: str, sentence: str, *, call_id: str, last: int, retriable: bool = False, plain: bool = False
) -> bytes:
    """Return what the last event says to a reader who cannot have the rest here, though there may be one.

    retriable: who asks for it once more may get it. plain: as HTTP+JSON has it, without JSON-RPC.
    """
    data = {
        "code": code,
        "retriable": retriable,
        "call_id": call_id,
        "last_event_id": event_id(call_id, last) if last else None,
    }
    if plain:
        return http_json.error(HTTPStatus.SERVICE_UNAVAILABLE, sentence, data)
    return orjson.dumps({"code": SERVER_ERROR, "message": sentence, "data": data})


_RETRIABLE: Final = frozenset(ending.value for ending in RETRIABLE) | (
    {code.value for code in CODES_TOLD_IN_BAND} - {Code.INTERRUPTED.value}
)
"""What a program may send again without asking anybody, if no event of a stream has come."""


def error_event(error: bytes, id_json: bytes | None, *, plain: bool = False) -> bytes:
    """Return the event of a JSON-RPC error, or of one of HTTP+JSON, which has no id."""
    if plain:
        return http_json.error_event(error)
    return b'data: {"jsonrpc":"2.0","id":%b,"error":%b}\n\n' % (id_json or b"null", error)


def in_band(answer: Answer, *, call_id: str, id_json: bytes | None) -> Answer:
    """Return the answer to a streaming method as an event, where its client would lose it otherwise."""
    if answer.status not in STATUS_TOLD_IN_BAND:
        return answer
    said = _members(answer.body)
    if "jsonrpc" in said or not isinstance(said.get("code"), str):  # the agent's own, for whoever speaks its language
        return answer
    error = farewell(answer, said["code"], call_id=call_id, last=0)
    kept = {name: value for name, value in answer.headers.items() if name != "Content-Type"}
    return Answer(
        status=200,
        body=error_event(error, id_json),
        headers={**kept, "Content-Type": MEDIA_TYPE},
        call_id=answer.call_id,
    )


def refused_in_band(refused: Refusal, *, call_id: str, id_json: bytes | None) -> Answer:
    """Return a refusal with one of CODES_TOLD_IN_BAND as an event.

    call_id: of the call that was asked for, unless the refusal is about an earlier one.
    """
    status = CODES_TOLD_IN_BAND[refused.code]
    earlier = refused.fields.get("call_id")
    headers = {} if refused.retry_after_s is None else {"Retry-After": str(refused.retry_after_s)}
    answer = Answer(status=status, body=orjson.dumps(refused.to_json()), headers=headers, call_id=earlier)
    return in_band(answer, call_id=earlier or call_id, id_json=id_json)


def of_answer(answer: Answer, ending: str, *, call_id: str, id_json: bytes | None) -> bytes:
    """Return the events that an answer is to a caller that streams: its own, if it is a stream, or one."""
    if answer.status < HTTPStatus.MULTIPLE_CHOICES:
        if is_stream(answer.headers):
            return address(answer.body, id_json)
        return address(b"data: %b\n\n" % views.whole(answer.body), id_json)
    return error_event(farewell(answer, ending, call_id=call_id, last=0), id_json)


def of_event(event: bytes, id_json: bytes | None) -> bytes:
    """Return what an agent that polls has said of its work, as an event of its caller's stream."""
    return b"data: %b\n\n" % views.whole(inbox.as_response(event, id_json))


def place_comment(place: int) -> bytes:
    """Return what a caller that waits is told of its place in the queue: a comment, for an event would have to be an
    agent's."""
    return b": place %d\n" % place


def says_no(answer: Answer) -> bool:
    """Return whether an agent that was asked for the rest of a task's stream cannot give it: it does not know the task
    or the method, or is not there."""
    if answer.status in STATUS_SAYS_NO or is_no(answer.body):
        return True
    return answer.status in STATUS_TOLD_IN_BAND and _members(answer.body).get("code") in _NOT_THERE


def is_no(data: bytes) -> bool:
    """Return whether an answer says that its agent does not know the task, or cannot do that."""
    said = {} if len(data) > READ_BYTES or jsontext.is_crowded(data) else _members(data)
    error = said.get("error")
    return (isinstance(error, dict) and error.get("code") in _ERRORS_SAY_NO) or http_json.is_no(said)


STATUS_SAYS_NO: Final = frozenset({404, 405, 501})
_ERRORS_SAY_NO: Final = frozenset({-32601, -32001, -32004, -32009})
"""Method not found, task not found, unsupported operation, version not supported."""
_NOT_THERE: Final = frozenset(
    ending.value
    for ending in (
        Ending.AGENT_ERROR,
        Ending.AGENT_BUSY,
        Ending.AGENT_UNREACHABLE,
        Ending.AGENT_RESTARTING,
        Ending.AGENT_RESET,
        Ending.FIRST_BYTE_TIMEOUT,
        Ending.IDLE_TIMEOUT,
        Ending.TRUNCATED,
    )
)


def find_task(body: bytes) -> str | None:
    """Return the task that a request is about, None if it names none."""
    params = None if len(body) > READ_BYTES or jsontext.is_crowded(body) else _members(body).get("params")
    named = params.get("id", params.get("name")) if isinstance(params, dict) else None
    if not isinstance(named, str):
        return None
    task_id = named.removeprefix("tasks/")
    return task_id if 0 < len(task_id) <= TASK_ID_CHARS else None


def is_one_language(method: str, other: str) -> bool:
    """Return whether the events of both methods look the same: before A2A 1.0 they have slashes, and those of HTTP+JSON
    have colons."""
    return ("/" in method) == ("/" in other) and (":" in method) == (":" in other)


def _members(body: bytes) -> dict[str, Any]:
    """The members of an answer of ours; none of what is no object."""
    said: Any = None
    with suppress(orjson.JSONDecodeError):
        said = orjson.loads(body)
    return said if isinstance(said, dict) else {}


def of_ended(ended: Ended, *, call_id: str, last: int, resumable: bool = True, plain: bool = False) -> bytes | None:
    """Return the farewell of a stream that has come to this end; None: it has completed."""
    if ended.ending is Ending.COMPLETED:
        return None
    return farewell(ended.answer, ended.ending.value, call_id=call_id, last=last, resumable=resumable, plain=plain)
