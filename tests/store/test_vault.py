from base64 import urlsafe_b64encode

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.store.vault import BadKey, FernetVault, from_file, new_key

KEY = urlsafe_b64encode(bytes(range(32))).decode()


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_a_secret_comes_back_and_does_not_show(secret):
    vault = FernetVault(KEY.encode())
    sealed = vault.seal(secret)
    assert vault.unseal(sealed) == secret
    assert len(secret) < 4 or secret.encode() not in sealed


def test_one_secret_is_sealed_differently_each_time():
    vault = FernetVault(KEY.encode())
    assert vault.seal("secret") != vault.seal("secret")


def test_another_key_opens_nothing_and_neither_does_a_changed_seal():
    sealed = FernetVault(KEY.encode()).seal("secret")
    assert FernetVault(new_key().encode()).unseal(sealed) is None
    vault = FernetVault(KEY.encode())
    other = b"B" if sealed[20:21] == b"A" else b"A"
    for broken in (sealed[:-1], sealed[:20] + other + sealed[21:], b"", b"\xff", memoryview(sealed)[:-4]):
        assert vault.unseal(broken) is None


@pytest.mark.parametrize("key", [b"", b"short", b"!" * 44, KEY.encode()[:-5], "clé".encode()])
def test_what_is_no_key_is_refused_with_the_way_to_one(key):
    with pytest.raises(BadKey, match="secrets-key"):
        FernetVault(key)


def test_a_key_file_may_end_with_a_line_break_and_must_be_private(tmp_path):
    path = tmp_path / "key"
    path.write_text(KEY + "\n")
    for mode in (0o644, 0o640, 0o604, 0o666):
        path.chmod(mode)
        with pytest.raises(BadKey, match="may be read by others; make it 0600"):
            from_file(path)
    path.chmod(0o600)
    assert from_file(path).unseal(FernetVault(KEY.encode()).seal("x")) == "x"


def test_a_key_file_that_is_not_there_is_named_with_the_reason(tmp_path):
    for path in (tmp_path / "nowhere", tmp_path):
        with pytest.raises(BadKey) as refused:
            from_file(path)
        assert str(refused.value).startswith(f"{path} ")
