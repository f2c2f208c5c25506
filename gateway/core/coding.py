"""Bodies that come compressed (RFC 9110, 8.4.1), unfolded no further than they may be."""

import zlib
from typing import Final

from gateway.core.refusals import Code, Refusal

RATIO: Final = 100
"""How much longer a body may become: JSON becomes twenty times as long at most, zeros a thousand times."""
FREE_BYTES: Final = 64 * 1024
"""What may come of any body, however short it was."""
_GZIP: Final = 16 + zlib.MAX_WBITS


def unfold(received: bytes, coding: str, *, limit_bytes: int) -> bytes:
    """Return what a body says; `coding` is its Content-Encoding.

    Refuses a coding that is neither gzip nor deflate, what is longer than `limit_bytes` or than its ratio, and what is
    broken. No more is unfolded than may be: what is refused costs no more than what is taken.
    """
    name = coding.strip().lower()
    if name in ("", "identity") or not received:
        return received
    if name in ("gzip", "x-gzip"):
        window = _GZIP
    elif name == "deflate":  # with the header that it must have, or without, as many send it
        window = zlib.MAX_WBITS if received[0] & 0x0F == zlib.DEFLATED else -zlib.MAX_WBITS
    else:
        raise Refusal(Code.UNKNOWN_CODING, "Content-Encoding must be gzip or deflate, if anything")
    limit_bytes = min(limit_bytes, max(FREE_BYTES, RATIO * len(received)))
    stream = zlib.decompressobj(window)
    try:
        unfolded = stream.decompress(received, limit_bytes + 1)
    except zlib.error:
        raise _broken() from None
    if len(unfolded) > limit_bytes:
        raise Refusal(Code.TOO_LARGE, f"the body unfolds to more than {limit_bytes} bytes")
    if not stream.eof or stream.unused_data:
        raise _broken()
    return unfolded


def _broken() -> Refusal:
    return Refusal(Code.INVALID_REQUEST, "the body is not encoded as its headers say")
