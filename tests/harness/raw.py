"""Bytes instead of HTTP: an agent that cuts, resets and lies as the test wants it to, and a client that does."""

import asyncio
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit

from tests.harness.listening import listening

ANSWER_S = 15.0
"""The longest that any answer may take to come to its end."""


@asynccontextmanager
async def running(answer: bytes, *, reset: bool = False) -> AsyncIterator[str]:
    """Yield its url. Each request is read, gets these bytes, and then its connection is closed, or reset."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            lengths = [line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length:")]
            await reader.readexactly(int(lengths[0].split(b":")[1]))
            writer.write(answer)
            await writer.drain()
            if reset:  # with no time to linger, a close is a reset
                opened = writer.get_extra_info("socket")
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.close()

    async with listening(serve) as port:
        yield f"http://127.0.0.1:{port}/"


async def exchange(url: str, sent: bytes, *, until: bytes | None = None) -> bytes:
    """Send bytes as they are; return what comes back before the connection ends, or up to these bytes."""
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    came = bytearray()
    try:
        async with asyncio.timeout(ANSWER_S):
            writer.write(sent)
            while until is None or until not in came:
                chunk = await reader.read(65536)
                if not chunk:
                    break
                came += chunk
    except ConnectionError:
        pass
    finally:
        writer.close()
    return bytes(came)
