"""How a v0.x call that agents do not read is mended, in its text, so that the rest of it keeps every character."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson

from gateway.core import jsontext
from gateway.core.jsontext import Member, Span

_KINDS: Final = ("text", "file", "data")


@dataclass(frozen=True, kw_only=True, slots=True)
class Mended:
    """The bytes of a mended call, None if nothing had to be mended, and the ids that were minted for it."""

    body: bytes | None = None
    id: str | None = None
    message_id: str | None = None


UNTOUCHED: Final = Mended()


def find_fault(message: dict[str, Any]) -> str | None:
    """Return the member because of which the message says nothing and cannot be mended, or None.

    `content` if there is one and it is neither a text nor a list with something in it, `parts` if there is neither.
    """
    if message.get("parts") is not None:
        return None
    if "content" in message:
        content = message["content"]
        return None if isinstance(content, str | list) and content else "content"
    return None if "parts" in message else "parts"


def mend(raw: bytes, call: dict[str, Any], mint: Callable[[], str]) -> Mended:
    """Return the call with an envelope, and with a message that has an id and parts which say their kind.

    `call` is what `raw` means; it has a member, and its message, if it has one, is without a fault. White space
    between the members of what is mended is not kept.
    """
    params = call.get("params")
    message = params.get("message") if isinstance(params, dict) else None
    unsound = message if isinstance(message, dict) and not _is_sound(message) else None
    is_bare = "jsonrpc" not in call
    if not is_bare and unsound is None:
        return UNTOUCHED
    text = jsontext.decode(raw)
    request_id = message_id = None
    if is_bare:
        request_id = None if "id" in call else mint()
        text = _wrap(text, request_id)
    if unsound is not None:
        message_id = None if "messageId" in unsound else mint()
        text = _mend_message(text, message_id)
    return Mended(body=text.encode(), id=request_id, message_id=message_id)


def _is_sound(message: dict[str, Any]) -> bool:
    if "messageId" not in message or "content" in message:
        return False
    parts = message.get("parts")
    return not isinstance(parts, list) or not any(_is_untagged(part) for part in parts)


def _wrap(text: str, request_id: str | None) -> str:
    at = jsontext.skip_space(text, 0) + 1
    own_id = "" if request_id is None else f'"id":{_json(request_id)},'
    return f'{text[:at]}"jsonrpc":"2.0",{own_id}{text[at:]}'


def _mend_message(text: str, message_id: str | None) -> str:
    params = _get(text, jsontext.skip_space(text, 0), "params")
    message = _get(text, params.item.start, "message").item
    return text[: message.start] + _message(text, message, message_id) + text[message.end :]


def _get(text: str, start: int, name: str) -> Member:
    """Return the member of this name that counts: the last."""
    *_, found = (member for member in jsontext.members(text, start) if member.name.value == name)
    return found


def _written(text: str, member: Member) -> str:
    return text[member.name.start : member.item.end]


def _message(text: str, message: Span, message_id: str | None) -> str:
    members = list(jsontext.members(text, message.start))
    last = {member.name.value: member for member in members}
    content, parts = last.get("content"), last.get("parts")
    means_content = content is not None and (parts is None or parts.item.value is None)
    kept = [] if message_id is None else [f'"messageId":{_json(message_id)}']
    for member in members:
        if member is content and means_content:
            kept.append('"parts":' + _content(text, member.item))
        elif member is parts and not means_content:
            kept.append('"parts":' + _parts(text, member.item))
        elif member.name.value != "content" and not (member.name.value == "parts" and means_content):
            kept.append(_written(text, member))
    return f"{{{','.join(kept)}}}"


def _content(text: str, content: Span) -> str:
    """Return the parts that a v0.2 content stands for."""
    if isinstance(content.value, str):
        return f"[{_text_part(text, content)}]"
    parts = [
        _text_part(text, one) if isinstance(one.value, str) else _part(text, one)
        for one in jsontext.elements(text, content.start)
    ]
    return f"[{','.join(parts)}]"


def _parts(text: str, parts: Span) -> str:
    if not isinstance(parts.value, list):
        return text[parts.start : parts.end]
    return f"[{','.join(_part(text, one) for one in jsontext.elements(text, parts.start))}]"


def _text_part(text: str, string: Span) -> str:
    return f'{{"kind":"text","text":{text[string.start : string.end]}}}'


def _part(text: str, part: Span) -> str:
    """Return the part with its kind: the one it calls `type`, else the one that its members show."""
    if not isinstance(part.value, dict) or not _is_untagged(part.value):
        return text[part.start : part.end]
    if isinstance(part.value.get("type"), str):
        called = _get(text, part.start, "type").item
        kept = [_written(text, one) for one in jsontext.members(text, part.start) if one.name.value != "type"]
        return "{" + ",".join(['"kind":' + text[called.start : called.end], *kept]) + "}"
    kind = next(kind for kind in _KINDS if kind in part.value)
    return f'{{"kind":"{kind}",{text[part.start + 1 : part.end]}'


def _is_untagged(part: object) -> bool:
    if not isinstance(part, dict) or "kind" in part:
        return False
    return isinstance(part.get("type"), str) or any(kind in part for kind in _KINDS)


def _json(text: str) -> str:
    return orjson.dumps(text).decode()
