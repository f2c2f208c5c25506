"""Published versions of a2a-sdk, each in a virtual environment of its own that is built once and kept."""

import fcntl
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.harness.source import ROOT

FOLDER: Final = ROOT / ".venv-sdk"
"""Beside the environment of the project, and ignored by git like it."""
BUILD_S: Final = 240.0


class SdkUnavailable(Exception):
    """The environment cannot be built here; the message says why, in one line."""


def python_with(version: str) -> Path:
    """Return the interpreter of an environment that has this version; builds it on first use. Raises SdkUnavailable."""
    FOLDER.mkdir(exist_ok=True)
    with _alone(FOLDER / f"{version}.lock"):
        python = FOLDER / version / "bin" / "python"
        if not python.exists():  # nor if the interpreter that it was made from is gone
            _build(version)
        return python


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _build(version: str) -> None:
    """Build under another name first, so that an environment that is there is whole."""
    unfinished, finished = FOLDER / f"{version}.unfinished", FOLDER / version
    for folder in (unfinished, finished):
        shutil.rmtree(folder, ignore_errors=True)
    _run(sys.executable, "-m", "venv", str(unfinished))
    pip = (str(unfinished / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check")
    _run(*pip, "install", f"a2a-sdk[http-server]=={version}")
    unfinished.rename(finished)


def _run(*command: str) -> None:
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=BUILD_S, stdin=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip().splitlines()
        raise SdkUnavailable(f"{' '.join(command[1:4])} failed: {said[-1] if said else error.returncode}") from error
    except subprocess.TimeoutExpired as error:
        raise SdkUnavailable(f"{' '.join(command[1:4])} took longer than {BUILD_S:g} s") from error
