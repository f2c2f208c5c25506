"""A running gateway, and its orderly end."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from aiohttp import web

from events.bus import Bus, Spawn
from gateway.ports import StoreError
from gateway.services.activity import ActivityLog
from gateway.services.drain import Drain
from gateway.services.feeds import Feeds
from gateway.services.heartbeats import Heartbeats
from gateway.services.instances import Instances
from gateway.services.proxy import Proxy
from gateway.services.readiness import Readiness
from gateway.services.streams import Streams
from gateway.services.wakes import Wakes
from gateway.web import events, sockets
from gateway.web.doorway import Doorway

log = structlog.get_logger("gateway.app")

FLUSH_S: Final = 10.0
"""How long the end waits for what is still to be written."""
LEAVE_S: Final = 2.0
"""How long it may take to give the lease back."""


@dataclass(frozen=True, kw_only=True)
class Gateway:
    """A wired gateway: the application to serve, and its orderly end."""

    application: web.Application
    proxy: Proxy
    drains: Sequence[Drain]
    doorway: Doorway
    streams: events.EventStreams
    sockets: sockets.EventSockets
    agent_streams: Streams
    wakes: Sequence[Wakes]
    feeds: Feeds
    readiness: Readiness
    drain_s: float
    reader_spread_s: float
    spawn: Spawn

    @property
    def calls_out(self) -> int:
        """Calls that this process has sent and that have not ended: at once, out of the queue, or as delegations."""
        return self.proxy.in_flight + sum(one.out for one in self.drains)

    async def drain(self) -> None:
        """Send readers and new calls elsewhere, and let the calls in flight end."""
        self.readiness.draining = True
        self.proxy.stop_admitting()
        for one in self.wakes:
            one.close()
        self.agent_streams.close()
        spread_s = min(self.reader_spread_s, self.drain_s)
        leaving = [self.spawn(one.close(spread_s), "readers:end") for one in (self.streams, self.sockets)]
        leaving += [self.spawn(one.close(self.drain_s), "queue:end") for one in self.drains]
        leaving.append(self.spawn(self.feeds.close(), "feeds:end"))
        await self.proxy.drain(self.drain_s)
        await asyncio.wait(leaving)


async def write_down(heartbeats: Heartbeats, activity: ActivityLog, bus: Bus, leases: Instances) -> None:
    """Write what is still waiting; what cannot be written in time is lost, and said to be."""
    deadline = asyncio.get_running_loop().time() + FLUSH_S
    for what, writing in (
        ("heartbeats", heartbeats.flush()),
        ("activity", activity.flush()),
        ("events", bus.drain(FLUSH_S)),
    ):
        try:
            async with asyncio.timeout_at(deadline):
                if await writing is False:
                    raise TimeoutError
        except Exception as error:  # each has its chance, whatever became of the one before
            log.error("not_written_down", what=what, error=type(error).__name__)
    try:
        async with asyncio.timeout(LEAVE_S):
            await leases.leave()
    except (StoreError, TimeoutError) as error:
        log.error("not_left", error=type(error).__name__, consequence="the lease runs out by itself")
