"""Whether this process can do its work."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from gateway import ports

ASK_S = 2.0
"""Seconds that the database may take to answer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What /readyz says. The bus may be down and calls still go on; without the database they do not for long."""

    ready: bool
    database: str
    bus: str
    draining: bool


class Readiness:
    """Asks the database, and remembers whether the process is going away. `bus_up` tells of the subscriber."""

    def __init__(self, changes: ports.Changes, bus_up: Callable[[], bool]) -> None:
        self._changes = changes
        self._bus_up = bus_up
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
            bus="up" if self._bus_up() else "down",
            draining=self.draining,
        )
