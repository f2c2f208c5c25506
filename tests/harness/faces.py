"""An agent of bytes: it hears a request and then does with its connection what the test wants, for as long as it wants.

Run as a module it is a process of its own that stops itself (SIGSTOP) after so many events: `python -m
tests.harness.faces 3`; after none, before it has answered at all.
"""

import asyncio
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

import orjson

from tests.harness.listening import listening

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"
UNTIL_CLOSED = HEAD + b"Connection: close\r\n\r\n"
LAST_CHUNK = b"0\r\n\r\n"
READY_S = 20.0


def event(number: int, *, final: bool = False, pad: int = 0) -> bytes:
    """What a task says of itself, as long as wanted."""
    result = {
        "kind": "status-update",
        "taskId": "task-1",
        "contextId": "c",
        "status": {"state": "completed" if final else "working"},
        "final": final,
        "metadata": {"n": number, "pad": "x" * pad},
    }
    return b"data: " + orjson.dumps({"jsonrpc": "2.0", "id": "1", "result": result}) + b"\n\n"


def chunk(text: bytes) -> bytes:
    """One chunk of a body that goes in chunks."""
    return b"%x\r\n%b\r\n" % (len(text), text)


class Peer:
    """One request, and the connection on which it is answered. `head` and `body` are what was asked."""

    def __init__(
        self, agent: "Faced", reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, body: bytes
    ) -> None:
        self._agent = agent
        self._reader = reader
        self._writer = writer
        self.head = head
        self.body = body

    async def say(self, *parts: bytes) -> None:
        """Write these bytes, each part by itself."""
        for part in parts:
            self._writer.write(part)
            await self._writer.drain()
            await asyncio.sleep(0)

    async def shown(self, count: int) -> None:
        """Wait until the caller has got so many events: what breaks off now does not overtake them."""
        async with asyncio.timeout(READY_S):
            while self._agent.shown < count:  # noqa: ASYNC110 - the caller counts, and sets no event
                await asyncio.sleep(0.005)

    async def stay(self) -> None:
        """Say nothing more until the other side hangs up."""
        await self._reader.read()

    @property
    def gone(self) -> bool:
        """Whether the other side has hung up."""
        return self._reader.at_eof() or self._reader.exception() is not None

    def reset(self) -> None:
        """Break the connection off: with no time to linger, a close is a reset."""
        opened = self._writer.get_extra_info("socket")
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()


Behave = Callable[[Peer], Awaitable[None]]


@dataclass
class Faced:
    """The agent: where it is, what it was asked, and how many connections it has.

    `shown`: how many of its events its caller has got, as the caller says.
    """

    url: str = ""
    asked: list[bytes] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    open: int = 0
    shown: int = 0

    def call_id(self, number: int) -> str:
        """The id under which it was asked so: by the gateway, for the whole world."""
        [line] = [line for line in self.heads[number].split(b"\r\n") if line.lower().startswith(b"x-a2a-call-id:")]
        return line.partition(b":")[2].strip().decode()

    def methods(self) -> list[str]:
        """The JSON-RPC methods that it was asked for."""
        return [orjson.loads(body).get("method", "") for body in self.asked]


@asynccontextmanager
async def running(behave: Behave) -> AsyncIterator[Faced]:
    """Answer every request so; afterwards its connection is closed."""
    agent = Faced()

    left = asyncio.Event()
    left.set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        agent.open += 1
        left.clear()
        try:
            with suppress(ConnectionError, asyncio.IncompleteReadError):
                head = await reader.readuntil(b"\r\n\r\n")
                lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
                body = await reader.readexactly(int(lengths[0].split(b":")[1]))
                agent.heads.append(head)
                agent.asked.append(body)
                await behave(Peer(agent, reader, writer, head, body))
        finally:
            agent.open -= 1
            writer.close()
            if not agent.open:
                left.set()

    async with listening(serve) as port:
        agent.url = f"http://127.0.0.1:{port}/"
        yield agent
    async with asyncio.timeout(READY_S):
        await left.wait()


@asynccontextmanager
async def stopping(after: int) -> AsyncIterator[str]:
    """Run one in a process that stops itself, and yield its url."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.harness.faces", str(after), stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(READY_S):
            yield (await process.stdout.readline()).decode().strip()
    finally:
        process.kill()  # takes those that are stopped, too
        await process.wait()


async def _main(after: int) -> None:
    async def behave(peer: Peer) -> None:
        if after:
            await peer.say(CHUNKED, *(chunk(event(number)) for number in range(1, after + 1)))
        os.kill(os.getpid(), signal.SIGSTOP)

    async with running(behave) as agent:
        print(agent.url, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
