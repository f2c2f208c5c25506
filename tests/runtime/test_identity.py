"""runtime.identity: kept for its user alone, never half written."""

import os
import stat
from pathlib import Path

import pytest

from runtime.identity import Identity, IdentityError, find_identity, keep_identity, path_of

ID = "3f2b9c1e-0a4d-4b55-8a2f-1f1f1f1f1f1f"
OTHER = "4f2b9c1e-0a4d-4b55-8a2f-1f1f1f1f1f1f"


def test_what_is_kept_is_found(tmp_path):
    identity = Identity(workspace_id=ID, token="t", inbound_secret="s")
    keep_identity(tmp_path / "new" / "folder", identity)
    assert find_identity(tmp_path / "new" / "folder", ID) == identity
    assert find_identity(tmp_path / "new" / "folder", None) == identity


def test_only_its_user_can_read_it_whatever_the_umask(tmp_path):
    before = os.umask(0)
    try:
        keep_identity(tmp_path / "state", Identity(workspace_id=ID))
    finally:
        os.umask(before)
    assert stat.S_IMODE(path_of(tmp_path / "state", ID).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "state").stat().st_mode) == 0o700


def test_a_write_that_fails_half_way_leaves_the_old_identity(tmp_path, monkeypatch):
    old = Identity(workspace_id=ID, token="old")
    keep_identity(tmp_path, old)

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(IdentityError, match="No space left"):
        keep_identity(tmp_path, Identity(workspace_id=ID, token="new"))
    assert find_identity(tmp_path, ID) == old


def test_a_draft_left_by_a_crash_is_in_nobodys_way(tmp_path):
    path_of(tmp_path, ID).with_suffix(f".{os.getpid()}.tmp").write_text("half")
    keep_identity(tmp_path, Identity(workspace_id=ID, token="t"))
    assert [path.name for path in tmp_path.iterdir()] == [f"{ID}.json"]


def test_nothing_kept_is_none(tmp_path):
    assert find_identity(tmp_path / "nowhere", None) is None
    assert find_identity(tmp_path, ID) is None


def test_of_several_workspaces_one_must_be_named(tmp_path):
    for workspace_id in (ID, OTHER):
        keep_identity(tmp_path, Identity(workspace_id=workspace_id))
    with pytest.raises(IdentityError, match="WORKSPACE_ID"):
        find_identity(tmp_path, None)
    found = find_identity(tmp_path, OTHER)
    assert found is not None
    assert found.workspace_id == OTHER


def test_other_files_in_the_folder_are_nobodys_identity(tmp_path):
    (tmp_path / "notes.json").write_text("{}")
    assert find_identity(tmp_path, None) is None


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"workspace_id": 1, "token": null, "inbound_secret": null}'])
def test_a_spoiled_file_is_said_and_not_replaced(tmp_path, content):
    path = path_of(tmp_path, ID)
    path.write_text(content)
    with pytest.raises(IdentityError, match=ID):
        find_identity(tmp_path, ID)
    assert path.read_text() == content


def test_a_folder_that_is_a_file_is_said(tmp_path):
    (tmp_path / "file").touch()
    for attempt in (
        lambda state: keep_identity(state, Identity(workspace_id=ID)),
        lambda state: find_identity(state, ID),
    ):
        with pytest.raises(IdentityError):
            attempt(Path(tmp_path / "file"))


def test_secrets_do_not_print():
    assert "hush" not in repr(Identity(workspace_id=ID, token="hush", inbound_secret="hush"))
