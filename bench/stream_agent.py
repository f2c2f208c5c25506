"""The agent behind every relay: it streams as many events a second as it is asked for, each with its time."""

import asyncio
import json
import re
import time
from typing import Final, cast

from bench.processes import serve_until_orphaned

_HEAD: Final = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
PAD: Final = "x" * 120


def event(number: int, *, last: bool) -> bytes:
    """Return an event of about 400 bytes."""
    result = {
        "kind": "status-update",
        "taskId": "task",
        "contextId": "context",
        "status": {"state": "completed" if last else "working", "message": {"role": "agent", "text": PAD}},
        "final": last,
        "metadata": {"number": number, "at": time.monotonic_ns()},
    }
    return b"data: " + json.dumps({"jsonrpc": "2.0", "id": 1, "result": result}).encode() + b"\n\n"


class Streaming(asyncio.Protocol):
    """One connection of a relay: `params` of its request say the rate, and for how many seconds."""

    _transport: asyncio.Transport

    def __init__(self) -> None:
        self._received = b""
        self._timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def data_received(self, data: bytes) -> None:
        self._received += data
        end = self._received.find(b"\r\n\r\n")
        if end < 0:
            return
        length = _LENGTH.search(self._received, 0, end)
        end += 4 + (int(length[1]) if length else 0)
        if len(self._received) < end:
            return
        body = self._received[self._received.find(b"\r\n\r\n") + 4 : end]
        self._received = self._received[end:]
        metadata = json.loads(body)["params"]["message"]["metadata"]
        self._rate, self._count = metadata["rate"], int(metadata["rate"] * metadata["seconds"])
        self._number = 0
        self._began = asyncio.get_running_loop().time() + metadata["phase"] / self._rate
        self._transport.write(_HEAD)
        self._timer = asyncio.get_running_loop().call_at(self._began, self._next)

    def _next(self) -> None:
        self._number += 1
        last = self._number >= self._count
        one = event(self._number, last=last)
        self._transport.write(b"%x\r\n%b\r\n" % (len(one), one) + (b"0\r\n\r\n" if last else b""))
        if not last:
            at = self._began + self._number / self._rate
            self._timer = asyncio.get_running_loop().call_at(at, self._next)


async def main() -> None:
    server = await asyncio.get_running_loop().create_server(Streaming, "127.0.0.1", 0, backlog=4096)
    async with server:
        await serve_until_orphaned(server.sockets[0].getsockname()[1])


if __name__ == "__main__":
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
