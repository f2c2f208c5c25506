"""An agent that serves its own events, as the test wants it to: raw bytes on every connection, and who is connected."""

import asyncio
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

from tests.harness.listening import listening

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSED = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n"
LAST = b"0\r\n\r\n"


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def block(data: str, id_: str | None = None) -> bytes:
    """One event, as a chunk."""
    return chunk((f"id: {id_}\n" if id_ is not None else "").encode() + f"data: {data}\n\n".encode())


def refusal(status: int, *lines: bytes) -> bytes:
    head = b"HTTP/1.1 %d Odd\r\nContent-Length: 0\r\n" % status
    return head + b"".join(line + b"\r\n" for line in lines) + b"\r\n"


class Visit:
    """One connection: what was asked, and a way to answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self.line = ""
        self.headers: dict[str, str] = {}
        self.peer = writer.get_extra_info("peername")

    async def listen(self) -> None:
        head = await self._reader.readuntil(b"\r\n\r\n")
        self.line, *lines = head.decode().rstrip("\r\n").split("\r\n")
        self.headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    async def say(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    async def left(self) -> None:
        """Wait until the other side has gone."""
        with suppress(ConnectionError):
            await self._reader.read()

    @property
    def is_there(self) -> bool:
        """Whether the other side has not gone yet: also asked of the socket, as nobody may have read it."""
        if self._reader.at_eof() or self._writer.is_closing():
            return False
        opened = self._writer.get_extra_info("socket")
        try:
            with socket.socket(fileno=socket.dup(opened.fileno())) as other:
                other.setblocking(False)
                return other.recv(1, socket.MSG_PEEK) != b""
        except BlockingIOError:
            return True
        except OSError:
            return False

    def close(self) -> None:
        self._writer.close()

    def reset(self) -> None:
        self._writer.transport.abort()


Behaviour = Callable[[Visit], Awaitable[None]]


def stays(*blocks: bytes) -> Behaviour:
    """Says this, and stays until the other side goes."""

    async def behave(visit: Visit) -> None:
        await visit.say(HEAD + b"".join(blocks))
        await visit.left()

    return behave


def says(data: bytes) -> Behaviour:
    """Says this, and closes."""

    async def behave(visit: Visit) -> None:
        await visit.say(data)

    return behave


class FeedAgent:
    """Who has come, who is there, and how many there were at the same time at most."""

    def __init__(self, behave: Behaviour) -> None:
        self.url = ""
        self.behave = behave
        self.visits: list[Visit] = []
        self.most = 0
        self._there: dict[Visit, None] = {}

    @property
    def there(self) -> list[Visit]:
        return [visit for visit in self._there if visit.is_there]

    async def say(self, data: bytes) -> None:
        """Say this to whoever is there."""
        for visit in self.there:
            await visit.say(data)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visit = Visit(reader, writer)
        self._there[visit] = None
        self.most = max(self.most, len(self.there))
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                await visit.listen()
                self.visits.append(visit)
                await self.behave(visit)
        finally:
            del self._there[visit]
            visit.close()


@asynccontextmanager
async def running(behave: Behaviour | None = None, *, port: int = 0) -> AsyncIterator[FeedAgent]:
    agent = FeedAgent(behave or stays())
    async with listening(agent.serve, port=port) as found:
        agent.url = f"http://127.0.0.1:{found}/events"
        yield agent


async def main(port: int, every_s: float) -> None:
    """Serve a numbered event every so often, for ever: a process of its own, which can be killed and stopped."""

    async def count(visit: Visit) -> None:
        number = int(visit.headers.get("last-event-id") or 0)
        await visit.say(HEAD)
        while visit.is_there:
            number += 1
            await visit.say(block(str(number), str(number)))
            await asyncio.sleep(every_s)

    async with running(count, port=port) as agent:
        print(f"ready {agent.url}", flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
