"""What the embedded servers say when they cannot run: one clear sentence."""

import errno
import re
import shutil
from pathlib import Path

_FULL = {errno.ENOSPC, errno.EDQUOT}
_SAYS_FULL = re.compile(r"no space left on device|disk quota exceeded|disk full", re.IGNORECASE)
_SAYS_WHY = re.compile(r"\b(?:FATAL|PANIC|ERROR|error):\s")
_TAIL_BYTES = 8192
_FULL_BYTES = 64 * 1024


class EmbeddedError(Exception):
    """An expected failure of the embedded servers; `str()` is one sentence for the person at the terminal."""


def from_os_error(error: OSError, folder: Path) -> EmbeddedError:
    """Translate what the operating system said while `folder` was being used."""
    if error.errno in _FULL:
        return _disk_full(folder)
    where = f" ({error.filename})" if error.filename else ""
    return EmbeddedError(f"the data folder {folder} cannot be used: {error.strerror or error}{where}")


def from_log(program: str, log: Path, folder: Path) -> EmbeddedError:
    """Tell why `program` ended or kept silent, from the end of its log file."""
    tail = _tail(log)
    if _SAYS_FULL.search(tail) or _is_full(folder):  # on a full disk the log stays empty
        return _disk_full(folder)
    lines = [line.strip() for line in tail.splitlines() if line.strip()]
    reasons = [line for line in lines if _SAYS_WHY.search(line)] or lines
    said = f"its last words were: {reasons[-1]}" if reasons else "it said nothing"
    return EmbeddedError(f"{program} did not start; {said} (log: {log})")


def _disk_full(folder: Path) -> EmbeddedError:
    return EmbeddedError(f"the disk that holds the data folder {folder} is full")


def _is_full(folder: Path) -> bool:
    try:
        return shutil.disk_usage(folder).free < _FULL_BYTES
    except OSError:
        return False


def _tail(log: Path) -> str:
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - _TAIL_BYTES))
            return file.read(_TAIL_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
