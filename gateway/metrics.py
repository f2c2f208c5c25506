"""Every metric of a process, declared once and read when somebody asks."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

BUS_STATES = ("up", "repairing", "blind")


def _metric(about: str, *, counts: bool = False) -> Any:
    return field(metadata={"about": about, "counts": counts})


@dataclass(frozen=True, kw_only=True)
class Readings:
    """What is measured. Each field is a metric `gateway_<name>`; None where it is not known."""

    bus_state: str = _metric("How well this process hears: 1 for the state it is in.")
    bus_waiting_events: int = _metric("Events that wait for Redis.")
    bus_dropped_events: int = _metric(
        "Events that did not fit while Redis was away; readers are told by a gap.", counts=True
    )
    bus_publish_failures: int = _metric("Batches that Redis did not take.", counts=True)
    bus_gaps: int = _metric("Losses that this process has found while listening.", counts=True)
    bus_repairs: int = _metric("Holes that the journal has mended, or tried to.", counts=True)
    bus_probe_latency_seconds: float | None = _metric("How long the last probe took to come back.")
    journal_entries: int | None = _metric("Entries of the journal in Redis.")
    ring_frames: int = _metric("Events held for readers.")
    ring_bytes: int = _metric("What they take, roughly.")
    bodies_fetched: int = _metric("Wholes of large events fetched for readers.", counts=True)
    bodies_missed: int = _metric("Readers that got a large event cut short: its whole was gone.", counts=True)
    bodies_bytes: int = _metric("What the wholes fetched lately take.")
    readers: int = _metric("Event streams and sockets open.")
    readers_lagging: int = _metric("Those of them that do not keep up.")
    readers_fallen_behind: int = _metric("How often a reader stopped keeping up.", counts=True)
    connections: int = _metric("Clients that are connected.")
    connections_turned_away: int = _metric("Clients that came when all places were taken.", counts=True)
    body_bytes: int = _metric("What the bodies of requests and answers take, roughly.")
    bodies_refused: int = _metric("Bodies, or pieces of one, for which there was no room.", counts=True)
    calls_in_flight: int = _metric("Calls that have not ended.")
    callers_waiting: int = _metric("Callers that stay for the answer to a call that waits.")
    calls_held: int = _metric("Calls that this process has put into the queue of a busy agent.", counts=True)
    calls_out: int = _metric("Calls out of a queue that this process has sent, and that have not ended.")
    delegations_out: int = _metric("Delegated tasks that this process has sent, and that have not ended.")
    agent_streams: int = _metric("Streams of agents that this process relays.")
    agent_stream_readers: int = _metric("Readers of agents' streams, relayed here or elsewhere.")
    agent_stream_bytes: int = _metric("What this process keeps of the streams that it relays, in bytes.")
    agent_streams_unjournalled: int = _metric(
        "Streams of which something could not be written to their journal.", counts=True
    )
    agents_waiting: int = _metric("Agents that wait for a message.")
    delivery_mode_unsure: int = _metric("Calls whose agent has not said how it gets its messages.", counts=True)
    calls_interrupted: int = _metric("Calls of other replicas that have died, ended here.", counts=True)
    calls_admitted: int = _metric("Calls that all replicas together have let begin.", counts=True)
    calls_joined: int = _metric("Calls that were not made, because the same call was made before.", counts=True)
    answers_unkept: int = _metric("Answers that were not kept for those who make the call again: no room.", counts=True)
    requests_limited: int = _metric("Requests refused for their number.", counts=True)
    requests_unchecked: int = _metric(
        "Requests that went on without being counted, because Redis was away.", counts=True
    )
    feeds: Mapping[str, int] = _metric(
        "Feeds by state: those that this process reads; `gave_up` by whomever, `stopped` not by this one."
    )
    feed_events: int = _metric("Events of agents' feeds told on.", counts=True)
    feed_events_repeated: int = _metric("Those that had been told before.", counts=True)
    feed_events_dropped: int = _metric("Those that were too large.", counts=True)
    feed_connects: int = _metric("Connections to feeds, tried or made.", counts=True)
    activity_waiting_rows: int = _metric("Activity rows that wait for PostgreSQL.")
    activity_dropped_rows: int = _metric("Activity rows that did not fit while PostgreSQL was away.", counts=True)
    activity_bodiless_rows: int = _metric("Activity rows whose bodies did not fit meanwhile.", counts=True)
    loops_hung: int = _metric("Loops that have not turned for longer than they may.")
    loops_gave_up: int = _metric("Loops that ended too often, and are not started again.")
    tasks_died: int = _metric("Tasks and loops that died of an exception.", counts=True)


class _Collector:
    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        for one in fields(self._readings):
            value = getattr(self._readings, one.name)
            name, about = f"gateway_{one.name}", one.metadata["about"]
            if one.name == "bus_state":
                value = {state: int(state == value) for state in BUS_STATES}
            if isinstance(value, Mapping):
                states = GaugeMetricFamily(name, about, labels=["state"])
                for state, count in value.items():
                    states.add_metric([state], float(count))
                yield states
            elif value is not None:
                family = CounterMetricFamily if one.metadata["counts"] else GaugeMetricFamily
                yield family(name, about, value=value)


def exposition(readings: Readings) -> bytes:
    """Return the readings in Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(_Collector(readings))
    return generate_latest(registry)


def describe() -> Iterator[tuple[str, str]]:
    """Yield the name of each metric, as Prometheus sees it, and what it is about."""
    for one in fields(Readings):
        yield f"gateway_{one.name}{'_total' if one.metadata['counts'] else ''}", one.metadata["about"]
