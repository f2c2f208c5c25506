"""Who waits for a call that it made itself: it may say nothing meanwhile, and lives as long as the one it waits for."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import monotonic

from gateway import ports


@dataclass(slots=True)
class _Wait:
    calls: int
    since: float


class Waiting:
    """The workspaces that wait here, and for whom; what that says of them goes to the database at each turn.

    Making a call is a sign of life of its caller, once; after that the signs of the one it waits for are its own, too.
    So a chain of calls lives as long as its last link does, and a circle of workspaces that wait for each other, or one
    that calls itself, does not keep itself alive.
    """

    def __init__(self, liveness: ports.Liveness, *, now: Callable[[], float] = monotonic) -> None:
        self._liveness = liveness
        self._now = now
        self._waits: dict[tuple[str, str], _Wait] = {}

    def __len__(self) -> int:
        return len(self._waits)

    @contextmanager
    def call(self, caller_id: str | None, target_id: str) -> Iterator[None]:
        """Note that the one workspace (None: nobody) waits for the other for as long as the block lasts."""
        if caller_id is None:
            yield
            return
        pair = (caller_id, target_id)
        wait = self._waits.setdefault(pair, _Wait(calls=0, since=0.0))
        wait.calls += 1
        wait.since = self._now()
        try:
            yield
        finally:
            wait.calls -= 1
            if not wait.calls:
                del self._waits[pair]

    async def tick(self) -> None:
        """Write who waits now; raises StoreError."""
        now = self._now()
        waits = [
            ports.Wait(caller_id=caller_id, target_id=target_id, age_s=now - wait.since)
            for (caller_id, target_id), wait in self._waits.items()
        ]
        if waits:
            await self._liveness.wait(waits)
