import os
import signal
import sys
import time

import psutil
import pytest

from gateway.embedded import child as children
from gateway.embedded.child import Child, Server


@pytest.fixture
def keep_fd(tmp_path):
    fd = os.open(tmp_path / "lock", os.O_RDWR | os.O_CREAT)
    yield fd
    os.close(fd)


@pytest.fixture
def begin(tmp_path, keep_fd):
    """`begin(code)` starts Python code as a server whose stop signal is SIGTERM."""
    begun: list[Child] = []

    def start(code: str) -> Child:
        server = Server(
            name="X",
            argv=(sys.executable, "-c", code),
            log=tmp_path / "x.log",
            stop_signal=signal.SIGTERM,
            is_ready=lambda pid: (tmp_path / "x.log").read_text().endswith(f"ready {pid}\n"),
        )
        begun.append(Child(server, account=None, keep_fd=keep_fd))
        return begun[-1]

    yield start
    for child in begun:
        if child.is_alive():
            child.finish(0.0)


READY = "import os, time; print('ready', os.getpid(), flush=True); time.sleep(600)"
DEAF = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {READY}"


def test_it_is_ready_when_its_server_says_so_and_stops_when_asked(begin, until):
    child = begin(READY)
    until(child.is_ready)
    assert child.is_alive()
    assert child.revive() is None, "nothing to do for the living"
    child.ask_to_stop()
    child.finish(time.monotonic() + 30)
    assert not child.is_alive()


def test_one_that_does_not_listen_is_killed_at_the_deadline(begin, until):
    child = begin(DEAF)
    until(child.is_ready)
    child.ask_to_stop()
    child.finish(time.monotonic() + 0.2)
    assert not child.is_alive()


def test_the_dead_are_revived_after_a_pause_that_grows(begin, until):
    child = begin("raise SystemExit(3)")
    pauses = []
    for _ in range(2):
        until(lambda: not child.is_alive())
        pauses.append(child.revive())
        until(lambda: child.revive() is None)
    assert [round(pause, 1) for pause in pauses] == [0.5, 1.0]
    assert child.server.log.read_text().count("X ended with code 3; again in") == 2


def test_a_server_starts_in_a_clean_environment_with_the_lock_and_no_input(begin, keep_fd, until, monkeypatch):
    monkeypatch.setenv("PGDATA", "/elsewhere")
    code = f"import os, sys; os.fstat({keep_fd}); print(sorted(os.environ), os.getcwd(), repr(sys.stdin.read()))"
    child = begin(code)
    until(lambda: not child.is_alive())
    assert child.server.log.read_text() == "['LC_ALL', 'PATH', 'TZ'] / ''\n"


def test_a_server_is_in_a_process_group_of_its_own(begin, until):
    child = begin(READY)
    until(child.is_ready)
    [process] = [p for p in psutil.Process().children() if str(p.pid) in child.server.log.read_text()]
    assert os.getpgid(process.pid) == process.pid


def test_one_log_of_the_time_before_is_kept(tmp_path):
    for words in (b"first", b"second", b"third"):
        fd = children.open_log(tmp_path / "x.log")
        os.write(fd, words)
        os.close(fd)
    assert (tmp_path / "x.log").read_bytes() == b"third"
    assert (tmp_path / "x.log.old").read_bytes() == b"second"


def test_a_log_is_not_written_through_a_link(tmp_path):
    (tmp_path / "x.log").symlink_to(tmp_path / "victim")
    with pytest.raises(OSError, match="symbolic links"):
        children.open_log(tmp_path / "x.log")
    assert not (tmp_path / "victim").exists()
