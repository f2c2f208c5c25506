"""How long workspaces have been silent, as far as any replica knows."""

from collections.abc import Callable, Mapping, Sequence

from gateway import ports
from gateway.services.heartbeats import Heartbeats


class Silences:
    """Asks the database, after this process has written what it has heard itself (`ports.Silence`).

    hears: whether the bus is up. While it is not, another replica may have heard a heartbeat that it has not written
    yet: `lag_s` seconds of silence are then not counted.
    """

    def __init__(
        self, heartbeats: Heartbeats, liveness: ports.Liveness, *, hears: Callable[[], bool], lag_s: float
    ) -> None:
        self._heartbeats = heartbeats
        self._liveness = liveness
        self._hears = hears
        self._lag_s = lag_s

    async def silence(self, workspace_ids: Sequence[str]) -> Mapping[str, float]:
        """Return how many seconds each has been silent; one that was never heard is left out. Raises StoreError."""
        await self._heartbeats.flush()
        silent = await self._liveness.silence(workspace_ids)
        if self._hears():
            return silent
        return {workspace_id: max(0.0, seconds - self._lag_s) for workspace_id, seconds in silent.items()}
