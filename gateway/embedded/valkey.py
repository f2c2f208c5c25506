"""Valkey, embedded: an append-only file that keeps the bus's journal, heard on a unix socket alone."""

import signal
import socket
from pathlib import Path

from gateway.embedded.child import Server

SOCKET = "valkey.sock"

_PROBE_S = 1.0


def server(*, data: Path, run_dir: Path, log: Path, program: Path, durable: bool) -> Server:
    """Describe the server of the folder `data`; its socket goes to `run_dir`.

    Durable means synced once a second, as the journal may lose its last moment but not its past. A full memory is
    told to the writer (`noeviction`): a journal that forgets silently would be worse.
    """
    address = run_dir / SOCKET
    options = {
        "port": "0",
        "unixsocket": str(address),
        "unixsocketperm": "700",
        "dir": str(data),
        "daemonize": "no",
        "save": "",
        "appendonly": "yes",
        "appendfsync": "everysec" if durable else "no",
        "maxmemory-policy": "noeviction",
        "loglevel": "warning",
    }
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    return Server(
        name="Valkey",
        argv=(str(program), *words),
        log=log,
        stop_signal=signal.SIGTERM,
        is_ready=lambda pid: _is_ready(address),
    )


def _is_ready(address: Path) -> bool:
    """Ask for a PONG; while the file is being loaded the answer is -LOADING."""
    try:
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(_PROBE_S)
            door.connect(str(address))
            door.sendall(b"PING\r\n")
            return door.recv(64).startswith(b"+PONG")
    except OSError:
        return False
