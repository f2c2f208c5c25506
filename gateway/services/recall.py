"""The messages whose calls wait, told to a Redis that may have forgotten them while it was away."""

from typing import Final

import structlog

from gateway import ports

log = structlog.get_logger("gateway.recall")

BATCH: Final = 500
"""Messages that are read at once."""


class Recall:
    """Looks whether Redis has come up since it was told; until it is, the ledger is asked by
    each call with a message id."""

    def __init__(self, *, gate: ports.Gate, calls: ports.Calls) -> None:
        self._gate = gate
        self._calls = calls

    async def tick(self) -> None:
        """Tell it, if it has to be told; raises LiveUnavailable or StoreError."""
        ups = self._gate.ups
        if ups == self._gate.told:
            return
        after: ports.Waiting | None = None
        count = 0
        while batch := await self._calls.list_waiting(after, limit=BATCH):
            for one in batch:
                await self._gate.remember(one)
            count += len(batch)
            after = batch[-1]
        self._gate.told = ups
        log.info("messages_recalled", messages=count)
