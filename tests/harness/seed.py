"""A process that has imported the gateway and forks one for each that asks: most of a start is the import.

What is forked is told apart by its environment, its arguments and its files alone, like what is executed.
"""

import asyncio
import atexit
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from typing import IO, Any, Final

import orjson

REQUEST_BYTES: Final = 128 * 1024


class _Ending(asyncio.Protocol):
    """Hears a gateway's pid, and how it ended."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.pid: asyncio.Future[int] = loop.create_future()
        self.code: asyncio.Future[int] = loop.create_future()
        self.closed = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        for line in data.splitlines():
            (self.code if self.pid.done() else self.pid).set_result(int(line))

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed.set()


class _Output(asyncio.StreamReaderProtocol):
    """Hears what a gateway prints, to the end."""

    def __init__(self) -> None:
        self.said = asyncio.StreamReader()
        super().__init__(self.said)
        self.closed = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.closed.set()


class Forked:
    """A gateway that was forked; as far as the tests look, an `asyncio.subprocess.Process`."""

    def __init__(self, output: _Output, ending: _Ending) -> None:
        self.pid = ending.pid.result()
        self.stdout = output.said
        self._output = output
        self._ending = ending

    @property
    def returncode(self) -> int | None:
        return self._ending.code.result() if self._ending.code.done() else None

    def send_signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def wait(self) -> int:
        """Wait until it has ended, and all that it printed has come."""
        await self._ending.closed.wait()
        await self._output.closed.wait()
        return self._ending.code.result()


async def fork(arguments: Sequence[str], *, env: Mapping[str, str], stderr: IO[bytes], first_file: int) -> Forked:
    """Start `a2a-gateway ARGUMENTS` in a session of its own; `first_file` is the lowest file that it can open."""
    forking = asyncio.ensure_future(_fork(arguments, env, stderr, first_file))  # noqa: TID251 - it is not to be cancelled
    try:
        return await asyncio.shield(forking)
    except asyncio.CancelledError:  # it is there all the same
        one = await forking
        one.send_signal(signal.SIGKILL)
        await one.wait()
        raise


async def _fork(arguments: Sequence[str], env: Mapping[str, str], stderr: IO[bytes], first_file: int) -> Forked:
    loop = asyncio.get_running_loop()
    out, end = os.pipe(), os.pipe()
    request = orjson.dumps({"arguments": arguments, "env": env, "first_file": first_file})
    socket.send_fds(_seed(), [request], [out[1], end[1], stderr.fileno()])
    for written in (out[1], end[1]):
        os.close(written)
    _, output = await loop.connect_read_pipe(_Output, os.fdopen(out[0], "rb", buffering=0))
    _, ending = await loop.connect_read_pipe(_Ending, os.fdopen(end[0], "rb", buffering=0))
    await ending.pid
    return Forked(output, ending)


@cache
def _seed() -> socket.socket:
    """The seed of this process, which ends with it."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    seed = subprocess.Popen(
        [sys.executable, "-P", __file__, str(its.fileno())],
        pass_fds=[its.fileno()],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
    )
    its.close()

    @atexit.register
    def end() -> None:
        ours.close()
        seed.wait()

    return ours


def _serve(channel: socket.socket) -> None:
    """Fork for each request. Whoever waits for a gateway's end is a process of its own, too."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        request, files, _, _ = socket.recv_fds(channel, REQUEST_BYTES, 3)
        if not request:
            return
        if os.fork() == 0:
            channel.close()
            _watch(orjson.loads(request), *files)
        for file in files:
            os.close(file)


def _watch(wanted: Any, stdout: int, end: int, stderr: int) -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    pid = os.fork()
    if pid == 0:
        os.close(end)
        _become(wanted, stdout, stderr)
    for file in (stdout, stderr):
        os.close(file)
    os.write(end, b"%d\n" % pid)
    _, status = os.waitpid(pid, 0)
    try:
        os.write(end, b"%d\n" % os.waitstatus_to_exitcode(status))
    finally:
        os._exit(0)


def _become(wanted: Any, stdout: int, stderr: int) -> None:
    os.setsid()
    os.dup2(stdout, 1)
    os.dup2(stderr, 2)
    os.closerange(3, max(stdout, stderr) + 1)
    for number in range(3, wanted["first_file"]):
        os.dup2(0, number)
    os.environ.clear()
    os.environ.update(wanted["env"])
    sys.argv = ["a2a-gateway", *wanted["arguments"]]
    code: Any = 1
    try:
        cli.main()
    except SystemExit as ended:
        code = ended.code
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 0 if code is None else 1)


if __name__ == "__main__":
    from gateway import cli

    _serve(socket.socket(fileno=int(sys.argv[1])))
