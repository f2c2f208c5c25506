"""A Valkey of the test's own, which it may stall, kill, empty and start again."""

import asyncio
import shutil
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from redis.asyncio import Redis

from gateway.embedded import valkey, wheels

READY_S: Final = 10.0


class Broker:
    """One Valkey that keeps an append-only file: a restart finds what was written, but for the last moment perhaps."""

    def __init__(self, folder: Path) -> None:
        self._server = valkey.server(
            data=folder,
            run_dir=folder,
            log=folder / "valkey.log",
            program=wheels.locate(None).valkey_server,
            durable=True,
        )
        self._process: asyncio.subprocess.Process | None = None
        self.url = f"unix://{quote(str(folder / valkey.SOCKET))}?db=0"

    async def start(self) -> None:
        """Start it on what it has kept, and wait until it answers."""
        with self._server.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._server.argv, stdout=log, stderr=log, start_new_session=True
            )
        async with asyncio.timeout(READY_S):
            while not self._server.is_ready(self._process.pid):  # noqa: ASYNC110 - it says so to those who ask
                await asyncio.sleep(0.01)

    async def kill(self) -> None:
        """End it as a power cut would."""
        if self._process is not None:
            self._send(signal.SIGKILL)
            await self._process.wait()

    def stall(self) -> None:
        """Let it hold all connections and say nothing."""
        self._send(signal.SIGSTOP)

    def go_on(self) -> None:
        """End the stall."""
        self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(number)

    async def do(self, *command: str) -> None:
        """Do to it what an operator does, on a connection of the test's own."""
        async with Redis.from_url(self.url, protocol=2) as client:
            await client.execute_command(*command)  # type: ignore[no-untyped-call]


@asynccontextmanager
async def running() -> AsyncIterator[Broker]:
    """Start one in a folder of its own, which goes with it."""
    folder = Path(tempfile.mkdtemp(prefix="a2a-broker-"))
    broker = Broker(folder)
    try:
        await broker.start()
        yield broker
    finally:
        await broker.kill()
        shutil.rmtree(folder)
