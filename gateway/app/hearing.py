"""Who hears of it: the bus that this process listens to, its readers, and the feeds of agents that it reads."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Final

from events.bodies import Bodies
from events.event import PROBE
from events.hub import Hub
from events.probe import Prober
from events.ring import Ring
from events.subscriber import Subscriber
from gateway.app import bus as bus_start
from gateway.app.calling import Calling
from gateway.app.ground import Ground
from gateway.app.known import Known
from gateway.app.taps import call_waker, inbox_waker, queue_stirrer, task_noter
from gateway.core.feeds import Rules
from gateway.core.upstream import AGENT_EVENT
from gateway.net import connector, event_feed
from gateway.services.changes import ChangeReader
from gateway.services.feeds import Feeds
from gateway.services.feeds import Times as FeedTimes
from gateway.services.instances import Instances
from gateway.services.subscription import Manner
from gateway.services.tasks import Tasks
from gateway.web import cors, events, sockets
from gateway.web.places import Places

HEARTBEATS_MISSED: Final = 3
"""A feed that has missed so many is connected to anew."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Hearing:
    """What hears events and to whom it tells them. subscribers: the tasks that read agents' feeds."""

    prober: Prober
    ring: Ring
    hub: Hub
    subscriber: Subscriber
    bodies: Bodies
    places: Places
    streams: events.EventStreams
    sockets: sockets.EventSockets
    feeds: Feeds
    subscribers: Tasks
    leases: Instances


@asynccontextmanager
async def open_hearing(
    ground: Ground, known: Known, calling: Calling, changes: ChangeReader, cross_origin: cors.CrossOrigin
) -> AsyncIterator[Hearing]:
    """Get ready to listen; on leaving, let go of the agents' feeds."""
    settings, spawn = ground.settings, calling.loops.spawn
    prober = Prober(ground.bus.publish, every_s=settings.probe_s, on_heard=lambda at: hub.confirm(at))
    ring = Ring(max_frames=settings.journal_length, max_bytes=settings.ring_bytes)
    taps = {
        "TASK_UPDATED": task_noter(known.registry),
        "ACTIVITY_LOGGED": inbox_waker(calling.agents),
        "CALL_ENDED": call_waker(calling.callers),
        "WORKSPACE_HEARTBEAT": queue_stirrer(calling.drain),
        PROBE: prober.note,
    }
    hub = Hub(ring, on_sign=calling.clocks.stamp, on_change=changes.wake, taps=taps)
    bodies = Bodies(ground.link.whole, spawn, max_bytes=settings.ring_bytes)
    places = Places(settings.max_readers)
    async with AsyncExitStack() as stack:
        feed = await stack.enter_async_context(
            event_feed.opened(
                connector.connector(reach=ground.reach, resolve_s=settings.connect_timeout_s),
                reach=ground.reach,
                connect_s=settings.connect_timeout_s,
                first_byte_s=settings.feed_first_byte_s,
                silence_s=settings.feed_heartbeat_s * HEARTBEATS_MISSED,
                limit_bytes=settings.feed_event_bytes,
            )
        )
        upstream_types = {AGENT_EVENT, *settings.feed_keeps}
        subscribers = await stack.enter_async_context(Tasks())
        feeds = Feeds(
            store=ground.stores.feeds,
            liveness=ground.stores.liveness,
            feed=feed,
            bus=ground.bus,
            vault=ground.vault,
            is_wanted=lambda one: one in calling.clocks or hub.is_read(one, upstream_types),
            pinned=settings.feeds_pinned,
            manner=Manner(
                rules=Rules(healthy_s=settings.feed_healthy_s, pace_s=settings.feed_pace_s),
                keeps=settings.feed_keeps,
                per_s=settings.feed_per_s,
                gave_up_s=settings.feed_gave_up_s,
            ),
            times=FeedTimes(lease_s=settings.feed_lease_s, linger_s=settings.feed_linger_s),
            capacity=settings.max_feeds,
            spawn=subscribers.spawn,
        )
        stack.push_async_callback(feeds.close)
        yield Hearing(
            prober=prober,
            ring=ring,
            hub=hub,
            subscriber=Subscriber(ground.link, hub, probe_s=settings.probe_s, retry_s=bus_start.retry_s),
            bodies=bodies,
            places=places,
            streams=events.EventStreams(
                hub,
                bodies,
                known.visibility,
                spawn,
                places=places,
                keepalive_s=settings.keepalive_s,
                drain_s=settings.reader_drain_s,
            ),
            sockets=sockets.EventSockets(
                hub, bodies, known.visibility, cross_origin, spawn, places=places, drain_s=settings.reader_drain_s
            ),
            feeds=feeds,
            subscribers=subscribers,
            leases=Instances(ground.stores.instances, ground.bus, every_s=settings.probe_s),
        )
