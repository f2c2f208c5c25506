from pathlib import Path

import pytest

from gateway.embedded import postgres
from gateway.embedded.errors import EmbeddedError


def described(tmp_path: Path, *, durable: bool) -> postgres.Server:
    return postgres.server(
        cluster=tmp_path, run_dir=tmp_path / "run", log=tmp_path / "log", bin_folder=tmp_path, durable=durable
    )


def test_durable_is_postgresql_s_own_default_and_nothing_is_switched_off(tmp_path):
    assert not [word for word in described(tmp_path, durable=True).argv if word.endswith("=off")]
    assert "fsync=off" in described(tmp_path, durable=False).argv


def test_data_of_another_major_version_are_refused(tmp_path):
    (tmp_path / "PG_VERSION").write_text("16\n")
    with pytest.raises(EmbeddedError, match=r"is of PostgreSQL 16, the installed wheel has 18$"):
        postgres.check_version(tmp_path)


def test_the_pid_file_of_the_dead_is_removed_if_there_is_one(tmp_path):
    (tmp_path / "postmaster.pid").touch()
    for _ in range(2):
        postgres.forget_dead(tmp_path)
        assert list(tmp_path.iterdir()) == []


def test_a_pid_file_of_another_process_or_without_an_open_door_is_not_ready(tmp_path, servers):
    honest = (servers.data_dir / "postgres/postmaster.pid").read_text()
    pid = int(honest.splitlines()[0])
    at_home = postgres.server(
        cluster=servers.data_dir / "postgres",
        run_dir=servers.data_dir / "run",
        log=tmp_path / "log",
        bin_folder=tmp_path,
        durable=False,
    )
    assert at_home.is_ready(pid)
    assert not at_home.is_ready(pid + 1)
    elsewhere = described(tmp_path, durable=False)
    assert not elsewhere.is_ready(pid), "no pid file"
    (tmp_path / "postmaster.pid").write_text(honest)
    assert not elsewhere.is_ready(pid), "no socket"
