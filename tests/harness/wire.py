"""The wire in a loop whose time is virtual: what `net/dispatch` asks of its HTTP client, and agents that do as told."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from aiohttp import ClientPayloadError, ConnectionTimeoutError, ServerDisconnectedError

HEADERS: Final[Mapping[str, str]] = {"Content-Type": "application/json"}


class Way(Enum):
    """What an agent does last."""

    ANSWER = "answer"
    REFUSE = "refuse"
    """No connection is made, however often it is tried."""
    RESET = "reset"
    CUT = "cut"
    SILENCE = "silence"


@dataclass(frozen=True, kw_only=True, slots=True)
class Script:
    """What an agent does with a call. Times are seconds after it was sent: until it is connected, until its answer
    begins, and between the pieces of that."""

    way: Way
    connect_s: float = 0.0
    begin_s: float = 0.0
    piece_s: float = 0.0
    pieces: int = 1
    status: int = 200
    body: bytes = b'{"jsonrpc":"2.0","id":"1","result":{}}'


class Wire:
    """Stands for aiohttp's session. `open`: connections that are; `closed_at`: when that of each call was closed."""

    def __init__(self, scripts: Mapping[str, Script], now: Callable[[], float]) -> None:
        self._scripts = scripts
        self._now = now
        self.open = 0
        self.closed_at: dict[str, float] = {}
        self.sent: list[str] = []

    def request(self, _: object, __: object, *, headers: Mapping[str, str], **___: object) -> "_Exchange":
        call_id = headers["X-A2A-Call-ID"]
        return _Exchange(self, call_id, self._scripts[call_id])

    def opened(self, call_id: str) -> None:
        self.open += 1
        self.sent.append(call_id)

    def closed(self, call_id: str) -> None:
        self.open -= 1
        self.closed_at[call_id] = self._now()


class _Exchange:
    """One request and its answer."""

    def __init__(self, wire: Wire, call_id: str, script: Script) -> None:
        self._wire = wire
        self._call_id = call_id
        self._script = script
        self._left = False
        self.status = script.status
        self.headers = HEADERS
        self.content = self

    async def __aenter__(self) -> "_Exchange":
        script = self._script
        await asyncio.sleep(script.connect_s)
        if script.way is Way.REFUSE:
            raise ConnectionTimeoutError("refused")
        self._wire.opened(self._call_id)
        try:
            await asyncio.sleep(script.begin_s)
            if script.way is Way.RESET:
                raise ServerDisconnectedError
            if script.way is Way.SILENCE and not script.pieces:
                await asyncio.Event().wait()
        except BaseException:
            self.close()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        if not self._left:
            self._left = True
            self._wire.closed(self._call_id)

    async def iter_any(self) -> AsyncIterator[bytes]:
        script = self._script
        size = -(-len(script.body) // max(1, script.pieces))
        for number in range(script.pieces):
            await asyncio.sleep(script.piece_s)
            yield script.body[number * size : (number + 1) * size]
        if script.way is Way.CUT:
            raise ClientPayloadError
        if script.way is Way.SILENCE:
            await asyncio.Event().wait()


def session(wire: Wire) -> Any:
    """The wire as the dispatcher takes it."""
    return wire
