"""The one message that every call carries: a request of 1 KB, new each time, and the reply that is always the same."""

import json
from collections.abc import Mapping
from typing import Final
from uuid import UUID

_BODY_BYTES: Final = 1024
INPUT_TOKENS: Final = 7
OUTPUT_TOKENS: Final = 3
"""What each reply says it used."""
PRICE: Final = 100
"""Cents a million tokens, in and out."""
_MARK: Final = "00000000-0000-0000-0000-000000000000"


def _request(filler: str) -> bytes:
    message = {"kind": "message", "role": "user", "messageId": _MARK, "parts": [{"kind": "text", "text": filler}]}
    call = {"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": {"message": message}}
    return json.dumps(call, separators=(",", ":")).encode()


def _reply() -> bytes:
    message = {"kind": "message", "role": "agent", "messageId": _MARK, "parts": [{"kind": "text", "text": "echo"}]}
    usage = {"input_tokens": INPUT_TOKENS, "output_tokens": OUTPUT_TOKENS}
    answer = {"jsonrpc": "2.0", "id": "1", "result": message | {"metadata": {"usage": usage}}}
    return json.dumps(answer, separators=(",", ":")).encode()


BODY: Final = _request("x" * (_BODY_BYTES - len(_request(""))))
REPLY: Final = _reply()


class Requests:
    """HTTP/1.1 requests to one address, ready made but for the message's id."""

    def __init__(self, *, host: str, path: str, headers: Mapping[str, str]) -> None:
        lines = [f"POST {path} HTTP/1.1", f"Host: {host}", "Content-Type: application/json"]
        lines += [f"Content-Length: {len(BODY)}", *(f"{name}: {value}" for name, value in headers.items())]
        before, after = BODY.split(_MARK.encode())
        self._before = "\r\n".join([*lines, "", ""]).encode() + before
        self._after = after

    def get(self, number: int) -> bytes:
        """Return the request whose message has this number for an id (below 2**128)."""
        return b"%b%b%b" % (self._before, str(UUID(int=number)).encode(), self._after)
