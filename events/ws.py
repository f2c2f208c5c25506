"""How an event looks on a WebSocket: one text frame of JSON an event (RFC 6455, 5.2)."""

from datetime import UTC, datetime

import orjson

from events.frame import Frame, is_place


def message(frame: Frame) -> bytes:
    """Return an event's WebSocket frame."""
    event = frame.event
    at = datetime.fromtimestamp(event.at_ms / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    shown: dict[str, object] = {
        "event": event.type,
        "workspace_id": event.workspace_id,
        "timestamp": at,
        "payload": orjson.Fragment(event.payload),
        "id": frame.id,
    }
    return text(orjson.dumps(shown))


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
    """Return a whole text frame, unmasked as a server's are."""
    length = len(payload)
    if length < 126:
        return b"\x81" + length.to_bytes(1, "big") + payload
    if length < 65536:
        return b"\x81\x7e" + length.to_bytes(2, "big") + payload
    return b"\x81\x7f" + length.to_bytes(8, "big") + payload
