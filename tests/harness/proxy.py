"""A way to a server that a test may stall without either end noticing."""

import asyncio
from contextlib import AsyncExitStack

from tests.harness.listening import break_off, listening
from tests.harness.world import eventually


class Proxy:
    """Passes bytes on to a port of loopback, until it stalls: then it keeps connections and reads nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._stack = AsyncExitStack()
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "Proxy":
        self.port = await self._stack.enter_async_context(listening(self._serve))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        self.go_on()
        for writer in list(self._writers):
            break_off(writer)
        await eventually(lambda: not self._writers)

    def stall(self) -> None:
        """Pass nothing on any more, and let nobody notice."""
        self._flowing.clear()

    def go_on(self) -> None:
        """Pass on what has come meanwhile, and what comes."""
        self._flowing.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            there, back = await asyncio.open_connection("127.0.0.1", self._port)
            self._writers.add(back)
            try:
                await asyncio.gather(self._pass_on(reader, back), self._pass_on(there, writer))
            finally:
                self._writers.discard(back)
        except OSError:
            writer.transport.abort()
        finally:
            self._writers.discard(writer)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while chunk := await reader.read(65536):
                await self._flowing.wait()
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()
