"""What people see of a body: parsed, safe to write, and cut when long or deep."""

import json
from typing import Any, Final

import orjson

from gateway.core import jsontext

VIEW_BYTES: Final = 64 * 1024
"""A longer body is shown as the beginning of its text, and not parsed: that would hold up everybody else."""
VIEW_DEPTH: Final = 200
"""A body nested deeper is shown as text, too: orjson reads 1024 levels and writes 254, some of them around the view."""
_KEPT_BYTES: Final = 2048


def parse(body: bytes) -> Any:
    """Return the JSON value in a body, None if there is none or it is too long to look at."""
    if not body or len(body) > VIEW_BYTES:
        return None
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        return _parse_loosely(body)


def _parse_loosely(body: bytes) -> Any:
    """What orjson refuses and the grammar allows: lone surrogates, which become question marks here."""
    try:
        text = json.dumps(json.loads(body, parse_int=float, parse_constant=lambda _: None), ensure_ascii=False)
        return orjson.loads(text.encode("utf-8", "replace"))
    except (ValueError, RecursionError):
        return None


def whole(body: bytes) -> bytes:
    """Return a body as one line of JSON: its own text, numbers and escapes untouched, or a string of what is no JSON.

    Takes some milliseconds a megabyte.
    """
    try:
        orjson.loads(body)
    except orjson.JSONDecodeError:
        if not _is_json(body):
            return orjson.dumps(body.decode("utf-8", "replace"))
    return body.replace(b"\r", b" ").replace(b"\n", b" ")  # in JSON text they are space between values alone


def _is_json(body: bytes) -> bool:
    """What the grammar allows though orjson does not."""
    try:
        json.loads(body.decode(), parse_int=float, parse_constant=_no_json)
    except (ValueError, RecursionError):
        return False
    return True


def _no_json(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def view(body: bytes, parsed: Any) -> Any:
    """Return what is shown of a body; `parsed` is what `parse` made of it."""
    if not body:
        return None
    if len(body) > VIEW_BYTES or parsed is None or jsontext.is_deeper(body, VIEW_DEPTH):
        shown: dict[str, Any] = {"text": body[:_KEPT_BYTES].decode("utf-8", "replace")}
        if len(body) > _KEPT_BYTES:
            shown["truncated"] = True
        return shown
    return parsed
