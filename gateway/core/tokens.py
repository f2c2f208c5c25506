"""What a token is: 32 random bytes, known to us by their hash alone."""

import hashlib
import secrets
from dataclasses import dataclass, field
from typing import Final

MAX_LIVE: Final = 50
"""Live tokens of one workspace, or of the organisation."""
PREFIX_CHARS: Final = 8
"""How much of a token people may see to tell it from others."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Minted:
    """A fresh token: the text goes to its owner once, the hash and prefix are kept."""

    text: str = field(repr=False)
    hash: bytes = field(repr=False)
    prefix: str


def hash_token(text: str) -> bytes:
    """Return the SHA-256 under which a token is looked up."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def mint() -> Minted:
    """Return a new random token."""
    text = secrets.token_urlsafe(32)
    return Minted(text=text, hash=hash_token(text), prefix=text[:PREFIX_CHARS])
