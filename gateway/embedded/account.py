"""Under which user the servers run: ours, or, because PostgreSQL refuses root, an unprivileged one."""

import os
import pwd
import stat
from dataclasses import dataclass
from pathlib import Path

from gateway.embedded.errors import EmbeddedError

PREFERRED = ("a2a-gateway", "nobody")


@dataclass(frozen=True, kw_only=True)
class Account:
    """An unprivileged user with an entry in the password database (initdb asks for its name)."""

    name: str
    uid: int
    gid: int


def choose(data_dir: Path) -> Account | None:
    """Return the account that root hands the servers to; None when we are not root and they simply run as we do.

    A data folder that exists keeps its account, so a folder made by a normal user also works for root; a new one gets
    the first of `PREFERRED` that exists. Raises EmbeddedError when there is none.
    """
    if os.geteuid() != 0:
        return None
    try:
        owner = (data_dir / "postgres").stat().st_uid
        if owner != 0:
            return _of(pwd.getpwuid(owner))
    except (OSError, KeyError):
        pass
    for name in PREFERRED:
        try:
            return _of(pwd.getpwnam(name))
        except KeyError:
            continue
    raise EmbeddedError(
        f"PostgreSQL does not run as root and none of the users {', '.join(PREFERRED)} exists: "
        f"create one with `useradd --system {PREFERRED[0]}`"
    )


def find_closed(path: Path, account: Account) -> Path | None:
    """Return the outermost existing part of `path` (itself included) that `account` may not enter or run, if any.

    Judged by mode bits: access lists are not read, so a folder opened by them alone counts as closed.
    """
    path = path.resolve()
    for part in (*reversed(path.parents), path):
        try:
            status = part.stat()
        except FileNotFoundError:
            return None
        if status.st_uid == account.uid:
            needed = stat.S_IXUSR
        elif status.st_gid == account.gid:
            needed = stat.S_IXGRP
        else:
            needed = stat.S_IXOTH
        if not status.st_mode & needed:
            return part
    return None


def _of(entry: pwd.struct_passwd) -> Account:
    return Account(name=entry.pw_name, uid=entry.pw_uid, gid=entry.pw_gid)
