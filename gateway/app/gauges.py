"""What /metrics says: each part is asked for its own counts at the moment when somebody reads them."""

from dataclasses import dataclass

from gateway.app import bus as bus_start
from gateway.app.calling import Calling
from gateway.app.ground import Ground
from gateway.app.hearing import Hearing
from gateway.app.known import Known
from gateway.metrics import Readings, exposition
from gateway.services.loops import State
from gateway.web.doorway import Doorway


@dataclass(frozen=True, kw_only=True, slots=True)
class Gauges:
    """Who is asked."""

    ground: Ground
    known: Known
    calling: Calling
    hearing: Hearing
    doorway: Doorway

    async def read(self) -> bytes:
        """Return the text of /metrics."""
        return exposition(self._readings(await bus_start.journal_entries(self.ground.link)))

    def _readings(self, journal_entries: int | None) -> Readings:
        ground, known, calling, hearing = self.ground, self.known, self.calling, self.hearing
        return Readings(
            bus_state=hearing.subscriber.state.value,
            bus_waiting_events=len(ground.bus),
            bus_dropped_events=ground.bus.dropped,
            bus_publish_failures=ground.bus.failures,
            bus_gaps=hearing.subscriber.gaps,
            bus_repairs=hearing.subscriber.repairs,
            bus_probe_latency_seconds=hearing.prober.latency_s,
            journal_entries=journal_entries,
            ring_frames=len(hearing.ring),
            ring_bytes=hearing.ring.bytes,
            bodies_fetched=hearing.bodies.fetched,
            bodies_missed=hearing.bodies.missed,
            bodies_bytes=hearing.bodies.bytes,
            readers=hearing.hub.readers,
            readers_lagging=hearing.hub.lagging,
            readers_fallen_behind=hearing.hub.fallen_behind,
            connections=self.doorway.open,
            connections_turned_away=self.doorway.turned_away,
            body_bytes=calling.room.held,
            bodies_refused=calling.room.refused,
            calls_in_flight=calling.proxy.in_flight,
            calls_held=calling.queue.held,
            calls_out=calling.drain.out,
            agent_streams=len(calling.streams),
            agent_stream_readers=calling.streams.readers,
            agent_stream_bytes=calling.streams.bytes,
            agent_streams_unjournalled=ground.journal.lost,
            delegations_out=calling.dispatching.out,
            callers_waiting=len(calling.callers),
            agents_waiting=len(calling.agents),
            delivery_mode_unsure=calling.parking.unsure,
            calls_interrupted=calling.reaper.interrupted,
            calls_admitted=calling.entrance.entered,
            calls_joined=calling.joining.joined + calling.parking.joined,
            answers_unkept=calling.shelf.refused,
            requests_limited=known.tolls.refused,
            requests_unchecked=known.tolls.unchecked,
            feeds=hearing.feeds.states,
            feed_events=hearing.feeds.events,
            feed_events_repeated=hearing.feeds.duplicates,
            feed_events_dropped=hearing.feeds.dropped,
            feed_connects=hearing.feeds.connects,
            activity_waiting_rows=len(known.activity),
            activity_dropped_rows=known.activity.dropped,
            activity_bodiless_rows=known.activity.bodiless,
            tasks_died=ground.tasks.deaths + calling.loops.deaths + hearing.subscribers.deaths,
            loops_hung=calling.loops.count(State.HUNG),
            loops_gave_up=calling.loops.count(State.GAVE_UP),
        )
