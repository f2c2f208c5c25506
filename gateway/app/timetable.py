"""What turns for ever, how often, and what each turn is for."""

from typing import Final

from gateway.app.calling import Calling
from gateway.app.ground import Ground
from gateway.app.hearing import Hearing
from gateway.app.known import Known
from gateway.services.changes import ChangeReader
from gateway.services.loops import Loops
from gateway.services.outage import Outage

FORGET_EVERY_S: Final = 60.0
"""How often calls that ended long ago are forgotten."""
SWEEP_S: Final = 600.0
"""What a turn may take that goes through all of a table, before it counts as hung."""
TOKENS_USED_EVERY_S: Final = 30.0
"""How often it is written which tokens have been used."""


def start(ground: Ground, known: Known, calling: Calling, hearing: Hearing, changes: ChangeReader) -> None:
    """Start all loops of this process."""
    _start_bus(ground, hearing, calling.loops)
    _start_known(ground, known, calling, changes)
    _start_readers(ground, known, hearing, calling.loops)
    _start_calls(ground, calling)


def _start_bus(ground: Ground, hearing: Hearing, loops: Loops) -> None:
    gate, bus = ground.gate, ground.bus
    prober, subscriber = hearing.prober, hearing.subscriber
    loops.loop(gate.run, "gate:connect", "Holds the connection to Redis by which calls are let in.")
    loops.loop(gate.leases.run, "gate:renew", "Renews this process's lease on its calls in Redis.")
    loops.loop(
        ground.journal.run, "streams:journal", "Holds the connection to Redis by which streams are written down."
    )
    loops.loop(bus.run, "bus:publish", "Sends the events of this process to Redis, in order.")
    loops.loop(prober.run, "bus:probe", "Sends probes, by which it is known whether this process hears all events.")
    loops.loop(subscriber.run, "bus:listen", "Hears the events of all processes, and fetches what was missed.")
    loops.loop(subscriber.watch, "bus:watch", "Cuts the connection on which no probes come any more.")
    loops.every(
        ground.settings.probe_s,
        hearing.leases.tick,
        "instances:renew",
        "Renews this process's lease in PostgreSQL, and tells all when that of another is over.",
        outage=Outage("renewing the lease"),
        at_once=True,
    )


def _start_known(ground: Ground, known: Known, calling: Calling, changes: ChangeReader) -> None:
    loops = calling.loops
    loops.loop(changes.run, "changes:read", "Reads what others have changed, and forgets what was known of it here.")
    loops.loop(known.heartbeats.run, "heartbeats:write", "Writes heartbeats into PostgreSQL, many at once.")
    loops.loop(known.activity.run, "activity:write", "Writes rows of history and the ends of calls into PostgreSQL.")
    loops.every(
        ground.settings.write_every_s,
        calling.waiting.tick,
        "waiting:write",
        "Writes who waits for a call and is therefore alive.",
        outage=Outage("writing who waits"),
    )
    loops.every(
        TOKENS_USED_EVERY_S,
        known.identity.flush,
        "tokens:used",
        "Writes when tokens were used last.",
        outage=Outage("writing when tokens were used"),
        hangs_s=SWEEP_S,
        shared=True,
    )


def _start_readers(ground: Ground, known: Known, hearing: Hearing, loops: Loops) -> None:
    journal, streams = ground.journal, hearing.streams
    loops.loop(hearing.hub.run, "bus:serve", "Writes events to the readers that keep up.")
    loops.loop(
        hearing.feeds.run, "feeds:keep", "Takes up the agents' feeds that somebody wants, and lets go of the others."
    )
    loops.loop(streams.feed, "streams:feed", "Writes events to the readers that do not keep up, a piece for each.")
    loops.loop(streams.run, "streams:sweep", "Cuts readers of events that take nothing; keeps silent ones alive.")
    loops.loop(
        known.visibility.run, "streams:visible", "Ends readers of events who may not see any more what they read."
    )
    loops.every(
        journal.renew_s,
        journal.renew,
        "streams:renew",
        "Keeps the journals of streams that go on from running out in Redis.",
        outage=Outage("keeping journals"),
    )


def _start_calls(ground: Ground, calling: Calling) -> None:
    loops, settings = calling.loops, ground.settings
    for name, one, what in (
        ("queue", calling.drain, "calls that waited for busy agents"),
        ("delegations", calling.dispatching, "delegated tasks"),
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
            ground.renew_s,
            calling.reaper.tick,
            "calls:reap",
            "Ends the calls of processes that have died.",
            "ending calls of dead replicas",
        ),
        (
            settings.queue_every_s,
            calling.recall.tick,
            "calls:recall",
            "Tells a Redis that was away of the messages whose calls wait.",
            "telling Redis of the calls that wait",
        ),
        (
            settings.expiry_every_s,
            calling.expiry.tick,
            "calls:expire",
            "Ends calls and delegations whose time is over, or whose process is gone.",
            "ending calls whose time is over",
        ),
        (
            FORGET_EVERY_S,
            calling.retention.tick,
            "calls:forget",
            "Forgets calls that ended long ago.",
            "forgetting calls",
        ),
    ):
        loops.every(every_s, tick, name, does, outage=Outage(what), hangs_s=SWEEP_S, shared=True)
