"""A way to PostgreSQL on which, once, the answer to a commit is lost: it is done, and nobody hears of it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import parse_qs, urlsplit

from tests.harness.listening import break_off, listening


class Lossy:
    """Passes bytes on. While `loses` is set, the next transaction with these words is committed, and its connection is
    cut before the answer; `lost` counts those."""

    def __init__(self, database_url: str) -> None:
        parts = urlsplit(database_url)
        self._socket = f"{parse_qs(parts.query)['host'][0]}/.s.PGSQL.5432"
        self._user, self._name = parts.username, parts.path
        self._backs: set[asyncio.StreamWriter] = set()
        self._port = 0
        self.loses: bytes | None = None
        self.lost = 0

    @property
    def url(self) -> str:
        return f"postgresql://{self._user}@127.0.0.1:{self._port}{self._name}"

    @asynccontextmanager
    async def running(self) -> AsyncIterator["Lossy"]:
        async with listening(self._serve) as self._port:
            yield self
        for back in list(self._backs):
            break_off(back)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_unix_connection(self._socket)
        self._backs.add(back)
        doomed = asyncio.Event()
        with suppress(OSError):
            await asyncio.gather(self._ask(reader, back, doomed), self._answer(there, writer, doomed))
        self._backs.discard(back)

    async def _ask(self, reader: asyncio.StreamReader, back: asyncio.StreamWriter, doomed: asyncio.Event) -> None:
        met = False
        while chunk := await reader.read(65536):
            met |= self.loses is not None and self.loses in chunk
            if met and b"COMMIT" in chunk:
                doomed.set()
                self.loses = None
                self.lost += 1
            back.write(chunk)
        back.close()

    @staticmethod
    async def _answer(there: asyncio.StreamReader, writer: asyncio.StreamWriter, doomed: asyncio.Event) -> None:
        while chunk := await there.read(65536):
            if doomed.is_set():
                writer.transport.abort()
                return
            writer.write(chunk)
        writer.close()
