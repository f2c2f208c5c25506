"""How many clients may be connected to this process, and what those over it hear."""

import asyncio
import sys
from collections.abc import Callable
from typing import Final, cast

import orjson

from gateway.core.answers import JSON
from gateway.core.ids import new_id
from gateway.core.refusals import Code, Refusal
from gateway.web.guard import SECURITY_HEADERS, SERVER
from gateway.web.refusals import STATUS

RETRY_S: Final = 2
TOLD_AT_ONCE: Final = 64
"""Those over the limit who are told so at the same time; who comes beside them is cut off without a word."""
LINGER_S: Final = 1.0
"""How long one is listened to: a connection that is closed with bytes unread takes its answer back."""


class Doorway:
    """Counts who is connected. elsewhere: how many connections are looked after by others, beside those that entered.

    `turned_away`: how many have come too many.
    """

    def __init__(self, *, limit: int | None = None, elsewhere: Callable[[], int] = lambda: 0) -> None:
        self.limit = sys.maxsize if limit is None else limit
        self._elsewhere = elsewhere
        self._inside = 0
        self.telling = 0
        self.turned_away = 0

    def __repr__(self) -> str:
        return f"<Doorway open={self.open} of {self.limit}>"

    @property
    def open(self) -> int:
        """Clients that are connected."""
        return self._inside + self._elsewhere()

    @property
    def is_full(self) -> bool:
        """Whether nobody else may come."""
        return self.open >= self.limit

    def enter(self) -> None:
        """Count one in."""
        self._inside += 1

    def leave(self) -> None:
        """Count one out."""
        self._inside -= 1


class TurnedAway(asyncio.Protocol):
    """The protocol of a client that comes when all places are taken: it is told to come back, and let go."""

    _transport: asyncio.Transport

    def __init__(self, doorway: Doorway) -> None:
        self._doorway = doorway
        self._told = False
        self._end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Wait a moment for its request."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own do not inherit from it
        self._doorway.turned_away += 1
        self._doorway.telling += 1
        if self._doorway.telling > TOLD_AT_ONCE:
            self._transport.abort()
        else:
            self._end = asyncio.get_running_loop().call_later(LINGER_S, self._transport.abort)

    def data_received(self, data: bytes) -> None:
        """Answer, once, whatever it asks for."""
        if not self._told:
            self._told = True
            self._transport.write(answer())
            self._transport.write_eof()

    def connection_lost(self, exc: Exception | None) -> None:
        """Make room for the next one."""
        self._doorway.telling -= 1
        if self._end is not None:
            self._end.cancel()


def answer() -> bytes:
    """Return the whole answer for somebody who came too many."""
    refused = Refusal(Code.OVERLOADED, "too many connections", retry_after_s=RETRY_S)
    body = orjson.dumps(refused.to_json())
    status = STATUS[refused.code]
    headers = {
        **SECURITY_HEADERS,
        "Server": SERVER,
        "Content-Type": JSON,
        "Content-Length": str(len(body)),
        "Retry-After": str(RETRY_S),
        "X-Request-ID": new_id(),
        "Connection": "close",
    }
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body
