"""A client that sends and reads as slowly as the test wants it to."""

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from tests.harness.world import ADMIN_TOKEN


class RawClient:
    """A connection of bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, sent: bytes) -> None:
        """Write, as fast as it is taken; whoever has gone away meanwhile is not told."""
        try:
            self.writer.write(sent)
            await self.writer.drain()
        except ConnectionError:
            pass

    @property
    def has_heard(self) -> bool:
        """Whether anything has come that is not read yet, or the end."""
        unread: bytearray = self.reader._buffer  # type: ignore[attr-defined]
        return bool(unread) or self.reader.at_eof() or self.writer.is_closing()

    async def rest(self, within_s: float = 15.0) -> bytes:
        """Return all that comes before the end, which must come within this time."""
        came = bytearray()
        async with asyncio.timeout(within_s):
            try:
                while chunk := await self.reader.read(65536):
                    came += chunk
            except ConnectionError:
                pass
        return bytes(came)

    async def until(self, what: bytes, within_s: float = 15.0) -> bytes:
        """Return what comes up to these bytes."""
        async with asyncio.timeout(within_s):
            return await self.reader.readuntil(what)

    async def ended(self, within_s: float) -> bool:
        """Whether the other end closes within this time, whatever it says before."""
        try:
            await self.rest(within_s)
        except TimeoutError:
            return False
        return True


@asynccontextmanager
async def connected(url: str, *, narrow: bool = False) -> AsyncIterator[RawClient]:
    """Connect. A narrow one has next to no room for what it does not read."""
    parts = urlsplit(url)
    one = socket.socket()
    one.setblocking(False)
    if narrow:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    await asyncio.get_running_loop().sock_connect(one, (parts.hostname, parts.port))
    reader, writer = await asyncio.open_connection(sock=one, limit=4096 if narrow else 2**20)
    try:
        yield RawClient(reader, writer)
    finally:
        writer.transport.abort()


def head(method: str, path: str, *lines: str, token: str = ADMIN_TOKEN) -> bytes:
    """The head of a request, as the operator unless a token says otherwise."""
    first = (f"{method} {path} HTTP/1.1", "Host: gateway", f"Authorization: Bearer {token}")
    return "\r\n".join((*first, *lines)).encode() + b"\r\n\r\n"
