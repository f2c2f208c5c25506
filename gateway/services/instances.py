"""Which processes are alive, and what is announced for one that is not any more."""

from typing import Final

import structlog

from events.bus import Bus, LinkDown
from events.event import gap
from gateway import ports
from gateway.core.ids import new_id

log = structlog.get_logger("gateway.instances")

LEASES_MISSED: Final = 5
"""Renewals that a process may miss before it counts as dead."""


class Instances:
    """Renews this process's lease, and buries others; it turns every `every_s` seconds.

    A process that dies while Redis takes its events loses nothing that a reader could miss for long; one that dies
    while events wait for Redis takes them along, and a survivor says so with a gap: unless Redis has had them after
    all, because it was back before the lease said so.
    """

    def __init__(self, store: ports.Instances, bus: Bus, *, every_s: float) -> None:
        self._store = store
        self._bus = bus
        self._every_s = every_s
        self._me = new_id()

    async def tick(self) -> None:
        """Renew, and bury whoever has not; raises StoreError."""
        lease_s = self._every_s * LEASES_MISSED
        await self._renew(lease_s=lease_s, unpublished=self._bus.away and len(self._bus) > 0)
        for dead in await self._store.bury():
            lost = dead.unpublished and not await self._has_arrived(dead)
            log.warning("instance_died", id=dead.id, unpublished=lost)
            if lost:
                self._bus.publish(gap("instance_died"))

    async def _renew(self, *, lease_s: float, unpublished: bool) -> None:
        await self._store.renew(
            self._me,
            lease_s=lease_s,
            unpublished=unpublished,
            publisher=self._bus.publisher,
            count=self._bus.count,
        )

    async def _has_arrived(self, dead: ports.Dead) -> bool:
        """Whether what waited when the lease was renewed has been published; no, while nobody can say."""
        try:
            return dead.publisher != "" and await self._bus.has_taken(dead.publisher, dead.count)
        except LinkDown:
            return False

    async def leave(self) -> None:
        """End in good order, or leave it to a survivor to say what this process takes along; raises StoreError."""
        if len(self._bus):
            await self._renew(lease_s=0.0, unpublished=True)
        else:
            await self._store.leave(self._me)
