"""PostgreSQL, embedded: a cluster with the database `gateway`, heard on a unix socket alone."""

import os
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

from gateway.embedded.child import Server
from gateway.embedded.errors import EmbeddedError
from gateway.embedded.wheels import POSTGRES_MAJOR

DATABASE = "gateway"
USER = "gateway"
SOCKET = ".s.PGSQL.5432"

_MAX_CONNECTIONS = 200  # several replicas, or the tests with a pool each
_SETTINGS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": str(_MAX_CONNECTIONS),
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_min_error_statement": "panic",  # statements and their values stay out of the log
    "log_error_verbosity": "terse",
}
_FORGETFUL = {"fsync": "off", "full_page_writes": "off"}  # a killed server still loses nothing, a power cut all
_PROBE_S = 1.0


def initialise(cluster: Path, bin_folder: Path, run: Callable[[tuple[str, ...], int], None], *, durable: bool) -> None:
    """Make an empty folder `cluster` a cluster of the user `gateway` (no password: the socket's folder guards it).

    `run(argv, stdin)` runs a program to its end, raising when it fails. Unicode is PostgreSQL's own, so that nothing
    depends on the locales of the machine; the database is made in single-user mode, before anybody can connect.
    """
    initdb = str(bin_folder / "initdb")
    options = ("--auth=trust", "--encoding=UTF8", "--locale=C", "--locale-provider=builtin", "--builtin-locale=C.UTF-8")
    hurry = () if durable else ("--no-sync",)
    run((initdb, "--pgdata", str(cluster), "--username", USER, *options, *hurry), subprocess.DEVNULL)
    reader, writer = os.pipe()
    try:
        with open(writer, "wb") as words:
            words.write(f"CREATE DATABASE {DATABASE}\n".encode())
        run((str(bin_folder / "postgres"), "--single", "-j", "-D", str(cluster), "template1"), reader)
    finally:
        os.close(reader)


def check_version(cluster: Path) -> None:
    """Raise EmbeddedError when `cluster` was made by another major version."""
    version = (cluster / "PG_VERSION").read_text().strip()
    if version != POSTGRES_MAJOR:
        raise EmbeddedError(
            f"the data in {cluster} is of PostgreSQL {version}, the installed wheel has {POSTGRES_MAJOR}"
        )


def forget_dead(cluster: Path) -> None:
    """Remove the pid file of servers that were killed; only for the holder of the lock, who knows that none lives.

    PostgreSQL would refuse to start if that pid now belonged to another process of the same user.
    """
    (cluster / "postmaster.pid").unlink(missing_ok=True)


def server(*, cluster: Path, run_dir: Path, log: Path, bin_folder: Path, durable: bool) -> Server:
    """Describe the server of `cluster`; its socket goes to `run_dir`."""
    settings = _SETTINGS | {"unix_socket_directories": str(run_dir)} | ({} if durable else _FORGETFUL)
    options = [word for name, value in settings.items() for word in ("-c", f"{name}={value}")]
    return Server(
        name="PostgreSQL",
        argv=(str(bin_folder / "postgres"), "-D", str(cluster), *options),
        log=log,
        stop_signal=signal.SIGINT,  # a fast shutdown: sessions are ended, nothing committed is lost
        is_ready=lambda pid: _is_ready(pid, cluster / "postmaster.pid", run_dir / SOCKET),
    )


def _is_ready(pid: int, pid_file: Path, address: Path) -> bool:
    """Read what the postmaster says of itself (line 1: pid, line 8: status), then try the door."""
    try:
        lines = pid_file.read_text().splitlines()
        if len(lines) < 8 or lines[0].strip() != str(pid) or lines[7].strip() != "ready":
            return False
        with socket.socket(socket.AF_UNIX) as door:
            door.settimeout(_PROBE_S)
            door.connect(str(address))
    except OSError:
        return False
    return True
