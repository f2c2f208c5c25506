"""How calls are made: the way out to agents, its clocks, and the ledger of all that was asked and answered."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

from gateway.app.ground import Ground
from gateway.app.known import Known
from gateway.net import clocks, connector, dispatch
from gateway.ports import Claims
from gateway.services.arrivals import Arrivals
from gateway.services.attempts import Attempts
from gateway.services.backlog import Backlog
from gateway.services.calls import Calls
from gateway.services.cancelling import Cancelling
from gateway.services.concurrency import Concurrency
from gateway.services.delegation import Delegations
from gateway.services.delegation import Times as DelegationTimes
from gateway.services.drain import Drain
from gateway.services.entrance import Entrance
from gateway.services.expiry import Expiry
from gateway.services.flights import Flights
from gateway.services.inbox import Inbox
from gateway.services.joining import Joining
from gateway.services.loops import HANGS_S, Loops
from gateway.services.parking import Parking
from gateway.services.parking import Times as ParkingTimes
from gateway.services.proxy import Proxy
from gateway.services.pushed import Pushed
from gateway.services.queue import Queue
from gateway.services.queue import Times as QueueTimes
from gateway.services.reaper import Reaper
from gateway.services.recall import Recall
from gateway.services.requests import Requests, Times
from gateway.services.resubscribing import Resubscribing
from gateway.services.retention import Retention
from gateway.services.room import Room
from gateway.services.sending import Sending
from gateway.services.settling import Settling
from gateway.services.shelf import Shelf
from gateway.services.streams import Sizes, Streams
from gateway.services.vigils import Vigils
from gateway.services.waiting import Waiting
from gateway.services.wakes import Wakes


@dataclass(frozen=True, kw_only=True, slots=True)
class Calling:
    """What makes calls, what keeps them, and what ends those that nobody else ends.

    drain: sends what waited for busy agents; dispatching: sends delegations. callers, agents: who waits for an answer,
    or for a message, in a request that is kept open.
    """

    loops: Loops
    clocks: clocks.Clocks
    room: Room
    callers: Wakes
    agents: Wakes
    entrance: Entrance
    flights: Flights
    streams: Streams
    shelf: Shelf
    joining: Joining
    parking: Parking
    queue: Queue
    drain: Drain
    dispatching: Drain
    delegations: Delegations
    proxy: Proxy
    calls: Calls
    backlog: Backlog
    inbox: Inbox
    vigils: Vigils
    waiting: Waiting
    expiry: Expiry
    reaper: Reaper
    recall: Recall
    retention: Retention

    @property
    def drains(self) -> tuple[Drain, Drain]:
        """Both that send what waited."""
        return self.drain, self.dispatching

    def call_off(self, call_id: str) -> None:
        """End a call as cancelled if this process has it out."""
        self.flights.call_off(call_id)
        for one in self.drains:
            one.call_off(call_id)


@asynccontextmanager
async def open_calling(ground: Ground, known: Known) -> AsyncIterator[Calling]:
    """Open the way out; on leaving, end what is still on it."""
    settings, stores, bus = ground.settings, ground.stores, ground.bus
    async with AsyncExitStack() as stack:
        # the way out
        ticking = clocks.Clocks(
            silence=known.silences,
            spawn=ground.tasks.spawn,
            bus_lost_s=settings.bus_lost_s,
            first_byte_s=settings.first_byte_s,
            stall_s=settings.stall_s,
        )
        dispatcher = await stack.enter_async_context(
            dispatch.opened(
                connector.connector(
                    reach=ground.reach,
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
        loops = await stack.enter_async_context(Loops(hangs_s=HANGS_S + _longest_pause_s(ground)))
        room = Room(settings.buffer_bytes)
        streams = Streams(
            ground.journal,
            Sizes(
                event=settings.event_bytes,
                kept=settings.stream_kept_bytes,
                unwritten=settings.stream_bytes,
                all_kept=settings.streams_kept_bytes,
                answer=settings.answer_kept_bytes,
            ),
        )

        # where calls wait
        callers, agents = Wakes(capacity=settings.max_calls), Wakes(capacity=settings.max_readers)
        parking = Parking(
            calls=stores.calls,
            activity=known.activity,
            callers=callers,
            times=ParkingTimes(
                lives_s=settings.inbox_ttl_s, wait_s=settings.prefer_wait_s, kept_s=settings.answer_kept_s
            ),
            room=settings.inbox_messages,
        )
        queue = Queue(
            calls=stores.calls,
            queue=stores.queue,
            activity=known.activity,
            callers=callers,
            times=QueueTimes(
                lives_s=settings.queue_ttl_s,
                retry_s=settings.queue_retry_s,
                wait_s=settings.prefer_wait_s,
                kept_s=settings.answer_kept_s,
            ),
            room=settings.queue_calls,
        )
        requests = Requests(
            admission=known.admission,
            parking=parking,
            vault=ground.vault,
            reach=ground.reach,
            times=Times(idle_s=settings.idle_timeout_s, ceiling_s=settings.ceiling_s, max_s=settings.max_timeout_s),
        )
        entrance = Entrance(ground.gate, known.tolls, reserve_cents=settings.reserve_cents)

        # what sends those that waited
        def draining(source: Claims) -> Drain:
            settling = Settling(
                queue=source,
                entrance=entrance,
                prices=settings.prices,
                activity=known.activity,
                bus=bus,
                spawn=loops.spawn,
            )
            attempts = Attempts(
                queue=source,
                admission=known.admission,
                requests=requests,
                entrance=entrance,
                dispatcher=dispatcher,
                settling=settling,
                streams=streams,
                bus=bus,
                answer_bytes=settings.max_response_bytes,
                retry_s=settings.queue_retry_s,
                restart_s=settings.delegation_retry_s,
            )
            return Drain(
                queue=source,
                directory=known.directory,
                attempts=attempts,
                settling=settling,
                room=room,
                capacity=settings.max_calls,
                lease_s=settings.queue_lease_s,
                spawn=loops.spawn,
            )

        drain, dispatching = draining(stores.queue), draining(stores.delegation_claims)

        # what sends those that do not
        flights = Flights(ground.link.publisher)
        concurrency = Concurrency(flights, capacity=settings.max_calls, share=settings.max_calls_each)
        shelf = Shelf(
            lasts_s=settings.answer_kept_s,
            each_bytes=settings.answer_kept_bytes,
            all_bytes=settings.answers_kept_bytes,
        )
        joining = Joining(
            gate=ground.gate,
            waits=queue,
            callers=callers,
            shelf=shelf,
            streams=streams,
            capacity=settings.max_calls,
        )
        waiting = Waiting(stores.liveness)
        pushed = Pushed(gate=ground.gate, flights=flights, liveness=stores.liveness)
        calls = Calls(
            calls=stores.calls,
            queue=stores.queue,
            pushed=pushed,
            cancelling=Cancelling(
                flights=flights, pushed=pushed, calls=stores.calls, changes=stores.changes, bus=bus, callers=callers
            ),
            activity=known.activity,
            bus=bus,
        )
        proxy = Proxy(
            requests=requests,
            tolls=known.tolls,
            entrance=entrance,
            parking=parking,
            joining=joining,
            sending=Sending(
                dispatcher=dispatcher,
                entrance=entrance,
                joining=joining,
                queue=queue,
                waiting=waiting,
                arrivals=Arrivals(
                    entrance=entrance, joining=joining, prices=settings.prices, activity=known.activity, bus=bus
                ),
                freed=drain.freed,
                flights=flights,
                concurrency=concurrency,
                streams=streams,
                grace_s=settings.grace_s,
                spawn=loops.spawn,
            ),
            resubscribing=Resubscribing(streams, calls),
            flights=flights,
            concurrency=concurrency,
        )
        yield Calling(
            loops=loops,
            clocks=ticking,
            room=room,
            callers=callers,
            agents=agents,
            entrance=entrance,
            flights=flights,
            streams=streams,
            shelf=shelf,
            joining=joining,
            parking=parking,
            queue=queue,
            drain=drain,
            dispatching=dispatching,
            delegations=Delegations(
                delegations=stores.delegations,
                directory=known.directory,
                admission=known.admission,
                tolls=known.tolls,
                entrance=entrance,
                parking=parking,
                activity=known.activity,
                bus=bus,
                came=dispatching.came,
                times=DelegationTimes(
                    waits_s=settings.queue_ttl_s, parked_s=settings.inbox_ttl_s, takes_s=settings.delegation_s
                ),
                room=settings.queue_calls,
            ),
            proxy=proxy,
            calls=calls,
            backlog=Backlog(queue=stores.queue, directory=known.directory, activity=known.activity, bus=bus),
            inbox=Inbox(
                calls=stores.calls,
                activity=known.activity,
                directory=known.directory,
                bus=bus,
                prices=settings.prices,
                journal=ground.journal,
                leave=entrance.answered,
                agents=agents,
                lease_s=settings.inbox_lease_s,
                wait_s=settings.inbox_wait_s,
            ),
            vigils=Vigils(
                calls=stores.calls, queue=stores.queue, streams=streams, journal=ground.journal, callers=callers
            ),
            waiting=waiting,
            expiry=Expiry(
                calls=stores.calls,
                queue=stores.queue,
                delegations=stores.delegations,
                activity=known.activity,
                bus=bus,
                stale_s=settings.queue_stale_s,
            ),
            reaper=Reaper(
                gate=ground.gate,
                leases=ground.gate.leases,
                instances=stores.instances,
                calls=stores.calls,
                activity=known.activity,
                streams=streams,
                bus=bus,
            ),
            recall=Recall(gate=ground.gate, calls=stores.calls),
            retention=Retention(stores.calls, kept_s=settings.calls_kept_s),
        )


def _longest_pause_s(ground: Ground) -> float:
    """What a loop may take between two turns because it was told to."""
    settings = ground.settings
    return max(ground.renew_s, settings.changes_every_s, settings.write_every_s)
