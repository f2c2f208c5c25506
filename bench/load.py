"""The callers: a process that keeps a number of connections busy for a while, and tells what it saw.

Reads an Order as JSON from standard input and writes a Seen as JSON to standard output.
"""

import asyncio
import json
import re
import secrets
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import count
from time import perf_counter
from typing import Final, cast

import uvloop

from bench.message import REPLY, Requests

GRACE_S: Final = 10.0
"""How long the calls under way at the end may still take."""
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class Order:
    """What to do: keep `connections` busy for `seconds`, with one call at a time on each."""

    port: int
    path: str
    headers: dict[str, str]
    connections: int
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What came back: calls that were answered in full and as expected, in `seconds`; latencies in milliseconds."""

    calls: int
    seconds: float
    p50_ms: float
    p99_ms: float


class Unexpected(Exception):
    """An answer that is not the agent's reply, or a connection that was lost."""


class Caller(asyncio.Protocol):
    """One connection: sends a request, waits for its answer, sends the next, until told to stop."""

    _transport: asyncio.Transport

    def __init__(self, next_request: Callable[[], bytes | None], latencies_s: list[float]) -> None:
        self._next_request = next_request
        self._latencies_s = latencies_s
        self._received = b""
        self._sent_at = 0.0
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own transports do not inherit from it

    def send(self) -> None:
        request = self._next_request()
        if request is None:
            self._finish(None)
            return
        self._sent_at = perf_counter()
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        head = self._received.find(b"\r\n\r\n")
        if head < 0:
            return
        length = _LENGTH.search(self._received, 0, head + 2)
        end = head + 4 + (int(length[1]) if length else 0)
        if len(self._received) < end:
            return
        if not self._received.startswith(b"HTTP/1.1 200 ") or self._received[head + 4 :] != REPLY:
            self._finish(Unexpected(self._received[:2000].decode("utf-8", "replace")))
            return
        self._latencies_s.append(perf_counter() - self._sent_at)
        self._received = b""
        self.send()

    def connection_lost(self, exc: Exception | None) -> None:
        self._finish(Unexpected(f"the connection was lost: {exc}"))

    def _finish(self, error: Exception | None) -> None:
        if not self.done.done():
            self.done.set_exception(error) if error else self.done.set_result(None)
            self._transport.close()


async def run(order: Order) -> Seen:
    requests = Requests(host=f"127.0.0.1:{order.port}", path=order.path, headers=order.headers)
    numbers = count(secrets.randbits(120))
    latencies_s: list[float] = []
    stop_at = 0.0

    def next_request() -> bytes | None:
        return requests.get(next(numbers)) if perf_counter() < stop_at else None

    loop = asyncio.get_running_loop()
    callers = []
    for _ in range(order.connections):
        _, caller = await loop.create_connection(lambda: Caller(next_request, latencies_s), "127.0.0.1", order.port)
        callers.append(caller)
    started = perf_counter()
    stop_at = started + order.seconds
    for caller in callers:
        caller.send()
    async with asyncio.timeout(order.seconds + GRACE_S):
        await asyncio.gather(*(caller.done for caller in callers))
    took_s = perf_counter() - started
    latencies_s.sort()
    return Seen(
        calls=len(latencies_s),
        seconds=took_s,
        p50_ms=latencies_s[len(latencies_s) // 2] * 1000,
        p99_ms=latencies_s[len(latencies_s) * 99 // 100] * 1000,
    )


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        print(json.dumps(asdict(runner.run(run(Order(**json.load(sys.stdin)))))))
