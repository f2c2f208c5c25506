"""The readers of the streams, in a process of their own: how many events came, and how late each was."""

import asyncio
import json
import re
import time
from collections.abc import Mapping
from typing import Any, Final, cast

import uvloop

from bench.processes import serve_orders

_AT: Final = re.compile(rb'"at": (\d+)\}')
TAKES_S: Final = 20.0
"""How much longer than planned a round may take."""


class Reader(asyncio.Protocol):
    """One stream, until its last event."""

    _transport: asyncio.Transport

    def __init__(self, request: bytes, late_ns: list[int]) -> None:
        self._request = request
        self._late_ns = late_ns
        self._tail = b""
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        data = self._tail + data
        at = 0
        for match in _AT.finditer(data):
            self._late_ns.append(now - int(match[1]))
            at = match.end()
        self._tail = data[max(at, len(data) - 64) :]
        if b'"final": true' in data:
            self._transport.close()
            if not self.done.done():
                self.done.set_result(True)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.done.set_result(False)


def _request(path: str, headers: Mapping[str, str], metadata: Mapping[str, float]) -> bytes:
    message = {"role": "user", "parts": [{"kind": "text", "text": "go"}], "metadata": metadata}
    body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "message/stream", "params": {"message": message}}).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: bench", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def obey(
    do: str, port: int, path: str, headers: Mapping[str, str], streams: int, rate: float, seconds: float
) -> dict[str, Any]:
    """Read so many streams of so many events a second each; return how many came, and how late (ms)."""
    assert do == "read"
    loop, late_ns = asyncio.get_running_loop(), list[int]()
    readers = []
    for number in range(streams):
        metadata = {"rate": rate, "seconds": seconds, "phase": number / streams}
        request = _request(path, headers, metadata)
        _, reader = await loop.create_connection(lambda request=request: Reader(request, late_ns), "127.0.0.1", port)
        readers.append(reader)
    done, _ = await asyncio.wait([one.done for one in readers], timeout=seconds + TAKES_S)
    late_ns.sort()
    count = len(late_ns)
    return {
        "events": count,
        "wanted": streams * int(rate * seconds),
        "whole": sum(one.result() for one in done),
        "p50_ms": late_ns[count // 2] / 1e6 if count else None,
        "p99_ms": late_ns[min(count - 1, int(count * 0.99))] / 1e6 if count else None,
        "most_ms": late_ns[-1] / 1e6 if count else None,
    }


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(serve_orders(obey))
