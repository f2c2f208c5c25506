import os
import pwd

import pytest

from gateway.embedded import account as accounts
from gateway.embedded.errors import EmbeddedError

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root chooses")
STRANGER = accounts.Account(name="stranger", uid=54321, gid=54321)


@pytest.mark.skipif(os.geteuid() == 0, reason="root chooses")
def test_a_normal_user_s_servers_run_as_that_user(tmp_path):
    assert accounts.choose(tmp_path) is None


@as_root
def test_a_new_folder_gets_the_first_preferred_account_that_exists(tmp_path, monkeypatch):
    monkeypatch.setattr(accounts, "PREFERRED", ("nobody-of-this-name", "daemon"))
    chosen = accounts.choose(tmp_path)
    assert chosen is not None
    assert (chosen.name, chosen.uid) == ("daemon", pwd.getpwnam("daemon").pw_uid)


@as_root
def test_a_folder_that_exists_keeps_its_account(tmp_path):
    daemon = pwd.getpwnam("daemon")
    (tmp_path / "postgres").mkdir()
    os.chown(tmp_path / "postgres", daemon.pw_uid, daemon.pw_gid)
    chosen = accounts.choose(tmp_path)
    assert chosen == accounts.Account(name="daemon", uid=daemon.pw_uid, gid=daemon.pw_gid)


@as_root
def test_without_any_unprivileged_account_the_sentence_says_how_to_make_one(tmp_path, monkeypatch):
    monkeypatch.setattr(accounts, "PREFERRED", ("nobody-of-this-name",))
    with pytest.raises(EmbeddedError, match="create one with `useradd --system nobody-of-this-name`"):
        accounts.choose(tmp_path)


def test_the_outermost_closed_folder_is_found(open_tmp):
    inner = open_tmp / "closed/inner/file"
    inner.parent.mkdir(parents=True)
    assert accounts.find_closed(inner, STRANGER) is None, "what does not exist yet is not closed"
    (open_tmp / "closed/inner").chmod(0o700)
    assert accounts.find_closed(inner, STRANGER) == open_tmp / "closed/inner"
    (open_tmp / "closed").chmod(0o700)
    assert accounts.find_closed(inner, STRANGER) == open_tmp / "closed"
    (open_tmp / "closed").chmod(0o701)
    (open_tmp / "closed/inner").chmod(0o711)
    assert accounts.find_closed(inner, STRANGER) is None


def test_the_bits_of_the_owner_and_of_the_group_count_for_them_alone(open_tmp):
    status = open_tmp.stat()
    owner = accounts.Account(name="o", uid=status.st_uid, gid=54321)
    member = accounts.Account(name="m", uid=54321, gid=status.st_gid)
    for mode, closed_to in ((0o077, owner), (0o707, member), (0o770, STRANGER)):
        (open_tmp / "x").mkdir(exist_ok=True)
        (open_tmp / "x").chmod(mode)
        closed = [who for who in (owner, member, STRANGER) if accounts.find_closed(open_tmp / "x", who)]
        assert closed == [closed_to]


def test_a_link_is_judged_by_where_it_leads(open_tmp):
    (open_tmp / "closed").mkdir(mode=0o700)
    (open_tmp / "link").symlink_to(open_tmp / "closed")
    assert accounts.find_closed(open_tmp / "link", STRANGER) == open_tmp / "closed"
