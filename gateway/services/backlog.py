"""What waits for a busy agent, all of it: listed in its order, and dropped where it has waited for too long."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import monotonic

import structlog

from events.bus import Bus
from gateway import ports
from gateway.core.calls import Call
from gateway.core.queue import Place
from gateway.core.refusals import platform_unavailable
from gateway.services.activity import ActivityLog
from gateway.services.directory import Directory
from gateway.services.expiry import ended

log = structlog.get_logger("gateway.queue")


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """Calls of a queue in its order. `next`: the place after which there are more, None where there are none."""

    calls: Sequence[ports.InLine]
    next: Place | None


class Backlog:
    """Shows and clears queues, whoever asks."""

    def __init__(
        self,
        *,
        queue: ports.Queue,
        directory: Directory,
        activity: ActivityLog,
        bus: Bus,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._queue = queue
        self._directory = directory
        self._activity = activity
        self._bus = bus
        self._now = now

    async def list_after(self, workspace_id: str, after: Place, *, limit: int) -> Page:
        """Return the calls that wait for a workspace or are out of its queue, `limit` at most, after this place.

        Refuses a workspace that is not there.
        """
        await self._directory.get(workspace_id)
        try:
            found = await self._queue.list_line(workspace_id, after, limit=limit + 1)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        shown = found[:limit]
        return Page(calls=shown, next=shown[-1].place if len(found) > limit else None)

    async def drop_stale(self, older_s: float, workspace_id: str | None = None) -> int:
        """End as expired what waits and came longer ago than this, for one workspace or for all; return how many.

        What is out is left alone, and so is what comes meanwhile. Refuses a workspace that is not there, and with
        platform_unavailable where not all could be ended: to ask again ends the others.
        """
        if workspace_id is not None:
            await self._directory.get(workspace_id)
        began = self._now()

        async def end(*, limit: int, history: ports.History) -> Sequence[Call]:
            since_s = self._now() - began
            return await self._queue.end_stale(
                older_s + since_s, workspace_id=workspace_id, limit=limit, history=history
            )

        try:
            dropped = sum([calls async for calls in ended(end, self._activity, self._bus)])
        except ports.StoreError as error:
            raise platform_unavailable() from error
        log.info("stale_calls_dropped", workspace_id=workspace_id, calls=dropped, older_s=older_s)
        return dropped
