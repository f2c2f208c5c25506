"""The data folder: which one it is, that it is ours, and that nobody else uses it.

data_dir/               0711 and root's when we are root (so that the servers' user cannot swap what root opens),
                        otherwise 0700 and ours
    a2a-gateway.json    the marker: says that the folder is ours; its lock says that it is in use
    logs/               what the servers print
    postgres/ valkey/   0700, the servers' data
    run/                0700, their sockets
"""

import fcntl
import hashlib
import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gateway.embedded import account as accounts
from gateway.embedded.account import Account
from gateway.embedded.errors import EmbeddedError, from_os_error

MARKER = "a2a-gateway.json"
LAYOUT = 1
SYSTEM_STATE = Path("/var/lib/a2a-gateway")

_GRACE_S = 2.0  # a parent that was killed a moment ago: its servers are about to go
_STOPPING_S = 60.0  # servers that have begun to stop: PostgreSQL may have a checkpoint to write
_POLL_S = 0.02
_HARMLESS = {MARKER, "lost+found"}


def default(cwd: Path) -> Path:
    """Return the data folder of whoever works in `cwd` and named none: `.data/` there, if that can work.

    Otherwise a folder of `cwd`'s own below `/var/lib/a2a-gateway` (root) or `~/.local/state/a2a-gateway`.
    """
    here = cwd / ".data"
    key = hashlib.sha256(os.fsencode(cwd)).hexdigest()[:12]
    account = accounts.choose(here)
    if account is not None:
        return here if accounts.find_closed(here, account) is None else SYSTEM_STATE / key
    if here.exists() or os.access(cwd, os.W_OK | os.X_OK):
        return here
    try:
        return Path.home() / ".local" / "state" / "a2a-gateway" / key
    except RuntimeError as error:
        raise EmbeddedError(f"the folder {cwd} is not writable and there is no home: name a data folder") from error


def prepare(data_dir: Path, account: Account | None) -> None:
    """Create `data_dir` if need be, and refuse a folder that is not ours or that the servers could not reach."""
    try:
        make(data_dir, mode=0o700 if account is None else 0o711)
        entries = set(os.listdir(data_dir))
        if MARKER not in entries and entries - _HARMLESS:
            raise EmbeddedError(f"the folder {data_dir} holds something else: name an empty or a new data folder")
        if not entries - _HARMLESS:
            data_dir.chmod(0o700 if account is None else 0o711)
    except FileExistsError as error:
        raise EmbeddedError(f"the data folder {data_dir} is not a folder") from error
    except PermissionError as error:
        raise EmbeddedError(_not_yours(data_dir)) from error
    except OSError as error:
        raise from_os_error(error, data_dir) from error
    if account is not None and (closed := accounts.find_closed(data_dir, account)) is not None:
        raise EmbeddedError(
            f"the data folder {data_dir} cannot be reached by the user {account.name}, as which the servers run: "
            f"{closed} is closed to it"
        )


def make(path: Path, *, mode: int) -> None:
    """Create the folder `path` with `mode`; parents that are missing are open to pass through, whatever the umask."""
    missing = [part for part in path.parents if not part.exists()]
    for part in reversed(missing):
        part.mkdir(exist_ok=True)
        part.chmod(0o755)
    if not path.is_dir():
        path.mkdir(exist_ok=True)  # another gateway may have been faster
        path.chmod(mode)


@dataclass(frozen=True, kw_only=True)
class Claim:
    """The lock on a data folder. Every server inherits `fd`, so the lock lasts until the last of them has ended."""

    fd: int

    def note(self, **facts: Any) -> None:
        """Write who holds the folder into its marker, for the sentence that the next one gets."""
        content = json.dumps({"layout": LAYOUT, **facts}).encode()
        os.pwrite(self.fd, content, 0)  # in place, which works on a full disk too
        os.ftruncate(self.fd, len(content))


@contextmanager
def claimed(data_dir: Path, *, parent: int, pause: Callable[[float], object]) -> Iterator[Claim]:
    """Hold the folder for `parent` (its pid); raise EmbeddedError at once when it is in use by somebody else.

    Servers that are on their way out are waited for; `pause(seconds)` may raise to give up.
    """
    try:
        fd = os.open(data_dir / MARKER, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except PermissionError as error:
        raise EmbeddedError(_not_yours(data_dir)) from error
    try:
        _lock(fd, data_dir, pause)
        claim = Claim(fd=fd)
        layout = _read(fd).get("layout", LAYOUT)
        if layout != LAYOUT:
            raise EmbeddedError(f"the data folder {data_dir} has layout {layout}; this release knows layout {LAYOUT}")
        claim.note(parent=parent)
        yield claim
    finally:
        os.close(fd)


def _lock(fd: int, data_dir: Path, pause: Callable[[float], object]) -> None:
    started = time.monotonic()
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            holder = _read(fd)
        parent = holder.get("parent")
        leaving = holder.get("stopping") or (isinstance(parent, int) and not _is_alive(parent))
        waited_s = time.monotonic() - started
        if waited_s > (_STOPPING_S if leaving else _GRACE_S if parent is None else 0):
            raise EmbeddedError(f"the data folder {data_dir} is in use by process {parent or 'unknown'}")
        pause(_POLL_S)


def _read(fd: int) -> dict[str, Any]:
    try:
        facts = json.loads(os.pread(fd, 4096, 0))
    except ValueError:  # new, or being written at this moment
        return {}
    return facts if isinstance(facts, dict) else {}


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _not_yours(data_dir: Path) -> str:
    return f"the data folder {data_dir} belongs to another user (we are uid {os.geteuid()}): name a folder of your own"
