"""The composition root: settings in, a running gateway out, its parts opened in reading order."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from aiohttp import web

from events.subscriber import State
from gateway.app import bus as bus_start
from gateway.app import timetable
from gateway.app.calling import Calling, open_calling
from gateway.app.gauges import Gauges
from gateway.app.ground import Ground, open_ground
from gateway.app.hearing import Hearing, open_hearing
from gateway.app.known import Known, known_by
from gateway.app.running import Gateway, write_down
from gateway.app.site import site
from gateway.services.changes import ChangeReader
from gateway.services.readiness import Readiness
from gateway.settings import Settings
from gateway.web import cors, keys, parse
from gateway.web import events as web_events
from gateway.web import sockets as web_sockets
from gateway.web.doorway import Doorway


@asynccontextmanager
async def opened(settings: Settings, *, dev: bool) -> AsyncIterator[Gateway]:
    """Open everything and yield the gateway; on leaving, write down what is left and close it all in reverse.

    dev: open to this machine without credentials, agents on private addresses, workspaces that create themselves.
    Raises StoreUnavailable, ValueError for a malformed URL, and vault.BadKey.
    """
    async with AsyncExitStack() as stack:
        ground = await stack.enter_async_context(open_ground(settings, dev=dev))
        known = known_by(ground, hears=lambda: hearing.subscriber.state is State.UP)

        def forget_workspace(workspace_id: str) -> None:
            known.directory.forget(workspace_id)
            hearing.feeds.doubt(workspace_id)

        changes = ChangeReader(
            ground.stores.changes,
            {
                "workspace": forget_workspace,
                "token": known.forget_token,
                "session": known.forget_session,
                "call": lambda call_id: calling.call_off(call_id),
            },
            every_s=settings.changes_every_s,
        )
        await changes.start()
        calling = await stack.enter_async_context(open_calling(ground, known))
        cross_origin = cors.CrossOrigin(settings.cors_origins)
        hearing = await stack.enter_async_context(open_hearing(ground, known, calling, changes, cross_origin))
        timetable.start(ground, known, calling, hearing, changes)
        stack.push_async_callback(write_down, known.heartbeats, known.activity, ground.bus, hearing.leases)
        await bus_start.wait_until_up(hearing.subscriber.up)
        await bus_start.check_eviction(ground.link)

        doorway = Doorway(limit=settings.max_connections, elsewhere=lambda: len(hearing.streams))
        readiness = Readiness(ground.stores.changes, lambda: hearing.subscriber.state.value, calling.loops)
        application = site(settings, cross_origin)
        _furnish(application, ground, known, calling, hearing)
        application[keys.READINESS] = readiness
        application[keys.METRICS] = Gauges(
            ground=ground, known=known, calling=calling, hearing=hearing, doorway=doorway
        ).read
        yield Gateway(
            application=application,
            proxy=calling.proxy,
            drains=calling.drains,
            doorway=doorway,
            streams=hearing.streams,
            sockets=hearing.sockets,
            agent_streams=calling.streams,
            wakes=(calling.callers, calling.agents),
            feeds=hearing.feeds,
            readiness=readiness,
            drain_s=settings.drain_s,
            reader_spread_s=settings.reader_spread_s,
            spawn=calling.loops.spawn,
        )


def _furnish(application: web.Application, ground: Ground, known: Known, calling: Calling, hearing: Hearing) -> None:
    """Put the services where the handlers look for them."""
    application[keys.ADMISSION] = known.admission
    application[keys.AGENT_STREAMS] = calling.streams
    application[keys.BACKLOG] = calling.backlog
    application[keys.CALLS] = calling.calls
    application[keys.DELEGATIONS] = calling.delegations
    application[keys.EDITS] = known.edits
    application[keys.IDENTITY] = known.identity
    application[keys.INBOX] = calling.inbox
    application[keys.KEEPALIVE_S] = ground.settings.keepalive_s
    application[keys.LOOPS] = calling.loops
    application[keys.PEERS] = known.peers
    application[keys.PLACES] = hearing.places
    application[keys.PROXY] = calling.proxy
    application[keys.REGISTRY] = known.registry
    application[keys.SESSIONS] = known.sessions
    application[keys.TIMELINE] = known.timeline
    application[keys.TOKENS] = known.tokens
    application[keys.TOLLS] = known.tolls
    application[keys.VIGILS] = calling.vigils
    application[keys.VISIBILITY] = known.visibility
    application[keys.WORKSPACES] = known.workspaces
    application[parse.ROOM] = calling.room
    application[web_events.STREAMS] = hearing.streams
    application[web_sockets.SOCKETS] = hearing.sockets
