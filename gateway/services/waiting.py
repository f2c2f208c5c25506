"""Who waits for a call that it made itself: it may say nothing meanwhile, and is not silent."""

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway import ports
from gateway.services.outage import Outage


class Waiting:
    """The workspaces that wait here; their signs of life go to the database every `every_s` seconds.

    An agent that serves a call by calling another one is kept alive by the other's signs: its own call ends when that
    one is silent, and then it does not wait any more. Total times hold all the same.
    """

    def __init__(self, liveness: ports.Liveness, *, every_s: float) -> None:
        self._liveness = liveness
        self._every_s = every_s
        self._outage = Outage("writing signs of those that wait")
        self._calls: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._calls)

    @contextmanager
    def call(self, caller_id: str | None) -> Iterator[None]:
        """Note that this workspace (None: nobody's) waits for as long as the block lasts."""
        if caller_id is None:
            yield
            return
        self._calls[caller_id] += 1
        try:
            yield
        finally:
            self._calls[caller_id] -= 1
            if not self._calls[caller_id]:
                del self._calls[caller_id]

    def __contains__(self, workspace_id: str) -> bool:
        return workspace_id in self._calls

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            if self._calls:
                try:
                    await self._liveness.keep(list(self._calls))
                    self._outage.worked()
                except ports.StoreError as error:
                    self._outage.failed(error)
