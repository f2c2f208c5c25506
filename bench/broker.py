"""A Valkey of a run's own, which may be stalled, killed and started again on what it has kept."""

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from bench.processes import BenchError
from gateway.embedded import valkey, wheels

_START_S: Final = 10.0


class Broker:
    """One server, at `url`; it keeps an append-only file as the bundled one does, but nobody starts it again."""

    def __init__(self, folder: Path) -> None:
        self._server = valkey.server(
            data=folder,
            run_dir=folder,
            log=folder / "log",
            program=wheels.locate(None).valkey_server,
            durable=True,
        )
        self._process: subprocess.Popen[bytes] | None = None
        self.url = f"unix://{quote(str(folder / valkey.SOCKET))}?db=0"

    def start(self) -> float:
        """Start it, and return the moment, on the monotonic clock, at which it answers."""
        with self._server.log.open("ab") as log:
            self._process = subprocess.Popen(self._server.argv, stdout=log, stderr=log)
        deadline = time.monotonic() + _START_S
        while not self._server.is_ready(self._process.pid):
            if time.monotonic() > deadline or self._process.poll() is not None:
                raise BenchError(f"Valkey does not start: {self._server.log.read_text()[-2000:]}")
            time.sleep(0.005)
        return time.monotonic()

    def kill(self) -> float:
        """End it as a power cut would; return the moment."""
        at = self._send(signal.SIGKILL)
        if self._process is not None:
            self._process.wait()
        return at

    def stall(self) -> float:
        """Let it hold all connections and say nothing; return the moment."""
        return self._send(signal.SIGSTOP)

    def go_on(self) -> float:
        """End the stall; return the moment."""
        return self._send(signal.SIGCONT)

    def _send(self, number: signal.Signals) -> float:
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, number)
        return time.monotonic()


@contextmanager
def running() -> Iterator[Broker]:
    """Run one in a folder of its own, which goes with it."""
    with tempfile.TemporaryDirectory(prefix="a2a-broker-") as folder:
        broker = Broker(Path(folder))
        try:
            broker.start()
            yield broker
        finally:
            broker.kill()
