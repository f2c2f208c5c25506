import json
import os
import stat
import subprocess
import sys
import threading

import pytest

from gateway.embedded import account as accounts
from gateway.embedded import folder
from gateway.embedded.errors import EmbeddedError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture
def dead_pid() -> int:
    process = subprocess.Popen((sys.executable, "-c", ""))
    process.wait()
    return process.pid


class GaveUp(Exception):
    pass


def give_up(seconds: float) -> None:
    raise GaveUp


def test_the_default_is_in_the_current_folder_when_the_servers_can_live_there(open_tmp):
    (open_tmp / "checkout").mkdir(mode=0o755)
    if account := accounts.choose(open_tmp):
        assert accounts.find_closed(open_tmp / "checkout", account) is None
    assert folder.default(open_tmp / "checkout") == open_tmp / "checkout/.data"


@as_root
def test_root_s_default_behind_a_closed_folder_is_a_system_folder_of_its_own(open_tmp):
    for name in ("one", "two"):
        (open_tmp / name).mkdir(mode=0o700)
    one, two = folder.default(open_tmp / "one"), folder.default(open_tmp / "two")
    assert one.parent == two.parent == folder.SYSTEM_STATE
    assert one != two
    assert folder.default(open_tmp / "one") == one


def test_a_normal_user_s_default_without_a_writable_folder_is_in_the_home(open_tmp, monkeypatch):
    monkeypatch.setattr(accounts, "choose", lambda data_dir: None)
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    monkeypatch.setenv("HOME", str(open_tmp))
    assert folder.default(open_tmp).parent == open_tmp / ".local/state/a2a-gateway"


def test_missing_parents_can_be_passed_through_whatever_the_umask(open_tmp):
    before = os.umask(0o077)
    try:
        folder.prepare(open_tmp / "a/b/d", None)
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((open_tmp / part).stat().st_mode) for part in ("a", "a/b", "a/b/d")]
    assert modes == [0o755, 0o755, 0o700]


def test_a_file_system_s_own_folder_does_not_make_a_folder_foreign(open_tmp):
    (open_tmp / "lost+found").mkdir()
    folder.prepare(open_tmp, None)


def test_a_file_is_not_a_data_folder(open_tmp):
    (open_tmp / "d").touch()
    with pytest.raises(EmbeddedError, match=r"is not a folder$"):
        folder.prepare(open_tmp / "d", None)
    with pytest.raises(EmbeddedError, match="cannot be used: Not a directory"):
        folder.prepare(open_tmp / "d/e", None)


def test_who_holds_the_folder_is_written_down_and_told_to_the_next(tmp_path):
    with folder.claimed(tmp_path, parent=os.getpid(), pause=give_up):
        assert json.loads((tmp_path / folder.MARKER).read_text()) == {"layout": folder.LAYOUT, "parent": os.getpid()}
        with (
            pytest.raises(EmbeddedError, match=f"in use by process {os.getpid()}$"),
            folder.claimed(tmp_path, parent=1, pause=lambda seconds: None),
        ):
            pytest.fail("two claims")


@pytest.mark.parametrize("facts", [{"stopping": True}, {}])
def test_servers_that_are_leaving_are_waited_for(tmp_path, dead_pid, facts):
    with folder.claimed(tmp_path, parent=dead_pid, pause=give_up) as claim:
        claim.note(parent=os.getpid() if facts else dead_pid, **facts)
        with pytest.raises(GaveUp), folder.claimed(tmp_path, parent=1, pause=give_up):
            pytest.fail("two claims")


def test_the_next_gets_the_folder_as_soon_as_the_last_has_left(tmp_path, dead_pid):
    waiting, got = threading.Event(), threading.Event()

    def pause(seconds: float) -> None:
        waiting.set()
        threading.Event().wait(seconds)

    def next_one() -> None:
        with folder.claimed(tmp_path, parent=os.getpid(), pause=pause):
            got.set()

    thread = threading.Thread(target=next_one)
    with folder.claimed(tmp_path, parent=dead_pid, pause=give_up):
        thread.start()
        assert waiting.wait(10)
        assert not got.is_set()
    assert got.wait(10)
    thread.join()


def test_the_lock_lasts_as_long_as_a_server_that_inherited_it(tmp_path, dead_pid):
    with folder.claimed(tmp_path, parent=dead_pid, pause=give_up) as claim:
        server = subprocess.Popen(("sleep", "600"), pass_fds=(claim.fd,))
    try:
        with pytest.raises(GaveUp), folder.claimed(tmp_path, parent=1, pause=give_up):
            pytest.fail("a server still lives")
    finally:
        server.kill()
        server.wait()
    with folder.claimed(tmp_path, parent=1, pause=give_up):
        pass


def test_a_layout_of_the_future_is_refused(tmp_path):
    (tmp_path / folder.MARKER).write_text('{"layout": 2}')
    with (
        pytest.raises(EmbeddedError, match=r"has layout 2; this release knows layout 1$"),
        folder.claimed(tmp_path, parent=1, pause=give_up),
    ):
        pytest.fail("claimed")


@pytest.mark.parametrize("content", ["", "{", "[]", "null"])
def test_a_marker_that_was_cut_short_is_still_ours(tmp_path, content):
    (tmp_path / folder.MARKER).write_text(content)
    with folder.claimed(tmp_path, parent=1, pause=give_up):
        pass
