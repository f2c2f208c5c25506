"""How the caches of this process learn what others changed."""

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from typing import Final

from events.bus import Stamp, unwatched
from gateway import ports
from gateway.services.outage import Outage

CLEAN_EVERY_TURNS: Final = 300


class ChangeReader:
    """Reads the list of changes once a second, or at once when woken by the bus, and makes the caches forget.

    A change is seen as soon as it is committed, even while a transaction that began before it goes on: rows are asked
    for from the oldest transaction that was still open at the last look, and those already seen are passed over.
    """

    def __init__(self, changes: ports.Changes, forget: Mapping[str, Callable[[str], None]], *, every_s: float) -> None:
        self._changes = changes
        self._forget = forget
        self._every_s = every_s
        self._outage = Outage("reading changes")
        self._wake = asyncio.Event()
        self._horizon: str | None = None
        self._seen: set[int] = set()
        self._turns = 0

    def wake(self) -> None:
        """Read now: somebody says that something has changed."""
        self._wake.set()

    async def start(self) -> None:
        """Take the point from which on changes are read; before this nothing may be cached."""
        self._horizon = await self._changes.horizon()

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Turn for ever."""
        while True:
            stamp()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._every_s):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.tick()
                self._outage.worked()
            except ports.StoreError as error:
                # entries are short-lived, and the next look starts from the same point
                self._outage.failed(error)
                await asyncio.sleep(self._every_s)

    async def tick(self) -> None:
        """Read what has changed since the last turn; raises StoreError."""
        assert self._horizon is not None, "start() comes first"
        rows, horizon = await self._changes.list_since(self._horizon)
        for row in rows:
            forget = self._forget.get(row.kind)  # a newer release may list kinds that nobody here keeps
            if forget is not None and row.id not in self._seen:
                forget(row.key)
        self._seen = {row.id for row in rows}
        self._horizon = horizon
        self._turns += 1
        if self._turns % CLEAN_EVERY_TURNS == 0:
            await self._changes.forget_old()
