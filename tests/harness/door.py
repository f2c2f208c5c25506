"""One address in front of several gateways, as a balancer has it: each connection goes to the next that takes it."""

import asyncio
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from urllib.parse import urlsplit

from tests.harness.listening import break_off, listening
from tests.harness.process import GatewayProcess
from tests.harness.world import eventually


class Door:
    """Passes bytes on; `gateways` is asked for each connection."""

    def __init__(self, gateways: Callable[[], Sequence[GatewayProcess]]) -> None:
        self._gateways = gateways
        self._turn = 0
        self._stack = AsyncExitStack()
        self._writers: set[asyncio.StreamWriter] = set()
        self.url = ""

    async def __aenter__(self) -> "Door":
        self.url = f"http://127.0.0.1:{await self._stack.enter_async_context(listening(self._serve))}"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()
        for writer in list(self._writers):
            break_off(writer)
        await eventually(lambda: not self._writers)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        try:
            found = await self._connect()
            if found is not None:
                there, back = found
                self._writers.add(back)
                try:
                    await asyncio.gather(_pass_on(reader, back), _pass_on(there, writer))
                finally:
                    self._writers.discard(back)
        finally:
            writer.transport.abort()
            self._writers.discard(writer)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        some = list(self._gateways())
        self._turn += 1
        for number in range(len(some)):
            try:
                return await asyncio.open_connection(
                    "127.0.0.1", urlsplit(some[(self._turn + number) % len(some)].url).port
                )
            except OSError:
                continue
        return None


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while chunk := await reader.read(65536):
            writer.write(chunk)
            await writer.drain()
    except OSError:
        pass
    finally:
        writer.close()
