"""A fixed number of sessions, lent one at a time to whoever has waited longest."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Generic, Protocol, TypeVar

import structlog

from gateway.ports import StoreError, StoreUnavailable

log = structlog.get_logger("gateway.store")

RECOVER_S = 2.0
"""How long a session may take to stop a cancelled statement and leave its transaction before it is closed."""


class Spawn(Protocol):
    """Starts a task that somebody owns: strong reference, logged death, awaited at shutdown."""

    def __call__(self, work: Coroutine[Any, Any, None], /, name: str) -> "asyncio.Task[None]":
        """Run `work` soon, under `name`."""


class Session(Protocol):
    """What the pool asks of a connection; none of the plain methods waits."""

    def is_alive(self) -> bool:
        """Tell whether the other side is still there, as far as can be known without asking it."""

    def is_clean(self) -> bool:
        """Tell whether the next user finds nothing of the last: no statement, transaction or setting."""

    def close(self) -> object:
        """Close now; closing twice is allowed."""

    async def recover(self) -> None:
        """Become clean; raises StoreError when that is not possible."""


S = TypeVar("S", bound=Session)


class Pool(Generic[S]):
    """At most `size` sessions, one semaphore in front of them.

    Whoever holds a permit takes an idle session or opens one, alone: a slow connect keeps nobody else waiting. Giving
    back never waits: a session that is not clean is recovered by a task of its own, which keeps the permit until then.
    """

    def __init__(self, connect: Callable[[], Awaitable[S]], *, size: int, wait_s: float, spawn: Spawn) -> None:
        self.size = size
        self._connect = connect
        self._wait_s = wait_s
        self._spawn = spawn
        self._permits = asyncio.Semaphore(size)
        self._idle: deque[S] = deque()
        self._open: set[S] = set()
        self._waiting = 0
        self._closing = False

    def __repr__(self) -> str:
        return f"<Pool size={self.size} open={len(self._open)} idle={self.idle} waiting={self._waiting}>"

    @property
    def idle(self) -> int:
        """Sessions that are alive and free."""
        return sum(session.is_alive() for session in self._idle)

    async def fill(self) -> None:
        """Open every session; raises StoreUnavailable when that takes longer than a taker may wait."""
        try:
            async with asyncio.timeout(self._wait_s):
                while len(self._open) < self.size:
                    self._idle.append(await self._opened())
        except TimeoutError:
            raise StoreUnavailable(f"connecting took longer than {self._wait_s:g} s") from None

    async def take(self, *, fresh: bool = False) -> S:
        """Wait for a session, a newly opened one if `fresh`; the caller owes a `give`.

        Raises StoreUnavailable when none was free within the deadline, and whatever connecting raises.
        """
        if self._closing:
            raise StoreUnavailable("the pool is closed")
        self._waiting += 1
        try:
            async with asyncio.timeout(self._wait_s):
                await self._permits.acquire()
                try:
                    return self._reused(fresh=fresh) or await self._opened()
                except BaseException:
                    self._permits.release()
                    raise
        except TimeoutError:
            raise StoreUnavailable(f"no connection within {self._wait_s:g} s: {self!r}") from None
        finally:
            self._waiting -= 1

    def give(self, session: S) -> None:
        """Take a session back, whatever state it is in."""
        if session.is_clean() or not session.is_alive() or self._closing:
            self._settle(session)
            return
        work = self._recovered(session)
        try:
            task = self._spawn(work, name="store.recover")
        except BaseException:
            work.close()
            session.close()
            self._settle(session)
            raise
        # Not in a `finally` of the work: a task that is cancelled before its first step never enters it.
        task.add_done_callback(lambda _: self._settle(session))

    async def close(self) -> None:
        """Close every session: idle ones now, lent ones when they come back or after RECOVER_S."""
        self._closing = True
        while self._idle:
            self._discard(self._idle.popleft())
        try:
            async with asyncio.timeout(RECOVER_S):
                for _ in range(self.size):
                    await self._permits.acquire()
        except TimeoutError:
            log.warning("store_closed_in_use", sessions=len(self._open))
        finally:
            for session in tuple(self._open):
                self._discard(session)

    def _reused(self, *, fresh: bool) -> S | None:
        """An idle session that is still alive, or None when one has to be opened."""
        if self._closing:
            raise StoreUnavailable("the pool is closed")
        while self._idle and not (fresh and len(self._open) < self.size):
            session = self._idle.pop()
            if session.is_alive() and not fresh:
                return session
            self._discard(session)
        return None

    async def _opened(self) -> S:
        session = await self._connect()
        self._open.add(session)
        return session

    async def _recovered(self, session: S) -> None:
        try:
            async with asyncio.timeout(RECOVER_S):
                await session.recover()
        except (TimeoutError, StoreError) as error:
            log.warning("store_not_recovered", error=str(error) or type(error).__name__)

    def _settle(self, session: S) -> None:
        """Keep the session for the next taker or close it, and let that taker in."""
        if session.is_clean() and not self._closing:
            self._idle.append(session)
        else:
            self._discard(session)
        self._permits.release()

    def _discard(self, session: S) -> None:
        self._open.discard(session)
        session.close()
