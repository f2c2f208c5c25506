"""The schema forward and back, on the real server, with real processes that die."""

import asyncio
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg2
import pytest

import gateway
import sql
from gateway.ports import StoreError, StoreUnavailable
from gateway.store.migrate import migrate, pending, rollback

SLOW = "CREATE TABLE second (); DO $$ BEGIN PERFORM pg_sleep(60); END $$;"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "a folder [of] migrations"


@pytest.fixture
def write(folder: Path) -> Callable[[str, str, str | None], None]:
    """Write one migration and, if given, the way back."""
    folder.mkdir()

    def write(migration: str, forward: str, back: str | None = None) -> None:
        (folder / f"{migration}.sql").write_text(forward)
        if back is not None:
            (folder / f"{migration}.rollback.sql").write_text(back)

    return write


@pytest.fixture
def two(write) -> None:
    write("0001.first", "CREATE TABLE first (n int);\nINSERT INTO first VALUES (100);", "DROP TABLE first;")
    write("0002.second", "CREATE TABLE second (n text DEFAULT '50%');", "DROP TABLE second;")


@pytest.fixture
def ask(empty_database_url: str) -> Iterator[Callable[[str], list[tuple]]]:
    session = psycopg2.connect(empty_database_url)
    session.autocommit = True

    def ask(query: str) -> list[tuple]:
        with session.cursor() as cursor:
            cursor.execute(query)
            return cursor.fetchall()

    yield ask
    session.close()


def tables(ask) -> set[str]:
    return {name for (name,) in ask("SELECT tablename FROM pg_tables WHERE tablename IN ('first', 'second')")}


def start(url: str, folder: Path) -> subprocess.Popen:
    program = (
        "import sys; from pathlib import Path; from gateway.store.migrate import migrate; "
        "migrate(sys.argv[1], folder=Path(sys.argv[2]))"
    )
    return subprocess.Popen(
        (sys.executable, "-c", program, url, str(folder)),
        cwd=Path(gateway.__path__[0]).parent,
        stdout=subprocess.DEVNULL,
    )


def test_migrations_are_applied_once_and_in_order(empty_database_url, folder, two, ask):
    assert pending(empty_database_url, folder=folder) == ["0001.first", "0002.second"]
    assert ask("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'") == [(0,)]
    assert migrate(empty_database_url, folder=folder) == ["0001.first", "0002.second"]
    assert pending(empty_database_url, folder=folder) == []
    assert migrate(empty_database_url, folder=folder) == []
    assert ask("SELECT n FROM first") == [(100,)]


def test_the_way_back_is_taken_latest_first(empty_database_url, folder, two, ask):
    migrate(empty_database_url, folder=folder)
    assert rollback(empty_database_url, folder=folder) == ["0002.second"]
    assert tables(ask) == {"first"}
    assert rollback(empty_database_url, folder=folder, count=9) == ["0001.first"]
    assert tables(ask) == set()
    assert migrate(empty_database_url, folder=folder) == ["0001.first", "0002.second"]


def test_nothing_is_undone_when_one_of_them_cannot_be(empty_database_url, folder, write, ask):
    write("0001.first", "CREATE TABLE first ();")
    write("0002.second", "CREATE TABLE second ();", "DROP TABLE second;")
    migrate(empty_database_url, folder=folder)
    with pytest.raises(ValueError, match=r"0001\.first cannot be undone"):
        rollback(empty_database_url, folder=folder, count=2)
    assert tables(ask) == {"first", "second"}


def test_a_migration_that_fails_leaves_nothing_of_itself_and_keeps_those_before(empty_database_url, folder, write, ask):
    write("0001.first", "CREATE TABLE first ();")
    write("0002.second", "CREATE TABLE second (); SELECT 1/0;")
    with pytest.raises(StoreError, match="division by zero"):
        migrate(empty_database_url, folder=folder)
    assert tables(ask) == {"first"}
    assert pending(empty_database_url, folder=folder) == ["0002.second"]


def test_a_migration_that_cannot_be_noted_has_not_happened(empty_database_url, folder, write, ask):
    write("0001.first", "CREATE TABLE first ();")
    write("0002.second", "CREATE TABLE second (); DROP TABLE _yoyo_log;")
    with pytest.raises(StoreError, match="_yoyo_log"):
        migrate(empty_database_url, folder=folder)
    assert tables(ask) == {"first"}


def test_a_migration_may_run_outside_a_transaction(empty_database_url, folder, write, ask):
    write("0001.first", "CREATE TABLE first (n int);")
    write("0002.index", "-- transactional: false\nCREATE INDEX CONCURRENTLY first_n ON first (n);")
    assert migrate(empty_database_url, folder=folder) == ["0001.first", "0002.index"]
    assert ask("SELECT count(*) FROM pg_indexes WHERE indexname = 'first_n'") == [(1,)]


def test_an_older_release_leaves_a_newer_schema_alone(empty_database_url, folder, two, ask):
    migrate(empty_database_url, folder=folder)
    for file in folder.glob("0002*"):
        file.unlink()
    assert pending(empty_database_url, folder=folder) == []
    assert migrate(empty_database_url, folder=folder) == []
    assert rollback(empty_database_url, folder=folder, count=9) == ["0001.first"]
    assert tables(ask) == {"second"}


def test_two_who_migrate_at_once_apply_everything_once(empty_database_url, folder, write):
    write("0001.first", "CREATE TABLE first (); DO $$ BEGIN PERFORM pg_sleep(0.3); END $$;")
    with ThreadPoolExecutor(3) as threads:
        runs = [threads.submit(migrate, empty_database_url, folder=folder) for _ in range(3)]
    assert sorted(run.result() for run in runs) == [[], [], ["0001.first"]]


async def test_a_migrator_that_is_killed_blocks_nobody(empty_database_url, folder, write, ask, eventually):
    write("0001.first", "CREATE TABLE first ();")
    write("0002.second", SLOW)
    child = start(empty_database_url, folder)
    await eventually(lambda: ask("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
    child.kill()
    child.wait()
    assert tables(ask) == {"first"}
    write("0002.second", "CREATE TABLE second ();")
    assert await asyncio.to_thread(migrate, empty_database_url, folder=folder, wait_s=10) == ["0002.second"]
    assert ask("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'") == [(0,)]
    assert tables(ask) == {"first", "second"}


async def test_whoever_waits_too_long_for_another_migrator_is_told_so(
    empty_database_url, folder, write, ask, eventually
):
    write("0001.second", SLOW)
    child = start(empty_database_url, folder)
    try:
        await eventually(lambda: ask("SELECT 1 FROM pg_stat_activity WHERE wait_event = 'PgSleep'"))
        with pytest.raises(StoreUnavailable, match="another process"):
            await asyncio.to_thread(migrate, empty_database_url, folder=folder, wait_s=0.2)
    finally:
        child.kill()
        child.wait()


def test_a_folder_without_migrations_is_a_mistake(empty_database_url, tmp_path):
    with pytest.raises(ValueError, match="no migrations"):
        migrate(empty_database_url, folder=tmp_path)


def test_a_server_that_is_not_there_is_unavailable(tmp_path, folder, two):
    with pytest.raises(StoreUnavailable):
        migrate(f"postgresql://u@/x?host={tmp_path}", folder=folder)


def test_our_own_migrations_go_forward_back_and_forward_again(empty_database_url, ask):
    everything = """
        SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relname !~ 'yoyo'
        UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace
    """
    ids = migrate(empty_database_url)
    assert ids == sorted(ids)
    forward = ask(everything)
    assert rollback(empty_database_url, count=len(ids)) == ids[::-1]
    assert ask(everything) == []
    assert migrate(empty_database_url) == ids
    assert sorted(ask(everything)) == sorted(forward)


def test_each_of_our_own_migrations_has_a_way_back():
    files = {file.name for file in (Path(sql.__path__[0]) / "migrations").glob("*.sql")}
    forward = {name for name in files if not name.endswith(".rollback.sql")}
    assert files - forward == {name.removesuffix(".sql") + ".rollback.sql" for name in forward}
