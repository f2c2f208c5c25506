"""Whether this process can do its work."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway import ports

ASK_S = 2.0
"""Seconds that the database may take to answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What /readyz says. `bus` is up, blind or repairing; calls go on without it, but not without the database."""

    ready: bool
    database: str
    bus: str
    draining: bool


class Readiness:
    """Asks the database, and remembers whether the process is going away. `bus_state` tells of the subscriber."""

    def __init__(self, changes: ports.Changes, bus_state: Callable[[], str]) -> None:
        self._changes = changes
        self._bus_state = bus_state
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
            ready=database == "up" and not self.draining,
            database=database,
            bus=self._bus_state(),
            draining=self.draining,
        )
