"""Calls that ended long ago are forgotten, so that the ledger does not grow for ever."""

from typing import Final

from gateway import ports

BATCH: Final = 1000
"""Calls taken away in one transaction."""


class Retention:
    """Takes away the calls that ended more than `kept_s` seconds ago."""

    def __init__(self, calls: ports.Calls, *, kept_s: float) -> None:
        self._calls = calls
        self._kept_s = kept_s

    async def tick(self) -> None:
        """Take away all of them; raises StoreError."""
        while await self._calls.forget_old(kept_s=self._kept_s, limit=BATCH) == BATCH:
            pass
