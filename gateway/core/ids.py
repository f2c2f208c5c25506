"""What an id looks like, and how a new one is made."""

import re
from typing import Final
from uuid import uuid4

_UUID: Final = re.compile(r"[0-9a-fA-F]{8}-(?:[0-9a-fA-F]{4}-){3}[0-9a-fA-F]{12}")
_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def new_id() -> str:
    """Return a fresh UUID."""
    return str(uuid4())


def find_uuid(text: str) -> str | None:
    """Return the canonical (lower case, dashed) form of a UUID, or None if the text is not one."""
    return text.lower() if _UUID.fullmatch(text) else None


def is_sane_request_id(text: str) -> bool:
    """Return whether a caller's X-Request-ID may be echoed and logged as it is."""
    return _REQUEST_ID.fullmatch(text) is not None
