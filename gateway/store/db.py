"""The one door to PostgreSQL: statements in, rows and the errors of `gateway.ports` out.

aiopg is known here alone. What it does not do by itself, this module adds: it waits without `select` (which fails
from file descriptor 1024 on), lets an asyncio cancel be a cancel and a server's timeout be an error, stops cancelled
statements on the server, and notices a dead socket before a statement is sent into it.
"""

import asyncio
import select
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any

import aiopg
import psycopg2
from psycopg2.extensions import POLL_OK, POLL_READ, POLL_WRITE, TRANSACTION_STATUS_IDLE, cursor

from gateway.store.conninfo import Conninfo, conninfo, targets
from gateway.store.database import Answer, Connection, Database, Transaction
from gateway.store.failures import translated
from gateway.store.pool import Pool, Spawn
from gateway.store.values import Json, Row, bound, teach

__all__ = ["Database", "Json", "Row", "Transaction", "check_url", "opened"]

GRACE_S = 5.0
"""How much longer than the server's own limit a statement is waited for before the connection counts as dead."""

AGAIN_S = 0.1
"""How long a cancelled statement gets to end before it is cancelled again."""

_LAST_WORDS = 4
"""How often a socket at rest is read to learn its state; a server that ends a session says why, then hangs up."""


class _Connection(aiopg.Connection):
    """A session with the server, as the pool and the verbs expect it."""

    def __init__(self, target: Mapping[str, Any], *, answer_s: float, stop: Callable[[int], Awaitable[None]]) -> None:
        self._stop = stop
        self._connected = False
        self._touched = False
        super().__init__(None, answer_s, enable_json=False, enable_hstore=False, enable_uuid=False, **target)

    async def connected(self, *, within_s: float) -> "_Connection":
        """Finish connecting; raises psycopg2.Error, or TimeoutError, and is closed then."""
        async with asyncio.timeout(within_s):
            await self
        self._connected = True
        teach(self.raw)
        return self

    async def run(self, query: str, params: Mapping[str, object]) -> Answer:
        """Run one statement; raises StoreError. A cancel leaves it running, for `recover` to stop."""
        with translated():
            statement = await self.cursor()
            try:
                await statement.execute(query, bound(params))
            finally:
                if self.closed:
                    self._close()
            self._touched |= statement.statusmessage == "SET"
            return Answer(rows=_rows(statement.raw), affected=statement.rowcount, tag=statement.statusmessage)

    def is_alive(self) -> bool:
        """Tell whether the socket is still open, after reading what the server may have said meanwhile."""
        for _ in range(_LAST_WORDS):
            if self.closed or self.isexecuting() or not _is_readable(self._fileno):
                break
            self._ready(self._weakref)
        return not self.closed

    def is_clean(self) -> bool:
        """Tell whether the session is open and nothing of its last user is left."""
        return not self.closed and not self.isexecuting() and self._is_outside() and not self._touched

    async def recover(self) -> None:
        """Stop what still runs, leave the transaction and undo every SET. Raises StoreError."""
        with translated():
            if self.isexecuting():
                await self._stopped()
            if not self._is_outside():
                await self.run("ROLLBACK", {})
            if self._touched:
                await self.run("RESET ALL", {})
                self._touched = False

    async def _stopped(self) -> None:
        """Cancel until the answer is there: a server that still reads the statement overhears the first cancel."""
        waiter = self._create_waiter("recover")
        try:
            self._ready(self._weakref)
            while not waiter.done():
                await self._stop(self.raw.get_backend_pid())
                await asyncio.wait([waiter], timeout=AGAIN_S)
            waiter.exception()  # the cancelled statement's own; nobody is left to hear it
        finally:
            self._waiter = None

    def _is_outside(self) -> bool:
        return bool(self.raw.get_transaction_status() == TRANSACTION_STATUS_IDLE)

    async def _poll(self, waiter: "asyncio.Future[None]", timeout: float) -> None:
        """Wait for the end of what was sent, as aiopg does, but keep the connection when the waiting is cancelled."""
        self._ready(self._weakref)
        try:
            async with asyncio.timeout(timeout):
                await waiter
        except TimeoutError:
            self._close()
            raise psycopg2.OperationalError(f"no answer within {timeout:g} s") from None
        finally:
            self._waiter = None

    @staticmethod
    def _ready(weak_self: "weakref.ref[Any]") -> None:
        """Let libpq read and write; called by the loop whenever the socket is ready, by us to learn how it stands."""
        self: _Connection | None = weak_self()
        if self is None or self._fileno is None:
            return
        try:
            state = self._conn.poll()
        except psycopg2.Error as error:
            _settle(self._waiter, error)
            if self.closed or not self._connected:
                self._close()
            return
        if not self._connected:
            self._follow_socket()
        if (state == POLL_WRITE) != self._writing:
            self._watch_writing(state == POLL_WRITE)
        if state == POLL_OK:
            _settle(self._waiter, None)
        elif state not in (POLL_READ, POLL_WRITE):
            self._fatal_error(f"psycopg2 answered {state} to poll()")

    def _watch_writing(self, wanted: bool) -> None:
        assert self._fileno is not None
        if wanted:
            self._loop.add_writer(self._fileno, self._ready, self._weakref)
        else:
            self._loop.remove_writer(self._fileno)
        self._writing = wanted

    def _follow_socket(self) -> None:
        """Watch the socket that libpq uses now: while connecting it may give one up and open another (TLS refused)."""
        self._unwatch()
        self._fileno = self._conn.fileno()
        self._loop.add_reader(self._fileno, self._ready, self._weakref)

    def _unwatch(self) -> None:
        """Forget the socket at once, before its number can belong to somebody else's."""
        fileno, self._fileno, self._writing = self._fileno, None, False
        if fileno is None or self._loop.is_closed():
            return
        for forget in (self._loop.remove_reader, self._loop.remove_writer):
            with suppress(OSError):  # libpq has closed it already
                forget(fileno)

    def _close(self) -> None:
        self._unwatch()
        super()._close()


def _rows(answered: cursor) -> list[Row]:
    if answered.description is None:
        return []
    names = [column.name for column in answered.description]
    return [dict(zip(names, row, strict=True)) for row in answered.fetchall()]


def _is_readable(fileno: int | None) -> bool:
    watch = select.poll()
    if fileno is not None:
        watch.register(fileno, select.POLLIN)
    return bool(watch.poll(0))


def _settle(waiter: "asyncio.Future[None] | None", error: Exception | None) -> None:
    if waiter is None or waiter.done():
        return
    if error is None:
        waiter.set_result(None)
    else:
        waiter.set_exception(error)


class _Dialer:
    """Opens connections, and keeps one to cancel what the others run."""

    def __init__(self, wanted: Conninfo, *, answer_s: float, connect_s: float) -> None:
        self._wanted = wanted
        self._answer_s = answer_s
        self._connect_s = connect_s
        self._control: _Connection | None = None
        self._control_turn = asyncio.Lock()

    async def connect(self) -> _Connection:
        """A new connection to the first address that answers; each gets its share of the time there is."""
        with translated():
            addresses = await targets(self._wanted)
            *others, last = addresses
            for address in others:
                with suppress(psycopg2.OperationalError, TimeoutError):
                    return await self._dial(address, share=len(addresses))
            return await self._dial(last, share=len(addresses))

    async def _dial(self, address: Conninfo, *, share: int) -> _Connection:
        connection = _Connection(address, answer_s=self._answer_s, stop=self.stop)
        return await connection.connected(within_s=self._connect_s / share)

    async def stop(self, backend: int) -> None:
        """Cancel what a server process runs, over one connection kept for this.

        libpq's own cancel would block a thread for as long as the network likes, and goes unencrypted.
        """
        async with self._control_turn:
            if self._control is None or not self._control.is_alive():
                self._control = await self.connect()
            try:
                await self._control.run("SELECT pg_cancel_backend(%(backend)s)", {"backend": backend})
            except BaseException:
                self._control.close()
                raise

    def close(self) -> None:
        """Close the connection that cancels."""
        if self._control is not None:
            self._control.close()


def check_url(url: str) -> None:
    """Raise ValueError for a URL that libpq could not read."""
    conninfo(url, application_name="", settings={})


@asynccontextmanager
async def opened(
    url: str,
    *,
    pool_size: int,
    statement_timeout_s: float,
    spawn: Spawn,
    acquire_timeout_s: float = 5.0,
    application_name: str = "a2a-gateway",
) -> AsyncIterator[Database]:
    """A database with `pool_size` open connections; one more is opened when a statement has to be cancelled.

    `acquire_timeout_s` bounds the waiting for a free connection, connecting included. Raises ValueError for a bad URL
    and StoreUnavailable when the server cannot be reached.
    """
    settings = {
        "statement_timeout": f"{statement_timeout_s * 1000:.0f}",
        "idle_in_transaction_session_timeout": "60000",
        # While a statement runs the server looks once a second whether we are still there (PostgreSQL 14).
        "client_connection_check_interval": "1000",
        "TimeZone": "UTC",
    }
    wanted = conninfo(url, application_name=application_name, settings=settings)
    dialer = _Dialer(wanted, answer_s=statement_timeout_s + GRACE_S, connect_s=acquire_timeout_s)
    pool: Pool[Connection] = Pool(dialer.connect, size=pool_size, wait_s=acquire_timeout_s, spawn=spawn)
    try:
        await pool.fill()
        yield Database(pool)
    finally:
        try:
            await pool.close()
        finally:
            dialer.close()
