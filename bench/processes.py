"""The processes of a run: each on its core, started when it answers, and gone when the run is."""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import psutil

ROOT: Final = Path(__file__).resolve().parents[1]
_TIED: Final = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
"""What a command begins with, so that it ends with this process even if that is killed (Linux)."""
_START_S: Final = 10.0
_STOP_S: Final = 20.0


class BenchError(Exception):
    """The run cannot go on; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Cores:
    """Where processes run: what is measured on `subject`, all others on `rest`; both None if there is one core."""

    subject: int | None
    rest: int | None

    @classmethod
    def choose(cls) -> "Cores":
        """Take the last core that we may use for what is measured, and the first for the rest."""
        if not hasattr(os, "sched_getaffinity"):
            return cls(subject=None, rest=None)
        allowed = sorted(os.sched_getaffinity(0))
        return cls(subject=allowed[-1], rest=allowed[0]) if len(allowed) > 1 else cls(subject=None, rest=None)

    def take_rest(self) -> None:
        """Move this process, and with it all that it starts from now on."""
        if self.rest is not None:
            os.sched_setaffinity(0, {self.rest})

    def give_subject(self, pid: int) -> None:
        """Move a process that has just been started, and with it all that it will start."""
        if self.subject is not None:
            os.sched_setaffinity(pid, {self.subject})


@dataclass(frozen=True, kw_only=True)
class Running:
    """A process that answers; `said` is the line with which it announced that."""

    pid: int
    said: str
    process: "subprocess.Popen[bytes]"

    def ask(self, do: str, **words: Any) -> dict[str, Any]:
        """Give an order to a process that serves them, and return what comes of it; raises BenchError."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps({"do": do, **words}).encode() + b"\n")
            self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(_STOP_S)
            raise BenchError(f"{do} failed")
        result: dict[str, Any] = json.loads(answer)
        return result


@contextmanager
def running(
    command: Sequence[str],
    *,
    env: Mapping[str, str] | None = None,
    port: int | None = None,
    measured: Cores | None = None,
    folder: Path = ROOT,
) -> Iterator[Running]:
    """Run a command until it answers, and for as long as the block lasts; then end it (SIGTERM, later SIGKILL).

    It answers when it prints `ready ...`, or, if a port is given, when that takes connections. measured: the process
    is the one that is measured, and gets the core for that. Its standard input ends with this process. folder: where
    it runs, another checkout for example.
    """
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(
            [*_TIED, *command],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(folder), **(env or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            start_new_session=True,
        )
        try:
            if measured is not None:
                measured.give_subject(process.pid)
            said = _wait_ready(process) if port is None else _wait_open(process, port)
            yield Running(pid=process.pid, said=said, process=process)
            if process.poll() is not None:
                raise BenchError(f"{command[0]} ended in the middle of the run, with {process.returncode}")
        except Exception:
            if process.poll() is not None:
                log.seek(0)
                sys.stderr.write(log.read()[-4000:].decode("utf-8", "replace"))
            raise
        finally:
            _stop(process)


def _wait_ready(process: "subprocess.Popen[bytes]") -> str:
    assert process.stdout is not None
    for line in iter(process.stdout.readline, b""):
        word, _, said = line.decode().strip().partition(" ")
        if word == "ready":
            return said
    raise BenchError("a process ended before it was ready")


def _wait_open(process: "subprocess.Popen[bytes]", port: int) -> str:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return f"127.0.0.1:{port}"
        time.sleep(0.02)
    raise BenchError(f"nobody answers on port {port}")


def free_port() -> int:
    """Return a port that nobody listens on right now, for servers that cannot choose one themselves."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


def _stop(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.communicate(timeout=_STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()


def cpu_s(pid: int) -> float:
    """Return the CPU time, user and system, that a process and its children have used, in seconds."""
    process = psutil.Process(pid)
    times = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    return sum(one.user + one.system for one in times)


async def serve_until_orphaned(port: int) -> None:
    """In a child: say that it answers on this port, and return when its standard input, and so its parent, ends."""
    print(f"ready {port}", flush=True)
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_reader(sys.stdin.fileno(), lambda: ended.set() if not os.read(sys.stdin.fileno(), 64) else None)
    with contextlib.suppress(asyncio.CancelledError):
        await ended.wait()


async def serve_orders(obey: Callable[..., Awaitable[Any]]) -> None:
    """In a child: obey each line of JSON on standard input, answer with one of what comes of it, until they end."""
    print("ready", flush=True)
    loop = asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await obey(**json.loads(line))), flush=True)
