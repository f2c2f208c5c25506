"""A server of raw connections on loopback, none of which is left when its block is."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

GONE_S = 10.0
PAUSE_S = 0.005
ACCEPTED_TURNS = 3
"""After so many turns of the loop a connection that was being accepted is there."""

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def listening(serve: Serve, *, port: int = 0) -> AsyncIterator[int]:
    """Serve connections on this port, or any that is free; yield it. In the end all of them are broken off."""
    loop, open_ = asyncio.get_running_loop(), set[Any]()

    class Connection(asyncio.StreamReaderProtocol):
        def connection_made(self, transport: Any) -> None:
            self._own = transport
            open_.add(transport)
            super().connection_made(transport)

        def connection_lost(self, exc: Exception | None) -> None:
            open_.discard(self._own)
            super().connection_lost(exc)

    def connection() -> Connection:
        return Connection(asyncio.StreamReader(loop=loop), serve, loop=loop)

    server = await loop.create_server(connection, "127.0.0.1", port, backlog=1024)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for _ in range(ACCEPTED_TURNS):
            await asyncio.sleep(0)
        async with asyncio.timeout(GONE_S):
            while open_:
                for transport in list(open_):
                    transport.abort()
                await asyncio.sleep(PAUSE_S)


def break_off(writer: asyncio.StreamWriter) -> None:
    """Break a connection off, unless it is gone already: asyncio's transports cannot be aborted then."""
    if not writer.transport.is_closing() or writer.transport.get_write_buffer_size():
        writer.transport.abort()
