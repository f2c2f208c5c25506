"""What may lie in an inbox: calls that an agent can answer later, and the answers that it gives."""

from typing import Any, Final

import orjson

from gateway.core import jsontext
from gateway.core.envelope import (
    INVALID_JSON,
    INVALID_PARAMS,
    INVALID_REQUEST,
    METHOD_NOT_FOUND,
    UNSUPPORTED_OPERATION,
    BadEnvelope,
    Envelope,
    find_expiry_s,
)

MESSAGE_METHODS: Final = frozenset({"message/send", "message/stream", "SendMessage", "SendStreamingMessage"})
"""Methods of A2A 0.3 and 1.0 that carry a message, which can wait."""
OTHER_METHODS: Final = frozenset(
    {
        "tasks/get", "tasks/list", "tasks/cancel", "tasks/resubscribe", "tasks/pushNotificationConfig/set",
        "tasks/pushNotificationConfig/get", "tasks/pushNotificationConfig/list",
        "tasks/pushNotificationConfig/delete", "agent/getAuthenticatedExtendedCard",
        "GetTask", "ListTasks", "CancelTask", "SubscribeToTask", "CreateTaskPushNotificationConfig",
        "GetTaskPushNotificationConfig", "ListTaskPushNotificationConfigs", "DeleteTaskPushNotificationConfig",
        "GetExtendedAgentCard",
    }
)  # fmt: skip
"""Their other methods: questions that only an agent that listens could answer."""


def find_fault(message: Envelope) -> BadEnvelope | None:
    """Return why a call cannot wait for an agent that polls, None if it can.

    In push mode the agent itself would say so; here nobody else does, with the specification's own codes.
    """
    id_json = b"null" if message.id_json is None else message.id_json
    try:
        call = orjson.loads(message.body.removeprefix(b"\xef\xbb\xbf"))
    except orjson.JSONDecodeError:  # lone surrogates and the like: one such message would spoil all that lie beside it
        return BadEnvelope(code=INVALID_JSON, message="invalid JSON", id_json=id_json)
    if not message.method:
        return BadEnvelope(code=INVALID_REQUEST, message="method must be a string", field="method", id_json=id_json)
    if message.method in OTHER_METHODS:
        said = "the agent polls: it takes messages, and answers no other requests"
        return BadEnvelope(code=UNSUPPORTED_OPERATION, message=said, field="method", id_json=id_json)
    if message.method not in MESSAGE_METHODS:
        return BadEnvelope(code=METHOD_NOT_FOUND, message="Method not found", field="method", id_json=id_json)
    fault = _find_faulty_member(call)
    if fault is None:
        return None
    field, wrong = fault
    return BadEnvelope(code=INVALID_PARAMS, message=f"{field} {wrong}", field=field, id_json=id_json)


def _find_faulty_member(call: dict[str, Any]) -> tuple[str, str] | None:
    """The path of the member that is not as A2A, or the gateway, has it, and what it must be."""
    params = call.get("params")
    if not isinstance(params, dict):
        return "params", "must be an object"
    message = params.get("message")
    if not isinstance(message, dict):
        return "params.message", "must be an object"
    for name in ("role", "messageId"):
        if not isinstance(message.get(name), str) or not message[name]:
            return f"params.message.{name}", "must be a string that is not empty"
    parts = message.get("parts")
    if not isinstance(parts, list) or not parts or not all(isinstance(part, dict) for part in parts):
        return "params.message.parts", "must be a list of objects that is not empty"
    if params.get("expires_in_seconds") is not None and find_expiry_s(params) is None:
        return "params.expires_in_seconds", "must be a number of seconds above 0"
    return None


def is_response(said: dict[str, Any]) -> bool:
    """Return whether an object is an answer of JSON-RPC: it has a result or an error, and not both."""
    return ("result" in said) != ("error" in said) and isinstance(said.get("error", {}), dict)


def member(raw: bytes, name: str) -> bytes:
    """Return the characters of a member of an object that was parsed; of several with one name the last.

    Raises KeyError.
    """
    text = jsontext.decode(raw)
    found = [one.item for one in jsontext.members(text, jsontext.skip_space(text, 0)) if one.name.value == name]
    if not found:
        raise KeyError(name)
    return text[found[-1].start : found[-1].end].encode()


def as_response(event: bytes, id_json: bytes | None) -> bytes:
    """Return an event of an agent as a response to this request: it may be one already, or no more than its result."""
    said = orjson.loads(event)
    if isinstance(said, dict) and is_response(said):
        return under(event, id_json)
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (b"null" if id_json is None else id_json, event)


def under(answer: bytes, id_json: bytes | None) -> bytes:
    """Return a stored answer of an agent under the id of the request that it now answers; all else keeps its bytes."""
    text = jsontext.decode(answer)
    kept = [
        text[one.name.start : one.item.end]
        for one in jsontext.members(text, jsontext.skip_space(text, 0))
        if one.name.value not in ("id", "jsonrpc")
    ]
    head = b'{"jsonrpc":"2.0","id":' + (b"null" if id_json is None else id_json)
    return b",".join([head, *(one.encode() for one in kept)]) + b"}"
