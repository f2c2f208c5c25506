"""A server as a child process: started as its account, its words in a log file, restarted at a bounded pace."""

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from gateway.embedded.account import Account

_ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}
_FIRST_PAUSE_S = 0.25
_LONGEST_PAUSE_S = 30.0
_SETTLED_S = 60.0  # a server that lived this long starts over with the shortest pause
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, kw_only=True)
class Server:
    """How one server is started, recognised and stopped. `is_ready(pid)` tells whether that process answers."""

    name: str
    argv: tuple[str, ...]
    log: Path
    stop_signal: signal.Signals
    is_ready: Callable[[int], bool]


class Child:
    """A running `Server`. `keep_fd` is inherited by it: the lock on the data folder lives as long as the server."""

    def __init__(self, server: Server, *, account: Account | None, keep_fd: int):
        self.server = server
        self._account = account
        self._keep_fd = keep_fd
        self._log_fd = open_log(server.log)
        self._pause_s = _FIRST_PAUSE_S
        self._ended_at: float | None = None
        self._start()

    def is_alive(self) -> bool:
        """Tell whether the process still runs; collects it when it does not."""
        return self._process.poll() is None

    def is_ready(self) -> bool:
        """Tell whether the process answers."""
        return self.server.is_ready(self._process.pid)

    def revive(self) -> float | None:
        """Start the server again if it has ended and its pause is over; return the seconds to come back in, if any."""
        if self.is_alive():
            return None
        now = time.monotonic()
        if self._ended_at is None:
            self._ended_at = now
            settled = now - self._started_at > _SETTLED_S
            self._pause_s = _FIRST_PAUSE_S if settled else min(2 * self._pause_s, _LONGEST_PAUSE_S)
            words = f"{self.server.name} ended with code {self._process.returncode}; again in {self._pause_s:g} s\n"
            os.write(self._log_fd, words.encode())
        if (left_s := self._ended_at + self._pause_s - now) > 0:
            return left_s
        self._start()
        return None

    def ask_to_stop(self) -> None:
        """Send the signal by which the server stops in order."""
        if self.is_alive():
            self._process.send_signal(self.server.stop_signal)

    def finish(self, deadline: float) -> None:
        """Wait for the end until `deadline` (monotonic seconds), then kill."""
        try:
            self._process.wait(timeout=max(0.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._log_fd)

    def _start(self) -> None:
        self._process = launch(
            self.server.argv,
            account=self._account,
            log_fd=self._log_fd,
            keep_fd=self._keep_fd,
            last_will=self.server.stop_signal,
        )
        self._started_at, self._ended_at = time.monotonic(), None


def launch(
    argv: tuple[str, ...],
    *,
    account: Account | None,
    log_fd: int,
    keep_fd: int,
    last_will: signal.Signals,
    stdin: int = subprocess.DEVNULL,
) -> subprocess.Popen[bytes]:
    """Start `argv` as `account` in a clean environment; on Linux it gets `last_will` when we are killed.

    The dying wish is set after the change of user, which clears it; that the starting thread must not end is no
    matter in the wrapper, which has but one.
    """
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None

    def last_words() -> None:
        if libc is not None:
            libc.prctl(_PR_SET_PDEATHSIG, int(last_will))

    return subprocess.Popen(  # noqa: S603 - a server of ours
        argv,
        stdin=stdin,
        stdout=log_fd,
        stderr=log_fd,
        cwd="/",
        env=_ENVIRONMENT,
        pass_fds=(keep_fd,),
        user=account.uid if account else None,
        group=account.gid if account else None,
        extra_groups=[] if account else None,
        umask=0o077,
        process_group=0,
        preexec_fn=last_words,
    )


def open_log(path: Path) -> int:
    """Open a fresh log file and keep one previous one beside it; return its descriptor."""
    if path.exists():
        path.replace(path.with_name(f"{path.name}.old"))
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
