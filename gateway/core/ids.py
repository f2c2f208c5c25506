"""What an id looks like, and how a new one is made."""

import re
from os import urandom
from typing import Final

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def new_id() -> str:
    """Return a fresh random UUID (RFC 9562, version 4), quicker than `uuid.uuid4`: a call makes several."""
    hexes = urandom(16).hex()
    return f"{hexes[:8]}-{hexes[8:12]}-4{hexes[13:16]}-a{hexes[17:20]}-{hexes[20:]}"


def of_line(call_id: str) -> str:
    """Return the id of the line that a pushed call has in its target's history: always the same (RFC 9562, version 8),
    whoever writes it."""
    return f"{call_id[:14]}8{call_id[15:]}"


def of_sent_line(line_id: str) -> str:
    """Return the id of that line's counterpart in the history of who called, likewise."""
    return f"{int(line_id[0], 16) ^ 8:x}{line_id[1:]}"


def is_of_line(id_: str) -> bool:
    """Return whether an id may be that of such a line: nobody else may choose one like it."""
    return id_[14] == "8"


def find_uuid(text: str) -> str | None:
    """Return the canonical (lower case, dashed) form of a UUID, or None if the text is not one."""
    return text.lower() if _UUID.fullmatch(text) else None


def is_sane_request_id(text: str) -> bool:
    """Return whether a caller's X-Request-ID may be echoed and logged as it is."""
    return _REQUEST_ID.fullmatch(text) is not None
