"""What may be asked of PostgreSQL: three verbs, alone or inside a transaction."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Protocol

import structlog

from gateway.ports import StoreError
from gateway.store.pool import Pool, Session
from gateway.store.values import Row

log = structlog.get_logger("gateway.store")


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """What the server said to one statement: its rows, how many rows it touched, and its command tag."""

    rows: list[Row]
    affected: int
    tag: str


class Connection(Session, Protocol):
    """A session that runs statements."""

    async def run(self, query: str, params: Mapping[str, object], /) -> Answer:
        """Run one statement; raises StoreError. A cancel leaves it to `recover`."""


class Transaction:
    """The three verbs inside one transaction; built by `Database.transaction`, of no use after it."""

    def __init__(self, connection: Connection) -> None:
        self._connection: Connection | None = connection

    async def fetch(self, query: str, /, **params: object) -> list[Row]:
        """Every row of the answer."""
        return (await self._run(query, params)).rows

    async def fetch_one(self, query: str, /, **params: object) -> Row | None:
        """The first row of the answer, or None."""
        return next(iter(await self.fetch(query, **params)), None)

    async def execute(self, query: str, /, **params: object) -> int:
        """The number of rows affected."""
        return (await self._run(query, params)).affected

    async def _run(self, query: str, params: Mapping[str, object]) -> Answer:
        if self._connection is None:
            raise RuntimeError("the transaction is over")
        return await self._connection.run(query, params)

    async def _commit(self) -> None:
        # After a failed statement PostgreSQL answers COMMIT with ROLLBACK, and no error.
        if (await self._run("COMMIT", {})).tag != "COMMIT":
            raise StoreError("nothing was committed: a statement of the transaction had failed")

    def _ended(self) -> Connection:
        connection, self._connection = self._connection, None
        assert connection is not None
        return connection


class Database:
    """A pool of connections and the verbs on it; built by `db.opened`.

    Queries carry `%(name)s` placeholders and, when they have any, write a percent sign as `%%`. Parameters may be str
    (stored without NUL), numbers, bool, bytes, aware datetime, UUID, None, `Json`, or a list of these for an SQL array
    (which needs its cast: `%(ids)s::uuid[]`). `idempotent` declares that a statement may run twice: when its
    connection is lost under it, it is sent once more on a fresh one. Every verb raises `gateway.ports.StoreError`.
    """

    def __init__(self, pool: "Pool[Connection]") -> None:
        self._pool = pool

    def __repr__(self) -> str:
        return f"<Database {self._pool!r}>"

    @property
    def idle(self) -> int:
        """Open connections that nobody uses."""
        return self._pool.idle

    async def fetch(self, query: str, /, *, idempotent: bool = False, **params: object) -> list[Row]:
        """Every row of the answer."""
        return (await self._run(query, params, idempotent=idempotent)).rows

    async def fetch_one(self, query: str, /, *, idempotent: bool = False, **params: object) -> Row | None:
        """The first row of the answer, or None."""
        return next(iter(await self.fetch(query, idempotent=idempotent, **params)), None)

    async def execute(self, query: str, /, *, idempotent: bool = False, **params: object) -> int:
        """The number of rows affected."""
        return (await self._run(query, params, idempotent=idempotent)).affected

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Transaction]:
        """One transaction: committed at the end of the block, rolled back when the block raises or is cancelled."""
        connection, _ = await self._ran("BEGIN", {}, idempotent=True)
        transaction = Transaction(connection)
        try:
            yield transaction
            await transaction._commit()
        except Exception:
            with suppress(StoreError):  # the pool recovers what cannot be rolled back here
                await transaction.execute("ROLLBACK")
            raise
        finally:
            self._pool.give(transaction._ended())

    async def _run(self, query: str, params: Mapping[str, object], *, idempotent: bool) -> Answer:
        connection, answer = await self._ran(query, params, idempotent=idempotent)
        self._pool.give(connection)
        return answer

    async def _ran(
        self, query: str, params: Mapping[str, object], *, idempotent: bool, fresh: bool = False
    ) -> tuple[Connection, Answer]:
        """A connection on which the statement has run, and its answer; the caller owes the pool the connection."""
        connection = await self._pool.take(fresh=fresh)
        try:
            return connection, await connection.run(query, params)
        except BaseException as error:
            lost = isinstance(error, StoreError) and not connection.is_alive()
            self._pool.give(connection)
            if not (lost and idempotent):
                raise
            log.info("store_retried", error=str(error))
        return await self._ran(query, params, idempotent=False, fresh=True)
