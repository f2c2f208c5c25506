"""The readers: a process that holds thousands of event streams, publishes, and tells when the last of them has heard.

It takes orders (`processes.serve_orders`), the methods of Hall; times are in milliseconds where their names say so,
and seconds of the monotonic clock, which is the same in all processes, where they are moments.
"""

import asyncio
import resource
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, Final, cast

import orjson
import uvloop

from bench.processes import serve_orders
from events import event, redis
from events.bus import LinkDown

GRACE_S: Final = 30.0
"""How long readers may take to hear what is due."""
AT_ONCE: Final = 500
"""Connections that are being opened at one time."""
MARK: Final = b'"bench":'
"""What every published event has once, near its end."""
_STATE: Final = b'event: bus\ndata: {"state":"'
_SEGMENT_BYTES: Final = 1400
_MUTE_BUFFER_BYTES: Final = 4096


@dataclass(frozen=True, kw_only=True)
class Target:
    """Whose streams are read, and where is published: a journal in Redis, or a path (nchan)."""

    port: int
    path: str
    headers: Mapping[str, str] = field(default_factory=dict)
    redis_url: str = ""
    prefix: str = ""
    workspace_id: str = ""
    publish_path: str = ""


class Reader(asyncio.Protocol):
    """One stream. `mute`: it reads nothing once it is open."""

    transport: asyncio.Transport

    def __init__(self, hall: "Hall", *, mute: bool) -> None:
        self._hall = hall
        self._mute = mute
        self._tail = b""
        self.began_at = time.monotonic()
        self.heard_at = 0.0
        self.opened = False
        self.heard = 0
        self.last_id = ""
        self.state = ""
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's own transports do not inherit from it
        self.transport.write(self._hall.request)

    def data_received(self, data: bytes) -> None:
        data = self._tail + data
        if not self.opened:
            if not data.startswith(b"HTTP/1.1 200 ") or b"\r\n\r\n" not in data:
                self._tail = data
                return
            self.opened = True
            if self._mute:
                self.transport.pause_reading()
        marks = data.count(MARK)
        if marks:
            self.heard += marks
            self._hall.heard += marks
            self.heard_at = time.monotonic()
            at = data.rfind(b"\nid: ", 0, data.rfind(MARK))
            if at >= 0:
                self.last_id = data[at + 5 : data.index(b"\n", at + 5)].decode()
        state = data.rfind(_STATE)
        if state >= 0:
            self.state = data[state + len(_STATE) :].partition(b'"')[0].decode()
            self.heard_at = time.monotonic()
        self._tail = data[-len(MARK) + 1 :] if not data.endswith(b"\n") else b""
        self._hall.stir()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = True
        self._hall.stir()


class Hall:
    """All readers of one target."""

    def __init__(self, target: Target, publish: Callable[[int, int], Awaitable[None]], request: str) -> None:
        self._target = target
        self._publish = publish
        self._head = request
        self._readers: list[Reader] = []
        self._mute: list[Reader] = []
        self._stirred = asyncio.Event()
        self.request = b""
        self.heard = 0

    def stir(self) -> None:
        """Have those who wait look again."""
        self._stirred.set()

    async def open(self, *, count: int, mute: int = 0, seconds: float = 0.0, since: str = "", due: int = 0) -> Any:
        """Open streams, spread over these seconds; return how long they took until each had heard what is due to it."""
        self.request = (self._head + (f"Last-Event-ID: {since}\r\n" if since else "") + "\r\n").encode()
        gate, began = asyncio.Semaphore(AT_ONCE), time.monotonic()
        readers = [Reader(self, mute=False) for _ in range(count)]
        mutes = [Reader(self, mute=True) for _ in range(mute)]

        async def connect(number: int, reader: Reader) -> None:
            await asyncio.sleep(began + seconds * number / count - time.monotonic())
            async with gate:
                await self._connect(reader, mute=number >= count)

        await asyncio.gather(*(connect(number, reader) for number, reader in enumerate(readers + mutes)))
        self._readers += readers
        self._mute += mutes
        await self._until(lambda: all(one.opened and one.heard >= due for one in readers + mutes))
        return summary([(one.heard_at - one.began_at) * 1000 for one in readers] if due else [0.0])

    async def _connect(self, reader: Reader, *, mute: bool) -> None:
        raw = socket.socket()
        raw.setblocking(False)
        raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, _SEGMENT_BYTES)  # as over a network
        if mute:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _MUTE_BUFFER_BYTES)
        reader.began_at = time.monotonic()
        loop = asyncio.get_running_loop()
        await loop.sock_connect(raw, ("127.0.0.1", self._target.port))
        await loop.create_connection(lambda: reader, sock=raw)

    async def publish(self, *, times: int, size: int, every_s: float = 0.0, batch: int = 1) -> Any:
        """Publish, one batch after another is heard by all who read; return how long the last byte of each took."""
        took_ms, began = [], time.monotonic()
        for number in range(times):
            await asyncio.sleep(max(0.0, began + number * every_s - time.monotonic()))
            before, due = [one.heard for one in self._readers], self.heard + batch * len(self._readers)
            at = time.monotonic()
            await self._publish(size, batch)
            if self._readers:
                await self._until(lambda due=due: self.heard >= due)  # type: ignore[misc]
                if [one.heard for one in self._readers] != [many + batch for many in before]:
                    raise AssertionError("not every reader has heard every event once")
                took_ms.append((max(one.heard_at for one in self._readers) - at) * 1000)
        return summary(took_ms or [0.0]) | {"seconds": time.monotonic() - began}

    async def state(self, *, wanted: str) -> Any:
        """Wait until all have been told of this state of the bus; return the moments when the first and last were."""
        await self._until(lambda: all(one.state == wanted for one in self._readers))
        moments = [one.heard_at for one in self._readers]
        return {"first": min(moments), "last": max(moments)}

    async def standing(self) -> Any:
        """Return the newest id that was heard, and how many streams were lost."""
        newest = max((one.last_id for one in self._readers), default="")
        return {"id": newest, "lost": sum(one.lost for one in self._readers)}

    async def drop(self) -> Any:
        """Break all connections."""
        for one in self._readers + self._mute:
            one.transport.abort()
        self._readers, self._mute = [], []
        return {}

    async def _until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(GRACE_S):
            while not done():
                self._stirred.clear()
                await self._stirred.wait()


def summary(values: list[float]) -> dict[str, float]:
    """Return the median, the 99th of a hundred, and the greatest."""
    ranked = sorted(values)
    return {"p50": ranked[len(ranked) // 2], "p99": ranked[len(ranked) * 99 // 100], "most": ranked[-1]}


def payload(size: int) -> dict[str, str | int]:
    """Return what is published: JSON of this many bytes."""
    empty = {"summary": "", "bench": 1}
    return {"summary": "x" * (size - len(orjson.dumps(empty))), "bench": 1}


@asynccontextmanager
async def journal(target: Target) -> AsyncIterator[Callable[[int, int], Awaitable[None]]]:
    """Publish on the bus, as another replica of the gateway would."""
    async with redis.opened(target.redis_url, prefix=target.prefix, journal_length=20_000) as link:
        sequence = 0

        async def publish(size: int, batch: int) -> None:
            nonlocal sequence
            one = event.event("ACTIVITY_LOGGED", target.workspace_id, payload(size))
            try:
                await link.send([one] * batch, sequence)
            except LinkDown:  # it was away since the last time; the same numbers again count once
                await link.send([one] * batch, sequence)
            sequence += batch

        yield publish


@asynccontextmanager
async def poster(target: Target) -> AsyncIterator[Callable[[int, int], Awaitable[None]]]:
    """Publish by POST requests."""
    reader, writer = await asyncio.open_connection("127.0.0.1", target.port)

    async def publish(size: int, batch: int) -> None:
        body = orjson.dumps(payload(size))
        for _ in range(batch):
            head = f"POST {target.publish_path} HTTP/1.1\r\nHost: bench\r\nContent-Length: {len(body)}\r\n\r\n"
            writer.write(head.encode() + body)
            answer = await reader.readuntil(b"\r\n\r\n")
            length = answer.lower().partition(b"content-length: ")[2].partition(b"\r")[0]
            await reader.readexactly(int(length or 0))

    try:
        yield publish
    finally:
        writer.close()


async def main() -> None:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    async with AsyncExitStack() as stack:
        halls: list[Hall] = []

        async def target(**fields: Any) -> Any:
            one = Target(**fields)
            publish = await stack.enter_async_context(poster(one) if one.publish_path else journal(one))
            head = [f"GET {one.path} HTTP/1.1", "Host: bench", "Accept: text/event-stream"]
            head += [f"{name}: {value}" for name, value in one.headers.items()]
            halls[:] = [Hall(one, publish, "\r\n".join([*head, ""]))]
            return {}

        async def obey(do: str, **words: Any) -> Any:
            return await (target(**words) if do == "target" else getattr(halls[0], do)(**words))

        await serve_orders(obey)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
