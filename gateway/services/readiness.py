"""Whether this process can do its work."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway import ports
from gateway.services.loops import Loops

ASK_S = 2.0
"""Seconds that the database may take to answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What /readyz says. `bus` is up, blind or repairing; calls go on without it, but not without the database.

    loops: how the loop stands that stands worst.
    """

    ready: bool
    database: str
    bus: str
    loops: str
    draining: bool


class Readiness:
    """Asks the database, and remembers whether the process is going away. `bus_state` tells of the subscriber.

    A process is of no use either when a loop of `loops` was given up whose work nobody else does.
    """

    def __init__(self, changes: ports.Changes, bus_state: Callable[[], str], loops: Loops) -> None:
        self._changes = changes
        self._bus_state = bus_state
        self._loops = loops
        self.draining = False

    async def report(self) -> Report:
        """Return the state of things now."""
        database = "up"
        try:
            async with asyncio.timeout(ASK_S):
                await self._changes.horizon()
        except (ports.StoreError, TimeoutError):
            database = "down"
        return Report(
            ready=database == "up" and not self.draining and not self._loops.crippled,
            database=database,
            bus=self._bus_state(),
            loops=self._loops.worst.value,
            draining=self.draining,
        )
