"""The schema forward and back, one migrator at a time.

yoyo keeps the books; the lock is ours. yoyo's own is a row with a process id that outlives a SIGKILL; an advisory
lock ends with its session, and here that session is the one that migrates: while the lock is gone, so is the work.
"""

import glob
import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import structlog
from yoyo import read_migrations
from yoyo.backends.core.postgresql import PostgresqlBackend
from yoyo.connections import DatabaseURI
from yoyo.migrations import Migration, MigrationList, default_migration_table

import sql
from gateway.ports import StoreUnavailable
from gateway.store.conninfo import conninfo
from gateway.store.failures import translated

log = structlog.get_logger("gateway.store")

_LOCK = 0x61326167  # the key of the advisory lock, "a2ag"; every database has keys of its own
_POLL_S = 0.1
_SETTINGS = {
    "statement_timeout": "0",
    # A migration whose process was killed is stopped within a second, and its locks are let go.
    "client_connection_check_interval": "1000",
}


def migrate(database_url: str, *, folder: Path | None = None, wait_s: float = 300.0) -> list[str]:
    """Apply what is not applied yet, in the order of the file names; return the ids, such as `0001.workspaces`.

    `folder` (the package's own by default) holds `NNNN.name.sql` files, each with its `NNNN.name.rollback.sql`. A
    migration and the note that it was applied commit together, unless it says `-- transactional: false`. Ids that
    only a newer release knows are left alone. Blocks for as long as another process migrates, `wait_s` at most. Raises
    StoreUnavailable, or StoreError for SQL that fails; what was applied before it stays.
    """
    with _locked(database_url, wait_s=wait_s) as books, translated():
        missing = list(books.to_apply(_known(folder)))
        for migration in missing:
            books.apply_one(migration)
            log.info("migration_applied", id=migration.id)
        return [migration.id for migration in missing]


def rollback(database_url: str, *, count: int = 1, folder: Path | None = None, wait_s: float = 300.0) -> list[str]:
    """Undo the latest `count` applied migrations that `folder` knows, latest first; return their ids.

    Raises as `migrate` does, and ValueError, before anything is undone, for one without a `.rollback.sql`.
    """
    with _locked(database_url, wait_s=wait_s) as books, translated():
        latest = list(books.to_rollback(_known(folder)))[:count]
        for migration in latest:
            if not Path(migration.path).with_suffix(".rollback.sql").exists():
                raise ValueError(f"{migration.id} cannot be undone: it has no .rollback.sql")
        for migration in latest:
            books.rollback_one(migration)
            log.info("migration_rolled_back", id=migration.id)
        return [migration.id for migration in latest]


def pending(database_url: str, *, folder: Path | None = None) -> list[str]:
    """The ids that `migrate` would apply now; nothing is written, no lock is waited for."""
    known = _known(folder)
    with _opened(database_url) as books, translated():
        if books.migration_table not in books.list_tables():
            return [migration.id for migration in known]
        return [migration.id for migration in books.to_apply(known)]


def _known(folder: Path | None) -> MigrationList:
    """Every migration of a folder; raises ValueError for a folder without any."""
    place = folder or Path(sql.__path__[0]) / "migrations"
    known = read_migrations(glob.escape(str(place)))
    if not known:
        raise ValueError(f"there are no migrations in {place}")
    return known


@contextmanager
def _locked(database_url: str, *, wait_s: float) -> Iterator["_Books"]:
    """The books, for as long as nobody else has them; closing their session lets the lock go."""
    with _opened(database_url) as books:
        _wait_for_lock(books, wait_s)
        yield books


@contextmanager
def _opened(database_url: str) -> Iterator["_Books"]:
    wanted = conninfo(database_url, application_name="a2a-gateway migrate", settings=_SETTINGS)
    nowhere = dict.fromkeys(("username", "password", "hostname", "port", "database"))
    with translated():
        books = _Books(DatabaseURI(scheme="postgresql", args=dict(wanted), **nowhere), default_migration_table)
    try:
        yield books
    finally:
        books.connection.close()


def _wait_for_lock(books: "_Books", wait_s: float) -> None:
    # Asked for again and again: a session that waits inside pg_advisory_lock holds a snapshot, and the migration it
    # waits for would in turn wait for that snapshot in CREATE INDEX CONCURRENTLY.
    deadline = time.monotonic() + wait_s
    told = False
    with translated(), books.cursor() as cursor:
        while True:
            cursor.execute("SELECT pg_try_advisory_lock(%s)", (_LOCK,))
            if cursor.fetchone()[0]:
                return
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"another process has been migrating for more than {wait_s:g} s")
            if not told:
                log.info("migration_waits")
                told = True
            time.sleep(_POLL_S)


class _Books(PostgresqlBackend):  # type: ignore[misc] # yoyo is untyped
    """yoyo's tables; they are written in the same transaction, on the same session, as what they tell about."""

    @contextmanager
    def lock(self, timeout: float = 0) -> Iterator[None]:
        """Nothing: whoever holds `_Books` for writing holds the advisory lock."""
        yield

    def apply_one(self, migration: Migration, force: bool = False, mark: bool = True) -> None:
        """Run a migration and note it."""
        self._run(migration, "apply", self.mark_one)

    def rollback_one(self, migration: Migration, force: bool = False) -> None:
        """Undo a migration and strike it out."""
        self._run(migration, "rollback", self.unmark_one)

    def _run(self, migration: Migration, direction: str, note: Callable[..., None]) -> None:
        self.ensure_internal_schema_updated()
        migration.load()
        if not migration.use_transactions:
            migration.process_steps(self, direction)
        with self.transaction():
            if migration.use_transactions:
                migration.process_steps(self, direction)
            self.log_migration(migration, direction)
            note(migration, log=False)

    def get_log_data(self, migration: Migration | None = None, operation: str = "apply") -> dict[str, Any]:
        """One line of yoyo's log; its own asks DNS for our name, and fails for a user without a passwd entry."""
        return {
            "id": str(uuid.uuid4()),
            "migration_id": migration.id if migration else None,
            "migration_hash": migration.hash if migration else None,
            "username": str(os.getuid()),
            "hostname": socket.gethostname(),
            "created_at_utc": datetime.now(UTC).replace(tzinfo=None),
            "operation": operation,
        }
