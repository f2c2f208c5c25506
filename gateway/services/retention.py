"""Calls that ended long ago are forgotten, so that the ledger does not grow for ever."""

import asyncio
from typing import Final

from gateway import ports
from gateway.services.outage import Outage

BATCH: Final = 1000
"""Calls taken away in one transaction."""


class Retention:
    """Takes away, every `every_s` seconds, the calls that ended more than `kept_s` seconds ago."""

    def __init__(self, calls: ports.Calls, *, kept_s: float, every_s: float) -> None:
        self._calls = calls
        self._kept_s = kept_s
        self._every_s = every_s
        self._outage = Outage("forgetting calls")

    async def run(self) -> None:
        """Turn for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.tick()
                self._outage.worked()
            except ports.StoreError as error:
                self._outage.failed(error)

    async def tick(self) -> None:
        """Take away all of them; raises StoreError."""
        while await self._calls.forget_old(kept_s=self._kept_s, limit=BATCH) == BATCH:
            pass
