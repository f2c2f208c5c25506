"""A Valkey of a test's own, that may be stalled and killed, alone or watched by a sentinel."""

import asyncio
import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gateway.embedded import wheels
from tests.harness.world import eventually

START_S = 10.0


def free_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


class Valkey:
    """One server on a port of loopback; its folder stays when it is killed, so it may come back with what it kept."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        self.folder = folder
        self.port = free_port()
        self._words = words
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Start it, and wait until it answers."""
        program = wheels.locate(None).valkey_server
        words = [*self._words, "--port", str(self.port), "--dir", str(self.folder), "--bind", "127.0.0.1"]
        log = self.folder / "log"
        with log.open("ab") as out:
            self._process = subprocess.Popen([program, *words], stdout=out, stderr=out)  # noqa: ASYNC220 - it is quick
        deadline = time.monotonic() + START_S
        while not await self._answers():
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            await asyncio.sleep(0.01)

    async def _answers(self) -> bool:
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        try:
            writer.write(b"PING\r\n")
            return (await reader.read(64)).startswith(b"+PONG")
        except OSError:
            return False
        finally:
            writer.close()

    def kill(self) -> None:
        """SIGKILL it."""
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
    """A server that is not started yet, and is killed in the end. It keeps every write."""
    folder.mkdir()
    words = ["--save", "", "--appendonly", "yes", "--appendfsync", "always", "--repl-diskless-sync-delay", "0"]
    for name, value in options.items():
        words += [f"--{name.replace('_', '-')}", *str(value).split()]
    one = Valkey(folder, words)
    try:
        yield one
    finally:
        one.kill()


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
    one = Valkey(folder, [str(settings), "--sentinel"])
    try:
        yield one
    finally:
        one.kill()


class Proxy:
    """Passes bytes on to a port of loopback, until it stalls: then it keeps connections and reads nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self.port = 0

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    async def __aenter__(self) -> "Proxy":
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.go_on()
        for writer in list(self._writers):
            writer.transport.abort()
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
