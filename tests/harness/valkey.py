"""A Valkey of a test's own, that may be stalled, killed and started again, alone or watched by a sentinel."""

import asyncio
import itertools
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final
from urllib.parse import quote

from redis.asyncio import Redis

from gateway.embedded import wheels
from tests.harness import folders

START_S: Final = 10.0
KEPT: Final = ("--save", "", "--appendonly", "yes", "--repl-diskless-sync-delay", "0")


_PORTS: Final = itertools.cycle(range(12_000, 32_000))
"""Below those that the kernel gives to clients, of which one could take it while a server is down."""


def free_port() -> int:
    """A port of loopback on which nobody listens, and that no client is given."""
    apart = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) * 2_000
    for number in _PORTS:
        port = 12_000 + (number - 12_000 + apart) % 20_000
        with socket.socket() as one, suppress(OSError):
            one.bind(("127.0.0.1", port))
            return port
    raise AssertionError("a cycle has no end")


class Valkey:
    """One server; its folder stays when it is killed, so it may come back with what it kept.

    It listens on a port of loopback, or with none on a socket in its folder, whose path must then be short.
    """

    def __init__(self, folder: Path, words: list[str], *, port: int | None) -> None:
        self.folder = folder
        self._words = words
        self._port = port
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def port(self) -> int:
        assert self._port is not None, "it listens on a socket"
        return self._port

    @property
    def _socket(self) -> Path:
        return self.folder / "valkey.sock"

    @property
    def url(self) -> str:
        if self._port is None:
            return f"unix://{quote(str(self._socket))}?db=0"
        return f"redis://127.0.0.1:{self._port}"

    async def start(self) -> None:
        """Start it on what it has kept, and wait until it answers."""
        program = wheels.locate(None).valkey_server
        words = [*self._words, "--port", str(self._port or 0), "--dir", str(self.folder), "--bind", "127.0.0.1"]
        if self._port is None:
            words += ["--unixsocket", str(self._socket)]
        log = self.folder / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen(  # noqa: ASYNC220 - it is quick
                [program, *words], stdout=out, stderr=out, start_new_session=True
            )
        deadline = time.monotonic() + START_S
        while not await self._answers():
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            await asyncio.sleep(0.01)

    async def _answers(self) -> bool:
        try:
            if self._port is None:
                reader, writer = await asyncio.open_unix_connection(self._socket)
            else:
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return (await reader.read(64)).startswith(b"+PONG")
        except OSError:
            return False
        finally:
            writer.close()

    async def do(self, *command: str | int) -> object:
        """Do to it what an operator does, on a connection of the test's own; return what it answers."""
        async with Redis.from_url(self.url, protocol=2) as client:
            answer: object = await client.execute_command(*command)  # type: ignore[no-untyped-call]
            return answer

    def kill(self) -> None:
        """SIGKILL it: it ends as in a power cut."""
        if self._process is not None:
            self.go_on()
            self._process.kill()
            self._process.wait()
            self._process = None

    def stall(self) -> None:
        """Stop it where it is; the kernel still takes connections and bytes for it."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        assert self._process is not None
        os.kill(self._process.pid, signal.SIGCONT)

    def forget(self) -> None:
        """Throw away what it kept, while it is not running."""
        assert self._process is None
        for path in sorted((self.folder / "appendonlydir").glob("*")):
            path.unlink()


@contextmanager
def valkey(folder: Path, **options: str | int) -> Iterator[Valkey]:
    """A server on a port that is not started yet, and is killed in the end. It keeps every write."""
    folder.mkdir()
    one = Valkey(folder, [*KEPT, "--appendfsync", "always", *_words(options)], port=free_port())
    try:
        yield one
    finally:
        one.kill()


@asynccontextmanager
async def running(**options: str | int) -> AsyncIterator[Valkey]:
    """A server on a socket, in a folder of its own which goes with it. A kill may take its last moment along."""
    folder = folders.fresh("a2a-valkey-")
    one = Valkey(folder, [*KEPT, *_words(options)], port=None)
    try:
        await one.start()
        yield one
    finally:
        one.kill()
        shutil.rmtree(folder)


def _words(options: Mapping[str, str | int]) -> list[str]:
    return [word for name, value in options.items() for word in (f"--{name.replace('_', '-')}", *str(value).split())]


@contextmanager
def sentinel(folder: Path, primary: Valkey, name: str) -> Iterator[Valkey]:
    """A sentinel that watches a primary and decides alone; not started yet."""
    folder.mkdir()
    settings = folder / "sentinel.conf"
    settings.write_text(
        f"sentinel monitor {name} 127.0.0.1 {primary.port} 1\n"
        f"sentinel down-after-milliseconds {name} 500\n"
        f"sentinel failover-timeout {name} 2000\n"
    )
    one = Valkey(folder, [str(settings), "--sentinel"], port=free_port())
    try:
        yield one
    finally:
        one.kill()
