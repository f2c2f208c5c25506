"""The composition root: settings in, a running gateway out, its resources opened in reading order."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Final

import structlog

from events import redis
from events.bodies import Bodies
from events.bus import Bus
from events.event import PROBE
from events.hub import Hub
from events.probe import Prober
from events.ring import Ring
from events.subscriber import State, Subscriber
from gateway.app import bus as bus_start
from gateway.app.running import Gateway, write_down
from gateway.app.site import site
from gateway.app.taps import call_waker, inbox_waker, queue_stirrer, task_noter
from gateway.core.address import Reach
from gateway.core.callers import Proof
from gateway.core.feeds import Rules
from gateway.core.rates import Tariff
from gateway.core.upstream import AGENT_EVENT
from gateway.live import gate
from gateway.live import journal as journals
from gateway.metrics import Readings, exposition
from gateway.net import clocks, connector, dispatch, event_feed
from gateway.ports import Claims
from gateway.services.activity import ActivityLog
from gateway.services.admission import Admission
from gateway.services.arrivals import Arrivals
from gateway.services.attempts import Attempts
from gateway.services.backlog import Backlog
from gateway.services.calls import Calls
from gateway.services.cancelling import Cancelling
from gateway.services.changes import ChangeReader
from gateway.services.concurrency import Concurrency
from gateway.services.delegation import Delegations
from gateway.services.delegation import Times as DelegationTimes
from gateway.services.directory import Directory
from gateway.services.drain import Drain
from gateway.services.edits import Edits
from gateway.services.entrance import Entrance
from gateway.services.expiry import Expiry
from gateway.services.feeds import Feeds
from gateway.services.feeds import Times as FeedTimes
from gateway.services.flights import Flights
from gateway.services.heartbeats import Heartbeats
from gateway.services.identity import Identity
from gateway.services.inbox import Inbox
from gateway.services.instances import Instances
from gateway.services.joining import Joining
from gateway.services.loops import HANGS_S, Loops
from gateway.services.loops import State as LoopState
from gateway.services.outage import Outage
from gateway.services.parking import Parking
from gateway.services.parking import Times as ParkingTimes
from gateway.services.peers import Peers
from gateway.services.proxy import Proxy
from gateway.services.pushed import Pushed
from gateway.services.queue import Queue
from gateway.services.queue import Times as QueueTimes
from gateway.services.readiness import Readiness
from gateway.services.reaper import Reaper
from gateway.services.recall import Recall
from gateway.services.registry import Registry
from gateway.services.requests import Requests, Times
from gateway.services.resubscribing import Resubscribing
from gateway.services.retention import Retention
from gateway.services.room import Room
from gateway.services.sending import Sending
from gateway.services.sessions import Sessions
from gateway.services.settling import Settling
from gateway.services.shelf import Shelf
from gateway.services.silence import Silences
from gateway.services.streams import Sizes, Streams
from gateway.services.subscription import Manner
from gateway.services.tasks import Tasks
from gateway.services.timeline import Timeline
from gateway.services.tokens import TokenService
from gateway.services.tolls import Tolls
from gateway.services.vigils import Vigils
from gateway.services.visibility import Visibility
from gateway.services.waiting import Waiting
from gateway.services.wakes import Wakes
from gateway.services.workspaces import WorkspaceService
from gateway.settings import Settings
from gateway.store import db, vault
from gateway.store.activity import ActivityStore
from gateway.store.calls import CallStore
from gateway.store.changes import ChangeStore
from gateway.store.delegation import DelegationClaims, DelegationStore
from gateway.store.feeds import FeedStore
from gateway.store.instances import InstanceStore
from gateway.store.liveness import LivenessStore
from gateway.store.queue import QueueStore
from gateway.store.sessions import SessionStore
from gateway.store.tokens import TokenStore
from gateway.store.workspaces import WorkspaceStore
from gateway.web import cors, keys, parse
from gateway.web import events as web_events
from gateway.web import sockets as web_sockets
from gateway.web.doorway import Doorway
from gateway.web.places import Places

log = structlog.get_logger("gateway.app")

BUS_CAPACITY: Final = 20_000
"""Events that wait while Redis is away ..."""
BUS_BYTES: Final = 64 * 1024 * 1024
"""... and what they may take."""
HEARTBEATS_MISSED: Final = 3
"""A feed that has missed so many is connected to anew."""
WRITE_MARGIN_S: Final = 0.25
"""What a batch of heartbeats may take to be written, once it is due."""
ACTIVITY_CAPACITY: Final = 20_000
"""Activity rows that wait while PostgreSQL is away."""
PROBES_A_RENEWAL: Final = 2.5
"""How often the lease in Redis is renewed, and looked for those of the dead, in probes of the bus."""
FORGET_EVERY_S: Final = 60.0
"""How often calls that ended long ago are forgotten."""
SWEEP_S: Final = 600.0
"""What a turn may take that goes through all of a table, before it counts as hung."""
TOKENS_USED_EVERY_S: Final = 30.0
"""How often it is written which tokens have been used."""


@asynccontextmanager
async def opened(settings: Settings, *, dev: bool) -> AsyncIterator[Gateway]:
    """Open everything and yield the gateway; on leaving, write down what is left and close it all in reverse.

    dev: open to this machine without credentials, agents on private addresses, workspaces that create themselves.
    Raises StoreUnavailable, ValueError for a malformed URL, and vault.BadKey.
    """
    if settings.database_url is None or settings.redis_url is None:
        raise ValueError("a gateway needs both its datastores")
    reach = replace(
        Reach.SAME_NETWORK if dev or settings.allow_private_agents else Reach.HOSTED, ports=settings.agent_ports
    )
    sealed = vault.from_file(settings.secrets_key_file) if settings.secrets_key_file is not None else None

    async with AsyncExitStack() as stack:
        # what all others stand on
        tasks = await stack.enter_async_context(Tasks())
        database = await stack.enter_async_context(
            db.opened(
                settings.database_url,
                pool_size=settings.pool_size,
                statement_timeout_s=settings.statement_timeout_s,
                spawn=tasks.spawn,
            )
        )
        link = await stack.enter_async_context(
            redis.opened(
                settings.redis_url,
                prefix=settings.redis_prefix,
                journal_length=settings.journal_length,
                whole_s=settings.whole_s,
                whole_bytes=settings.whole_bytes,
            )
        )
        workspaces, tokens, changes = WorkspaceStore(database), TokenStore(database), ChangeStore(database)
        sessions = SessionStore(database)
        liveness, history = LivenessStore(database), ActivityStore(database)
        instances, ledger, line = InstanceStore(database), CallStore(database), QueueStore(database)
        delegated = DelegationStore(database)
        bus = Bus(link, capacity=BUS_CAPACITY, capacity_bytes=BUS_BYTES)

        # what is known here, and how it is forgotten
        directory = Directory(workspaces, ttl_s=settings.cache_ttl_s)
        identity = Identity(
            tokens,
            sessions,
            admin_token=settings.admin_token,
            open_locally=dev and settings.admin_token is None,
            ttl_s=settings.cache_ttl_s,
        )
        visibility = Visibility(directory, workspaces, identity.is_good)

        def forget_token(hash_hex: str) -> None:
            identity.forget_token(hash_hex)
            visibility.doubt(Proof.TOKEN, hash_hex)

        def forget_session(hash_hex: str) -> None:
            identity.forget_session(hash_hex)
            visibility.doubt(Proof.SESSION, hash_hex)

        def forget_workspace(workspace_id: str) -> None:
            directory.forget(workspace_id)
            feeds.doubt(workspace_id)

        flights = Flights(link.publisher)
        drains: list[Drain] = []

        def call_off(call_id: str) -> None:
            flights.call_off(call_id)
            for one in drains:
                one.call_off(call_id)

        forget = {
            "workspace": forget_workspace,
            "token": forget_token,
            "session": forget_session,
            "call": call_off,
        }
        reader = ChangeReader(changes, forget, every_s=settings.changes_every_s)
        await reader.start()

        # what all replicas decide together
        turnstile = await stack.enter_async_context(
            gate.opened(
                settings.redis_url,
                replica=link.publisher,
                prefix=settings.redis_prefix,
                max_depth=settings.max_depth,
                answer_s=settings.admission_s,
                renew_s=settings.probe_s * PROBES_A_RENEWAL,
                kept_s=settings.answer_kept_s,
            )
        )
        tolls = Tolls(
            turnstile,
            {
                Tariff.CALL: settings.call_rate,
                Tariff.BEAT: settings.beat_rate,
                Tariff.REQUEST: settings.request_rate,
                Tariff.STRICT: settings.strict_rate,
                Tariff.FAILURE: settings.failure_rate,
            },
        )
        entrance = Entrance(turnstile, tolls, reserve_cents=settings.reserve_cents)

        # calls out
        heartbeats = Heartbeats(liveness, every_s=settings.write_every_s)
        silences = Silences(
            heartbeats,
            liveness,
            hears=lambda: subscriber.state is State.UP,
            lag_s=settings.write_every_s + WRITE_MARGIN_S,
        )
        ticking = clocks.Clocks(
            silence=silences,
            spawn=tasks.spawn,
            bus_lost_s=settings.bus_lost_s,
            first_byte_s=settings.first_byte_s,
            stall_s=settings.stall_s,
        )
        dispatcher = await stack.enter_async_context(
            dispatch.opened(
                connector.connector(
                    reach=reach,
                    resolve_s=settings.connect_timeout_s,
                    probes=connector.Probes(
                        idle_s=settings.probe_idle_s, every_s=settings.probe_every_s, count=settings.probe_count
                    ),
                ),
                ticking,
                connect_s=settings.connect_timeout_s,
                limit_bytes=settings.max_response_bytes,
                comments_count=settings.comments_count,
            )
        )
        journal = await stack.enter_async_context(
            journals.opened(
                settings.redis_url,
                prefix=settings.redis_prefix,
                answer_s=settings.admission_s,
                kept_s=settings.stream_s,
                entries=settings.stream_events,
                limit_bytes=settings.stream_bytes,
            )
        )
        agent_streams = Streams(
            journal,
            Sizes(
                event=settings.event_bytes,
                kept=settings.stream_kept_bytes,
                unwritten=settings.stream_bytes,
                all_kept=settings.streams_kept_bytes,
                answer=settings.answer_kept_bytes,
            ),
        )

        # what is done
        activity = ActivityLog(
            history, bus, capacity=ACTIVITY_CAPACITY, every_s=settings.write_every_s, settled=turnstile.let_go
        )
        admission = Admission(directory)
        registry = Registry(
            workspaces=workspaces,
            tokens=tokens,
            liveness=liveness,
            directory=directory,
            heartbeats=heartbeats,
            bus=bus,
            vault=sealed,
            reach=reach,
            tokenless=dev or settings.allow_tokenless_register,
            self_created=dev,
        )
        waiting = Waiting(liveness)
        callers, agents = Wakes(capacity=settings.max_calls), Wakes(capacity=settings.max_readers)
        parking = Parking(
            calls=ledger,
            activity=activity,
            callers=callers,
            times=ParkingTimes(
                lives_s=settings.inbox_ttl_s, wait_s=settings.prefer_wait_s, kept_s=settings.answer_kept_s
            ),
            room=settings.inbox_messages,
        )
        queue = Queue(
            calls=ledger,
            queue=line,
            activity=activity,
            callers=callers,
            times=QueueTimes(
                lives_s=settings.queue_ttl_s,
                retry_s=settings.queue_retry_s,
                wait_s=settings.prefer_wait_s,
                kept_s=settings.answer_kept_s,
            ),
            room=settings.queue_calls,
        )
        expiry = Expiry(
            calls=ledger,
            queue=line,
            delegations=delegated,
            activity=activity,
            bus=bus,
            stale_s=settings.queue_stale_s,
        )
        requests = Requests(
            admission=admission,
            parking=parking,
            vault=sealed,
            reach=reach,
            times=Times(idle_s=settings.idle_timeout_s, ceiling_s=settings.ceiling_s, max_s=settings.max_timeout_s),
        )
        shelf = Shelf(
            lasts_s=settings.answer_kept_s,
            each_bytes=settings.answer_kept_bytes,
            all_bytes=settings.answers_kept_bytes,
        )
        joining = Joining(
            gate=turnstile,
            waits=queue,
            callers=callers,
            shelf=shelf,
            streams=agent_streams,
            capacity=settings.max_calls,
        )
        paused_s = max(settings.probe_s * PROBES_A_RENEWAL, settings.changes_every_s, settings.write_every_s)
        loops = await stack.enter_async_context(Loops(hangs_s=HANGS_S + paused_s))
        room = Room(settings.buffer_bytes)

        def draining(source: Claims) -> Drain:
            """What sends the calls of this source."""
            settling = Settling(
                queue=source,
                entrance=entrance,
                prices=settings.prices,
                activity=activity,
                bus=bus,
                spawn=loops.spawn,
            )
            attempts = Attempts(
                queue=source,
                admission=admission,
                requests=requests,
                entrance=entrance,
                dispatcher=dispatcher,
                settling=settling,
                streams=agent_streams,
                bus=bus,
                answer_bytes=settings.max_response_bytes,
                retry_s=settings.queue_retry_s,
                restart_s=settings.delegation_retry_s,
            )
            return Drain(
                queue=source,
                directory=directory,
                attempts=attempts,
                settling=settling,
                room=room,
                capacity=settings.max_calls,
                lease_s=settings.queue_lease_s,
                spawn=loops.spawn,
            )

        drain, dispatching = draining(line), draining(DelegationClaims(database, line))
        drains += drain, dispatching
        delegations = Delegations(
            delegations=delegated,
            directory=directory,
            admission=admission,
            tolls=tolls,
            entrance=entrance,
            parking=parking,
            activity=activity,
            bus=bus,
            came=dispatching.came,
            times=DelegationTimes(
                waits_s=settings.queue_ttl_s, parked_s=settings.inbox_ttl_s, takes_s=settings.delegation_s
            ),
            room=settings.queue_calls,
        )
        concurrency = Concurrency(flights, capacity=settings.max_calls, share=settings.max_calls_each)
        sending = Sending(
            dispatcher=dispatcher,
            entrance=entrance,
            joining=joining,
            queue=queue,
            waiting=waiting,
            arrivals=Arrivals(entrance=entrance, joining=joining, prices=settings.prices, activity=activity, bus=bus),
            freed=drain.freed,
            flights=flights,
            concurrency=concurrency,
            streams=agent_streams,
            grace_s=settings.grace_s,
            spawn=loops.spawn,
        )
        pushed = Pushed(gate=turnstile, flights=flights, liveness=liveness)
        cancelling = Cancelling(flights=flights, pushed=pushed, calls=ledger, changes=changes, bus=bus, callers=callers)
        calls = Calls(calls=ledger, queue=line, pushed=pushed, cancelling=cancelling, activity=activity, bus=bus)
        proxy = Proxy(
            requests=requests,
            tolls=tolls,
            entrance=entrance,
            parking=parking,
            joining=joining,
            sending=sending,
            resubscribing=Resubscribing(agent_streams, calls),
            flights=flights,
            concurrency=concurrency,
        )
        retention = Retention(ledger, kept_s=settings.calls_kept_s)

        # who hears of it
        prober = Prober(bus.publish, every_s=settings.probe_s, on_heard=lambda at: hub.confirm(at))
        ring = Ring(max_frames=settings.journal_length, max_bytes=settings.ring_bytes)
        taps = {
            "TASK_UPDATED": task_noter(registry),
            "ACTIVITY_LOGGED": inbox_waker(agents),
            "CALL_ENDED": call_waker(callers),
            "WORKSPACE_HEARTBEAT": queue_stirrer(drain),
            PROBE: prober.note,
        }
        hub = Hub(ring, on_sign=ticking.stamp, on_change=reader.wake, taps=taps)
        subscriber = Subscriber(link, hub, probe_s=settings.probe_s, retry_s=bus_start.retry_s)
        bodies = Bodies(link.whole, loops.spawn, max_bytes=settings.ring_bytes)
        places = Places(settings.max_readers)
        streams = web_events.EventStreams(
            hub,
            bodies,
            visibility,
            loops.spawn,
            places=places,
            keepalive_s=settings.keepalive_s,
            drain_s=settings.reader_drain_s,
        )
        cross_origin = cors.CrossOrigin(settings.cors_origins)
        sockets = web_sockets.EventSockets(
            hub,
            bodies,
            visibility,
            cross_origin,
            loops.spawn,
            places=places,
            drain_s=settings.reader_drain_s,
        )
        feed = await stack.enter_async_context(
            event_feed.opened(
                connector.connector(reach=reach, resolve_s=settings.connect_timeout_s),
                reach=reach,
                connect_s=settings.connect_timeout_s,
                first_byte_s=settings.feed_first_byte_s,
                silence_s=settings.feed_heartbeat_s * HEARTBEATS_MISSED,
                limit_bytes=settings.feed_event_bytes,
            )
        )
        upstream_types = {AGENT_EVENT, *settings.feed_keeps}
        subscribers = await stack.enter_async_context(Tasks())
        feeds = Feeds(
            store=FeedStore(database),
            liveness=liveness,
            feed=feed,
            bus=bus,
            vault=sealed,
            is_wanted=lambda one: one in ticking or hub.is_read(one, upstream_types),
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
        doorway = Doorway(limit=settings.max_connections, elsewhere=lambda: len(streams))
        readiness = Readiness(changes, lambda: subscriber.state.value, loops)
        reaper = Reaper(
            gate=turnstile,
            leases=turnstile.leases,
            instances=instances,
            calls=ledger,
            activity=activity,
            streams=agent_streams,
            bus=bus,
        )
        recall = Recall(gate=turnstile, calls=ledger)
        leases = Instances(instances, bus, every_s=settings.probe_s)

        # what turns for ever
        loops.loop(turnstile.run, "gate:connect", "Holds the connection to Redis by which calls are let in.")
        loops.loop(turnstile.leases.run, "gate:renew", "Renews this process's lease on its calls in Redis.")
        loops.loop(journal.run, "streams:journal", "Holds the connection to Redis by which streams are written down.")
        loops.loop(bus.run, "bus:publish", "Sends the events of this process to Redis, in order.")
        loops.loop(prober.run, "bus:probe", "Sends probes, by which it is known whether this process hears all events.")
        loops.loop(subscriber.run, "bus:listen", "Hears the events of all processes, and fetches what was missed.")
        loops.loop(subscriber.watch, "bus:watch", "Cuts the connection on which no probes come any more.")
        loops.loop(hub.run, "bus:serve", "Writes events to the readers that keep up.")
        loops.loop(reader.run, "changes:read", "Reads what others have changed, and forgets what was known of it here.")
        loops.loop(heartbeats.run, "heartbeats:write", "Writes heartbeats into PostgreSQL, many at once.")
        loops.loop(activity.run, "activity:write", "Writes rows of history and the ends of calls into PostgreSQL.")
        loops.loop(
            feeds.run, "feeds:keep", "Takes up the agents' feeds that somebody wants, and lets go of the others."
        )
        loops.loop(streams.feed, "streams:feed", "Writes events to the readers that do not keep up, a piece for each.")
        loops.loop(streams.run, "streams:sweep", "Cuts readers of events that take nothing; keeps silent ones alive.")
        loops.loop(visibility.run, "streams:visible", "Ends readers of events who may not see any more what they read.")
        loops.every(
            settings.probe_s,
            leases.tick,
            "instances:renew",
            "Renews this process's lease in PostgreSQL, and tells all when that of another is over.",
            outage=Outage("renewing the lease"),
            at_once=True,
        )
        loops.every(
            settings.write_every_s,
            waiting.tick,
            "waiting:write",
            "Writes who waits for a call and is therefore alive.",
            outage=Outage("writing who waits"),
        )
        loops.every(
            journal.renew_s,
            journal.renew,
            "streams:renew",
            "Keeps the journals of streams that go on from running out in Redis.",
            outage=Outage("keeping journals"),
        )
        for name, one, what in (
            ("queue", drain, "calls that waited for busy agents"),
            ("delegations", dispatching, "delegated tasks"),
        ):
            loops.every(
                settings.queue_every_s,
                one.tick,
                f"{name}:send",
                f"Sends {what}, when they are due or a dead process has left them.",
                outage=one.outage,
                shared=True,
            )
            loops.every(
                one.renew_s,
                one.renew,
                f"{name}:renew",
                f"Renews the leases on {what}, of those that this process has sent.",
                outage=Outage(f"renewing leases: {name}"),
            )
        for every_s, tick, name, does, what in (
            (
                settings.probe_s * PROBES_A_RENEWAL,
                reaper.tick,
                "calls:reap",
                "Ends the calls of processes that have died.",
                "ending calls of dead replicas",
            ),
            (
                settings.queue_every_s,
                recall.tick,
                "calls:recall",
                "Tells a Redis that was away of the messages whose calls wait.",
                "telling Redis of the calls that wait",
            ),
            (
                settings.expiry_every_s,
                expiry.tick,
                "calls:expire",
                "Ends calls and delegations whose time is over, or whose process is gone.",
                "ending calls whose time is over",
            ),
            (
                FORGET_EVERY_S,
                retention.tick,
                "calls:forget",
                "Forgets calls that ended long ago.",
                "forgetting calls",
            ),
            (
                TOKENS_USED_EVERY_S,
                identity.flush,
                "tokens:used",
                "Writes when tokens were used last.",
                "writing when tokens were used",
            ),
        ):
            loops.every(every_s, tick, name, does, outage=Outage(what), hangs_s=SWEEP_S, shared=True)
        stack.push_async_callback(write_down, heartbeats, activity, bus, leases)
        await bus_start.wait_until_up(subscriber.up)
        await bus_start.check_eviction(link)

        async def read_metrics() -> bytes:
            return exposition(readings(await bus_start.journal_entries(link)))

        def readings(journal_entries: int | None) -> Readings:
            return Readings(
                bus_state=subscriber.state.value,
                bus_waiting_events=len(bus),
                bus_dropped_events=bus.dropped,
                bus_publish_failures=bus.failures,
                bus_gaps=subscriber.gaps,
                bus_repairs=subscriber.repairs,
                bus_probe_latency_seconds=prober.latency_s,
                journal_entries=journal_entries,
                ring_frames=len(ring),
                ring_bytes=ring.bytes,
                bodies_fetched=bodies.fetched,
                bodies_missed=bodies.missed,
                bodies_bytes=bodies.bytes,
                readers=hub.readers,
                readers_lagging=hub.lagging,
                readers_fallen_behind=hub.fallen_behind,
                connections=doorway.open,
                connections_turned_away=doorway.turned_away,
                body_bytes=room.held,
                bodies_refused=room.refused,
                calls_in_flight=proxy.in_flight,
                calls_held=queue.held,
                calls_out=drain.out,
                agent_streams=len(agent_streams),
                agent_stream_readers=agent_streams.readers,
                agent_stream_bytes=agent_streams.bytes,
                agent_streams_unjournalled=journal.lost,
                delegations_out=dispatching.out,
                callers_waiting=len(callers),
                agents_waiting=len(agents),
                delivery_mode_unsure=parking.unsure,
                calls_interrupted=reaper.interrupted,
                calls_admitted=entrance.entered,
                calls_joined=joining.joined + parking.joined,
                answers_unkept=shelf.refused,
                requests_limited=tolls.refused,
                requests_unchecked=tolls.unchecked,
                feeds=feeds.states,
                feed_events=feeds.events,
                feed_events_repeated=feeds.duplicates,
                feed_events_dropped=feeds.dropped,
                feed_connects=feeds.connects,
                activity_waiting_rows=len(activity),
                activity_dropped_rows=activity.dropped,
                activity_bodiless_rows=activity.bodiless,
                tasks_died=tasks.deaths + loops.deaths + subscribers.deaths,
                loops_hung=loops.count(LoopState.HUNG),
                loops_gave_up=loops.count(LoopState.GAVE_UP),
            )

        application = site(settings, cross_origin)
        application[keys.AGENT_STREAMS] = agent_streams
        application[keys.VISIBILITY] = visibility
        application[keys.PLACES] = places
        application[keys.KEEPALIVE_S] = settings.keepalive_s
        application[keys.ADMISSION] = admission
        application[keys.IDENTITY] = identity
        application[keys.BACKLOG] = Backlog(queue=line, directory=directory, activity=activity, bus=bus)
        application[keys.CALLS] = calls
        application[keys.DELEGATIONS] = delegations
        application[keys.LOOPS] = loops
        application[keys.INBOX] = Inbox(
            calls=ledger,
            activity=activity,
            directory=directory,
            bus=bus,
            prices=settings.prices,
            journal=journal,
            leave=entrance.answered,
            agents=agents,
            lease_s=settings.inbox_lease_s,
            wait_s=settings.inbox_wait_s,
        )
        application[keys.TIMELINE] = Timeline(history=history, activity=activity, directory=directory, bus=bus)
        application[keys.EDITS] = Edits(workspaces=workspaces, directory=directory, bus=bus, reach=reach)
        application[keys.PEERS] = Peers(workspaces=workspaces, directory=directory, reach=reach)
        application[keys.PROXY] = proxy
        application[keys.READINESS] = readiness
        application[keys.REGISTRY] = registry
        application[keys.SESSIONS] = Sessions(sessions, identity, bus, lasts_s=settings.session_s)
        application[keys.TOLLS] = tolls
        application[keys.TOKENS] = TokenService(tokens=tokens, directory=directory, identity=identity, bus=bus)
        application[keys.VIGILS] = Vigils(
            calls=ledger, queue=line, streams=agent_streams, journal=journal, callers=callers
        )
        application[keys.WORKSPACES] = WorkspaceService(
            workspaces=workspaces, activity=history, directory=directory, bus=bus, vault=sealed, reach=reach
        )
        application[keys.METRICS] = read_metrics
        application[web_events.STREAMS] = streams
        application[web_sockets.SOCKETS] = sockets
        application[parse.ROOM] = room
        yield Gateway(
            application=application,
            proxy=proxy,
            drains=drains,
            doorway=doorway,
            streams=streams,
            sockets=sockets,
            agent_streams=agent_streams,
            wakes=(callers, agents),
            feeds=feeds,
            readiness=readiness,
            drain_s=settings.drain_s,
            reader_spread_s=settings.reader_spread_s,
            spawn=loops.spawn,
        )
