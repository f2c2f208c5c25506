"""The process between the gateway and the embedded servers: it starts them, and they end with their parent.

It reads its plan from the first line of its standard input and writes one line of answer; after that the pipe only
stays open. The end of the pipe, which comes even when the parent is killed, or SIGTERM stops both servers in order.
It sits in a session of its own, so that Ctrl-C reaches the gateway alone, which still drains into its database.
"""

import json
import os
import re
import selectors
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gateway.embedded import folder, postgres, valkey
from gateway.embedded.account import Account
from gateway.embedded.child import Child, launch, open_log
from gateway.embedded.errors import EmbeddedError, from_log, from_os_error

START_S = 120.0  # a first start on a slow disk, or the recovery after a crash
STOP_S = 20.0

_POLL_S = 0.01
_LONGEST_SOCKET_BYTES = 103  # what every system takes; Linux alone would take 107
_PLAIN = re.compile(r"[\w./+~-]+", re.ASCII)  # PostgreSQL reads commas and quotes in a socket's folder as its own


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What to run: the prepared folder, the programs, and the account for a parent that is root."""

    data_dir: Path
    postgres_bin: Path
    valkey_server: Path
    account: Account | None
    durable: bool

    def to_json(self) -> str:
        """Return the plan as one line."""
        return json.dumps(asdict(self), default=str)

    @classmethod
    def from_json(cls, line: str | bytes) -> "Plan":
        """Read what `to_json` wrote."""
        facts: dict[str, Any] = json.loads(line)
        account = facts["account"]
        return cls(
            data_dir=Path(facts["data_dir"]),
            postgres_bin=Path(facts["postgres_bin"]),
            valkey_server=Path(facts["valkey_server"]),
            account=Account(**account) if account else None,
            durable=facts["durable"],
        )


class _Ending(Exception):
    """The parent is gone, or we were told to stop."""


class _Watch:
    """Waits for a change: a child that ends, or the end of all this (raises `_Ending`)."""

    def __init__(self, life_fd: int):
        self._told_to_stop = False
        self._bell, ringer = socket.socketpair()
        for end in (self._bell, ringer):
            end.setblocking(False)
        self._ringer = ringer
        signal.signal(signal.SIGTERM, self._on_term)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(ignored, lambda *_: None)  # not SIG_IGN, which the servers would inherit
        signal.set_wakeup_fd(ringer.fileno(), warn_on_full_buffer=False)
        self._selector = selectors.DefaultSelector()
        self._selector.register(life_fd, selectors.EVENT_READ)
        self._selector.register(self._bell, selectors.EVENT_READ)

    def wait(self, timeout_s: float | None) -> None:
        """Return when something happened or the time is over."""
        for key, _ in self._selector.select(timeout_s):
            if key.fileobj is self._bell:
                self._bell.recv(4096)
            elif not os.read(key.fd, 4096):
                raise _Ending
        if self._told_to_stop:
            raise _Ending

    def _on_term(self, *_: object) -> None:
        self._told_to_stop = True


def main() -> int:
    """Run the servers of the plan on standard input until the parent is gone; return the exit code."""
    with open(0, "rb", buffering=0, closefd=False) as pipe:
        line = pipe.readline()
    if not line:
        return 0
    plan = Plan.from_json(line)
    watch = _Watch(0)
    try:
        with folder.claimed(plan.data_dir, parent=os.getppid(), pause=watch.wait) as claim:
            _run(plan, claim, watch)
    except _Ending:
        return 0
    except EmbeddedError as error:
        _answer(refused=str(error))
    except OSError as error:
        _answer(refused=str(from_os_error(error, plan.data_dir)))
    return 1


def _run(plan: Plan, claim: folder.Claim, watch: _Watch) -> None:
    with ExitStack() as stack:
        run_dir = stack.enter_context(_sockets(plan))
        logs = plan.data_dir / "logs"
        logs.mkdir(mode=0o700, exist_ok=True)
        cluster, journal = plan.data_dir / "postgres", plan.data_dir / "valkey"
        if not cluster.exists():
            _initialise(plan, cluster, logs / "initdb.log", claim, watch)
        postgres.check_version(cluster)
        postgres.forget_dead(cluster)
        if not journal.exists():
            _own_folder(journal, plan.account)
        servers = (
            postgres.server(
                cluster=cluster,
                run_dir=run_dir,
                log=logs / "postgres.log",
                bin_folder=plan.postgres_bin,
                durable=plan.durable,
            ),
            valkey.server(
                data=journal,
                run_dir=run_dir,
                log=logs / "valkey.log",
                program=plan.valkey_server,
                durable=plan.durable,
            ),
        )
        children: list[Child] = []
        stack.callback(_stop, children, claim)
        for server in servers:
            children.append(Child(server, account=plan.account, keep_fd=claim.fd))  # noqa: PERF401 - stopped if the next fails
        _await_ready(children, plan, watch)
        _answer(run_dir=str(run_dir))
        while True:
            pauses = [pause_s for child in children if (pause_s := child.revive()) is not None]
            watch.wait(min(pauses, default=None))


def _await_ready(children: list[Child], plan: Plan, watch: _Watch) -> None:
    deadline = time.monotonic() + START_S
    waiting = list(children)
    while waiting:
        for child in list(waiting):
            ended = not child.is_alive()
            if ended or time.monotonic() > deadline:
                raise from_log(child.server.name, child.server.log, plan.data_dir)
            if child.is_ready():
                waiting.remove(child)
        if waiting:
            watch.wait(_POLL_S)


def _stop(children: list[Child], claim: folder.Claim) -> None:
    with suppress(OSError):
        claim.note(parent=os.getppid(), stopping=True)
    for child in reversed(children):
        child.ask_to_stop()
    deadline = time.monotonic() + STOP_S
    for child in reversed(children):
        child.finish(deadline)


def _initialise(plan: Plan, cluster: Path, log: Path, claim: folder.Claim, watch: _Watch) -> None:
    """Make the cluster beside its place and rename it: an interrupted first start leaves nothing half done."""
    draft = cluster.with_name("postgres.new")
    if draft.exists():
        shutil.rmtree(draft)
    _own_folder(draft, plan.account)
    log_fd = open_log(log)

    def run(argv: tuple[str, ...], stdin: int) -> None:
        process = launch(
            argv,
            account=plan.account,
            log_fd=log_fd,
            keep_fd=claim.fd,
            last_will=signal.SIGKILL,
            stdin=stdin,
        )
        try:
            while process.poll() is None:
                watch.wait(START_S)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()
        if process.returncode != 0:
            raise from_log(Path(argv[0]).name, log, plan.data_dir)

    try:
        postgres.initialise(draft, plan.postgres_bin, run, durable=plan.durable)
        draft.rename(cluster)
    finally:
        os.close(log_fd)
        shutil.rmtree(draft, ignore_errors=True)


@contextmanager
def _sockets(plan: Plan) -> Iterator[Path]:
    """Yield an empty folder for the sockets: below the data folder, or a short-named one when that path is too long."""
    run_dir = plan.data_dir / "run"
    longest = len(os.fsencode(run_dir / max(postgres.SOCKET, valkey.SOCKET, key=len)))
    if longest <= _LONGEST_SOCKET_BYTES and _PLAIN.fullmatch(str(run_dir)):
        if run_dir.exists():
            shutil.rmtree(run_dir)
        _own_folder(run_dir, plan.account)
        yield run_dir
        return
    run_dir = Path(tempfile.mkdtemp(prefix="a2a-", dir="/tmp"))  # TMPDIR may be long too
    try:
        if plan.account:
            os.chown(run_dir, plan.account.uid, plan.account.gid)
        yield run_dir
    finally:
        shutil.rmtree(run_dir, ignore_errors=True)


def _own_folder(path: Path, account: Account | None) -> None:
    path.mkdir(mode=0o700)
    if account:
        os.chown(path, account.uid, account.gid)


def _answer(**facts: str) -> None:
    try:
        os.write(1, json.dumps(facts).encode() + b"\n")
    except BrokenPipeError:
        raise _Ending from None


if __name__ == "__main__":
    sys.exit(main())
