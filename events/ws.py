"""How an event looks on a WebSocket: one text frame of JSON an event (RFC 6455, 5.2)."""

from datetime import UTC, datetime
from typing import Final

import orjson

from events.frame import Frame, is_place
from events.readers import PART_BYTES

_CONTINUATION: Final = 0x0
_TEXT: Final = 0x1
_FINAL: Final = 0x80


def message(frame: Frame) -> bytes:
    """Return an event's WebSocket frame."""
    return text(_shown(frame))


def parts(frame: Frame) -> list[bytes]:
    """Return an event's message in fragments of PART_BYTES, between which others' pings may go (RFC 6455, 5.4)."""
    whole = _shown(frame)
    starts = range(0, len(whole), PART_BYTES)
    return [
        _frame(
            (_TEXT if start == 0 else _CONTINUATION) | (_FINAL if start == starts[-1] else 0),
            whole[start : start + PART_BYTES],
        )
        for start in starts
    ]


def _shown(frame: Frame) -> bytes:
    event = frame.event
    at = datetime.fromtimestamp(event.at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    shown: dict[str, object] = {
        "event": event.type,
        "workspace_id": event.workspace_id,
        "timestamp": at,
        "payload": orjson.Fragment(event.payload),
        "id": frame.id,
    }
    return orjson.dumps(shown)


def gap(reason: str, since: str, until: str, resync: str) -> bytes:
    """Return the frame that says: something is missing between these ids; read again at `resync`, then go on."""
    shown = since.encode("utf-8", "replace").decode()  # it may be the reader's own word
    payload = {"reason": reason, "from": shown, "to": until, "resync": resync}
    id_ = until if is_place(until) else None
    return text(orjson.dumps({"event": "gap", "payload": payload, "id": id_}))


def bus(state: str) -> bytes:
    """Return the frame that tells how well this process hears: `ok` or `degraded`."""
    return text(orjson.dumps({"event": "bus", "payload": {"state": state}}))


def text(payload: bytes) -> bytes:
    """Return a whole text frame."""
    return _frame(_FINAL | _TEXT, payload)


def _frame(first: int, payload: bytes) -> bytes:
    """Return a frame, unmasked as a server's are; `first` is its flags and opcode."""
    length = len(payload)
    if length < 126:
        return bytes((first, length)) + payload
    if length < 65536:
        return bytes((first, 126)) + length.to_bytes(2, "big") + payload
    return bytes((first, 127)) + length.to_bytes(8, "big") + payload
