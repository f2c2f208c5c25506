"""The gateway as a user starts it: a process of its own, told apart from the test by its environment alone."""

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import IO

from tests.harness import seed

READY_S = 60.0
STOP_S = 20.0


class DidNotStart(AssertionError):
    """The process ended before it was ready; carries what it said."""


class GatewayProcess:
    """One process of `a2a-gateway`."""

    def __init__(self, process: asyncio.subprocess.Process | seed.Forked, log: IO[bytes]) -> None:
        self._process = process
        self._log = log
        self.url = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        return self._process.returncode

    def log(self) -> str:
        """What it has written to stderr."""
        self._log.seek(0)
        return self._log.read().decode()

    async def rest(self) -> str:
        """What it has written to stdout since it was ready; it must have ended."""
        assert self._process.stdout is not None
        return (await self._process.stdout.read()).decode()

    async def wait_ready(self) -> None:
        assert self._process.stdout is not None
        async with asyncio.timeout(READY_S):
            async for line in self._process.stdout:
                word, _, rest = line.decode().strip().partition(" ")
                if word == "ready":
                    self.url = rest
                    return
        await self._process.wait()
        raise DidNotStart(self.log())

    def send(self, number: signal.Signals) -> None:
        if self._process.returncode is None:
            self._process.send_signal(number)

    async def stop(self) -> int:
        """SIGTERM, and the exit code."""
        self.send(signal.SIGTERM)
        return await self.wait()

    async def wait(self) -> int:
        async with asyncio.timeout(STOP_S):
            return await self._process.wait()


@asynccontextmanager
async def started(
    *arguments: str, env: Mapping[str, str], ready: bool = True, module: str = "gateway"
) -> AsyncIterator[GatewayProcess]:
    """Run `python -m MODULE ARGUMENTS`; killed at the end if it still runs."""
    with tempfile.TemporaryFile() as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", module, *arguments,
            env=_clean(env), stdout=asyncio.subprocess.PIPE, stderr=log, start_new_session=True,
        )  # fmt: skip
        async with _kept(process, log, ready) as gateway:
            yield gateway


@asynccontextmanager
async def serving(*, env: Mapping[str, str], first_file: int = 0) -> AsyncIterator[GatewayProcess]:
    """Run `a2a-gateway serve` on a port of its own, in a quarter of the time that `started` takes.

    first_file: the lowest file descriptor that it can open; those below are taken.
    """
    command = ("serve", "--host", "127.0.0.1", "--port", "0")
    if "PYTHONPATH" in env:  # it is another gateway than the one that this process can import
        async with started(*command, env=env) as gateway:
            yield gateway
        return
    with tempfile.TemporaryFile() as log:
        process = await seed.fork(command, env=_clean(env), stderr=log, first_file=first_file)
        async with _kept(process, log, ready=True) as gateway:
            yield gateway


@asynccontextmanager
async def _kept(
    process: asyncio.subprocess.Process | seed.Forked, log: IO[bytes], ready: bool
) -> AsyncIterator[GatewayProcess]:
    gateway = GatewayProcess(process, log)
    try:
        if ready:
            await gateway.wait_ready()
        yield gateway
    finally:
        gateway.send(signal.SIGCONT)
        gateway.send(signal.SIGKILL)
        await process.wait()


def _clean(env: Mapping[str, str]) -> dict[str, str]:
    """This environment, and of the test's own what no setting of ours is."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("GATEWAY_", "A2A_", "ADMIN_"))}
    return {**own, **env}


async def run(*arguments: str, env: Mapping[str, str]) -> str:
    """Run a command of `a2a-gateway` to its end, which must be a good one, and return what it printed."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "gateway", *arguments, env={**os.environ, **env}, stdout=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(READY_S):
        said, _ = await process.communicate()
    assert process.returncode == 0
    return said.decode()
