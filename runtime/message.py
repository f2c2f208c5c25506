"""A2A v0.3 messages: the user's comes in through one door, the agent's goes out in one shape."""

import uuid
from dataclasses import dataclass
from typing import Self

import orjson

from runtime.jsonrpc import Code, JsonObject, RpcError

PART_BODIES = {"text": ("text", str), "file": ("file", dict), "data": ("data", dict)}


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """A user's message, checked: its text parts joined by newlines, and how its sender wants to wait.

    `original` is the message as it was sent, with `contextId` filled in. `blocking` is False only where the
    sender said so; a sender who says nothing waits for the end.
    """

    message_id: str
    text: str
    context_id: str
    task_id: str | None
    blocking: bool
    original: JsonObject

    @classmethod
    def from_params(cls, params: JsonObject) -> Self:
        """Read the params of `message/send`; raise `RpcError` that names the field which is wrong."""
        message = params.get("message")
        if not isinstance(message, dict):
            raise _invalid("params.message must be an object")
        if message.get("role") not in ("user", "agent"):
            raise _invalid('params.message.role must be "user" or "agent"')
        if not _is_writable(message):
            raise _invalid("params.message is nested too deeply")
        message_id = _text(message, "messageId", required=True)
        context_id = _text(message, "contextId") or new_id()
        configuration = params.get("configuration")
        if configuration is not None and not isinstance(configuration, dict):
            raise _invalid("params.configuration must be an object")
        blocking = (configuration or {}).get("blocking")
        if blocking is not None and not isinstance(blocking, bool):
            raise _invalid("params.configuration.blocking must be true or false")
        return cls(
            message_id=message_id or "",
            text=_read_text(message.get("parts")),
            context_id=context_id,
            task_id=_text(message, "taskId"),
            blocking=blocking is not False,
            original={**message, "kind": "message", "contextId": context_id},
        )


def agent_message(text: str, *, context_id: str, task_id: str | None = None) -> JsonObject:
    """The agent's side of the conversation, as a Message object with one text part."""
    message: JsonObject = {
        "kind": "message",
        "role": "agent",
        "messageId": new_id(),
        "contextId": context_id,
        "parts": [text_part(text)],
    }
    if task_id is not None:
        message["taskId"] = task_id
    return message


def text_part(text: str) -> JsonObject:
    """A text Part."""
    return {"kind": "text", "text": text}


def new_id() -> str:
    """A fresh UUID, as A2A ids are made here."""
    return str(uuid.uuid4())


def _read_text(parts: object) -> str:
    if not isinstance(parts, list) or not parts:
        raise _invalid("params.message.parts must be a list with at least one part")
    texts = []
    for index, part in enumerate(parts):
        kind = part.get("kind") if isinstance(part, dict) else None
        if not isinstance(kind, str) or kind not in PART_BODIES:
            raise _invalid(f"params.message.parts[{index}].kind must be one of text, file, data")
        field, shape = PART_BODIES[kind]
        if not isinstance(part.get(field), shape):
            raise _invalid(f"params.message.parts[{index}].{field} is missing or has the wrong type")
        if kind == "text":
            texts.append(part["text"])
    if not texts:
        raise RpcError(Code.CONTENT_TYPE_NOT_SUPPORTED, "this agent reads text parts, and the message has none")
    return "\n".join(texts)


def _is_writable(message: JsonObject) -> bool:
    """Whether the message can go out again in a Task's history: orjson reads deeper nesting than it writes."""
    try:
        orjson.dumps({"result": {"history": [[message]]}})
    except orjson.JSONEncodeError:
        return False
    return True


def _text(message: JsonObject, field: str, *, required: bool = False) -> str | None:
    value = message.get(field)
    if value is None and not required:
        return None
    if not isinstance(value, str) or not value:
        raise _invalid(f"params.message.{field} must be a string that is not empty")
    return value


def _invalid(sentence: str) -> RpcError:
    return RpcError(Code.INVALID_PARAMS, sentence)
