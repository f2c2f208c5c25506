"""How an event looks to a browser's EventSource (WHATWG HTML, 9.2)."""

from typing import Final

import orjson

from events.frame import Frame, is_place
from events.readers import PART_BYTES

OPENING: Final = b": ok\n\n"


def retry(milliseconds: int) -> bytes:
    """Return the block that tells a browser how long to wait before it connects again."""
    return b"retry: %d\n\n" % milliseconds


def block(frame: Frame) -> bytes:
    """Return an event's block; one that is not in the journal has no id, and does not move the reader's cursor."""
    event = frame.event
    head = b"" if frame.id is None else b"id: %b\n" % frame.id.encode()
    return b'%bdata: {"type":"%b","timestamp":%d,"data":%b,"workspace_id":"%b"}\n\n' % (
        head,
        event.type.encode(),
        event.at_ms,
        event.payload,
        event.workspace_id.encode(),
    )


def parts(frame: Frame) -> list[bytes]:
    """Return an event's block in parts of PART_BYTES."""
    whole = block(frame)
    return [whole[start : start + PART_BYTES] for start in range(0, len(whole), PART_BYTES)]


def keep_alive(cursor: str | None) -> bytes:
    """Return a comment, and a bare id that moves the browser's cursor without an event."""
    return b": .\n\nid: %b\n\n" % cursor.encode() if cursor is not None and is_place(cursor) else b": .\n\n"


def gap(reason: str, since: str, until: str, resync: str) -> bytes:
    """Return the block that says: something is missing between these ids; read again at `resync`, then go on.

    Where nothing has happened yet there is no id to come back to: the reader keeps the one that it has.
    """
    shown = since.encode("utf-8", "replace").decode()  # it may be the reader's own word
    data = orjson.dumps({"reason": reason, "from": shown, "to": until, "resync": resync})
    head = b"id: %b\n" % until.encode() if is_place(until) else b""
    return b"%bevent: gap\ndata: %b\n\n" % (head, data)


def bus(state: str) -> bytes:
    """Return the block that tells how well this process hears: `ok` or `degraded`."""
    return b'event: bus\ndata: {"state":"%b"}\n\n' % state.encode()
