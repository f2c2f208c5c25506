"""What a call says: the bytes that go on to the agent, and what the gateway itself must know of them."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import orjson

from gateway.core import jsontext, repairs

INVALID_JSON: Final = -32700
INVALID_REQUEST: Final = -32600
INVALID_PARAMS: Final = -32602
METHOD_NOT_FOUND: Final = -32601
UNSUPPORTED_OPERATION: Final = -32004
CODES: Final = {
    INVALID_JSON: "invalid_json",
    INVALID_REQUEST: "invalid_request",
    INVALID_PARAMS: "invalid_params",
    METHOD_NOT_FOUND: "method_not_found",
    UNSUPPORTED_OPERATION: "unsupported_operation",
}
"""The stable code of the gateway beside each code of JSON-RPC and A2A that it makes itself."""
STREAMING_METHODS: Final = frozenset(
    {"message/stream", "tasks/resubscribe", "SendStreamingMessage", "SubscribeToTask"},  # A2A 0.3 and 1.0
)
RESUBSCRIBING_METHODS: Final = frozenset(
    {"tasks/resubscribe", "SubscribeToTask", "v1/tasks:subscribe", "tasks:subscribe"},
)
"""Those of them, and of HTTP+JSON (core/http_json.py), that ask for the rest of a stream that has begun."""
DECIDING: Final = ("jsonrpc", "id", "method", "params")
"""The members that say what an agent does; of two with one name nobody knows which one it would follow."""

_QUOTED: Final = tuple(f'"{name}"'.encode() for name in DECIDING)
_PLAIN: Final = re.compile(r"[0-9A-Za-z._:-]*")
_ESCAPED_ASCII: Final = re.compile(rb"\\u00[2-7]")
_PASCAL_CASE: Final = re.compile(r"[A-Z][0-9A-Za-z]*")
_BEFORE_ID: Final = re.compile(rb'"id"[ \t\n\r]*:[ \t\n\r]*')
DIGEST_BYTES: Final = 16


@dataclass(frozen=True, kw_only=True, slots=True)
class Envelope:
    """A call that may go on.

    `body`: the very object that was received if nothing was mended. `id_json`: the id's characters, None if there is
    no id. `method`, `message_id`: None if they are no text that can be encoded; an empty message id counts as none.
    `client_message_id`: whether the caller chose it. `expires_in_s`: seconds the call may wait, None if not bounded.
    `digest`: of all that was received but the characters of the id; b"" unless the caller chose the message id.
    """

    body: bytes
    method: str | None
    id_json: bytes | None
    message_id: str | None
    client_message_id: bool
    streaming: bool
    expires_in_s: float | None
    v1: bool
    digest: bytes = b""


@dataclass(frozen=True, kw_only=True, slots=True)
class BadEnvelope:
    """A call that must not go on.

    `code`: of JSON-RPC. `message`: a sentence. `field`: path of the member at fault. `id_json`: the id's characters.
    """

    code: int
    message: str
    field: str | None = None
    id_json: bytes = b"null"


def error_body(bad: BadEnvelope) -> bytes:
    """Return the answer: a JSON-RPC error response, which A2A clients can read, with our stable `code` beside `error`.

    `{"jsonrpc", "id", "error": {"code", "message", "data": {"field"?}}, "code"}`; the id keeps its characters.
    """
    data = {} if bad.field is None else {"field": bad.field}
    error = orjson.dumps({"code": bad.code, "message": bad.message, "data": data})
    return b'{"jsonrpc":"2.0","id":%b,"error":%b,"code":"%b"}' % (bad.id_json, error, CODES[bad.code].encode())


def find_id(body: bytes) -> bytes | None:
    """Return the characters of the id of a call that has been let in before; None if it has none."""
    found = normalise(body, a2a_version=None, mint=str)
    return found.id_json


def is_v1(method: str | None, a2a_version: str | None) -> bool:
    """Return whether a call is one of A2A 1.0: by its header of that name, or by how its method is written."""
    return (a2a_version or "").strip().startswith("1") or _PASCAL_CASE.fullmatch(method or "") is not None


def cancel_body(task_id: str, *, v1: bool, call_id: str) -> bytes:
    """Return the request that calls off a task, in the words of A2A 1.0 or of those before."""
    method = "CancelTask" if v1 else "tasks/cancel"
    return orjson.dumps({"jsonrpc": "2.0", "id": call_id, "method": method, "params": {"id": task_id}})


def normalise(raw: bytes, *, a2a_version: str | None, mint: Callable[[], str]) -> Envelope | BadEnvelope:
    """Return what the body says, mended if it has to be, or why it must not go on. Never raises; takes linear time.

    `a2a_version` is the header of that name; `mint` returns a fresh id.
    """
    try:
        call = jsontext.parse(raw)
    except jsontext.Unparsable:
        return BadEnvelope(code=INVALID_JSON, message="invalid JSON")
    if not isinstance(call, dict):
        return BadEnvelope(code=INVALID_REQUEST, message="the body must be a JSON object; batches are not supported")
    if _is_plain(raw, call):
        id_json = orjson.dumps(call["id"]) if "id" in call else None
        rest = raw if id_json is None else _without_plain_id(raw, len(id_json))
    else:
        text = jsontext.decode(raw)
        twice, span = _look_closely(text)
        if twice is not None:
            return BadEnvelope(code=INVALID_REQUEST, message=f"{twice} occurs twice", field=twice)
        id_json = None if span is None else text[span.start : span.end].encode()
        rest = raw if span is None else (text[: span.start] + text[span.end :]).encode()
    if "jsonrpc" not in call and "method" not in call:
        return _refuse(INVALID_REQUEST, "there is neither jsonrpc nor method", "method", id_json)
    return _weigh(raw, rest, call, id_json, a2a_version, mint)


def _weigh(
    raw: bytes,
    rest: bytes,
    call: dict[str, Any],
    id_json: bytes | None,
    a2a_version: str | None,
    mint: Callable[[], str],
) -> Envelope | BadEnvelope:
    params = call.get("params")
    message = params.get("message") if isinstance(params, dict) else None
    method = _find_text(call, "method")
    message_id = _find_text(message, "messageId") or None
    v1 = is_v1(method, a2a_version)
    mended = repairs.UNTOUCHED
    if not v1:
        if isinstance(message, dict) and (fault := repairs.find_fault(message)) is not None:
            field = f"params.message.{fault}"
            return _refuse(INVALID_PARAMS, f"{field} is missing or empty", field, id_json)
        mended = repairs.mend(raw, call, mint)
    return Envelope(
        body=raw if mended.body is None else mended.body,
        method=method,
        id_json=id_json if mended.id is None else orjson.dumps(mended.id),
        message_id=message_id or mended.message_id,
        client_message_id=message_id is not None,
        streaming=method in STREAMING_METHODS,
        expires_in_s=find_expiry_s(params),
        v1=v1,
        digest=b"" if message_id is None else blake2b(rest, digest_size=DIGEST_BYTES).digest(),
    )


def _is_plain(raw: bytes, call: dict[str, Any]) -> bool:
    """Return whether it shows without a scan that no deciding member occurs twice, and how the id was written.

    The name of a deciding member, and an id of plain characters, can be written in another way only with escapes.
    """
    jsonrpc, id_, method, params = _QUOTED
    if raw.count(jsonrpc) > 1 or raw.count(id_) > 1 or raw.count(method) > 1 or raw.count(params) > 1:
        return False
    if b"\\u00" in raw and _ESCAPED_ASCII.search(raw):
        return False
    match call.get("id"):
        case str(text):
            return _PLAIN.fullmatch(text) is not None
        case None | True | False:
            return True
        case int(number):
            return number != 0  # or minus zero
        case _:
            return False


def _without_plain_id(raw: bytes, id_bytes: int) -> bytes:
    """Return a plain body without the characters of its id, which are so many."""
    found = _BEFORE_ID.search(raw)
    return raw if found is None else raw[: found.end()] + raw[found.end() + id_bytes :]


def _look_closely(text: str) -> tuple[str | None, jsontext.Span | None]:
    """Return the deciding member that occurs twice, if one does, and where the id stands, if there is one."""
    found: dict[str, jsontext.Span] = {}
    for name, item in jsontext.members(text, jsontext.skip_space(text, 0)):
        for deciding in DECIDING:
            if name.value == deciding:
                if deciding in found:
                    return deciding, None
                found[deciding] = item
    return None, found.get("id")


def _refuse(code: int, message: str, field: str, id_json: bytes | None) -> BadEnvelope:
    return BadEnvelope(code=code, message=message, field=field, id_json=b"null" if id_json is None else id_json)


def _find_text(holder: object, name: str) -> str | None:
    """Return the member if it is a text without lone surrogates, which nothing behind us could encode."""
    value = holder.get(name) if isinstance(holder, dict) else None
    if not isinstance(value, str):
        return None
    try:
        value.encode()
    except UnicodeEncodeError:
        return None
    return value


def find_expiry_s(params: object) -> float | None:
    """Return the seconds for which a call with these params may wait, None if they do not say so."""
    value = params.get("expires_in_seconds") if isinstance(params, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 < value < math.inf else None
