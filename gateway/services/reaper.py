"""What becomes of calls whose replica has died: those in flight end as unknown, the others get the row they lack."""

from collections.abc import Iterator
from dataclasses import replace

import structlog

from events.bus import Bus
from gateway import ports
from gateway.core import answers, outcomes
from gateway.core.endings import Ending
from gateway.core.ids import of_line
from gateway.core.journey import Arrival
from gateway.services.activity import ActivityLog, Line
from gateway.services.history import publish_ended
from gateway.services.streams import Streams

log = structlog.get_logger("gateway.reaper")


class Reaper:
    """Looks for calls in flight of replicas that are dead by both leases, Redis' and the
    database's: one that has merely lost one of them may be making its calls still. Calls that the ledger has by then
    wait for their agents: they go on.

    `interrupted` counts the calls that were ended here.
    """

    def __init__(
        self,
        *,
        gate: ports.Gate,
        leases: ports.Leases,
        instances: ports.Instances,
        calls: ports.Calls,
        activity: ActivityLog,
        streams: Streams,
        bus: Bus,
    ) -> None:
        self._gate = gate
        self._leases = leases
        self._calls = calls
        self._instances = instances
        self._activity = activity
        self._streams = streams
        self._bus = bus
        self._taken: list[ports.Orphan] = []
        self.interrupted = 0

    async def tick(self) -> None:
        """End what the dead have left; raises LiveUnavailable or StoreError."""
        await self._settle()
        lapsed = await self._leases.lapsed()
        if not lapsed:
            return
        alive = await self._instances.find_alive(lapsed)
        for replica in lapsed:
            if replica in alive:
                continue
            more = True
            while more:
                orphans, more = await self._leases.inherit(replica)
                self._taken += orphans
                await self._settle()

    async def _settle(self) -> None:
        """End what was taken over, now or once the ledger can be asked: nobody else has it any more."""
        if not self._taken:
            return
        ledgered = await self._calls.list_ledgered([one.call_id for one in self._taken])
        while self._taken:
            orphan = self._taken.pop(0)
            if orphan.call_id in ledgered:
                self._leave(orphan, waits_s=ledgered[orphan.call_id])
            else:
                self._end(orphan)

    def _end(self, orphan: ports.Orphan) -> None:
        """End a call that was in flight; of one that had ended, whoever listens has heard: it lacks its row."""
        if orphan.arrival is not None:
            for row in _rows(orphan, orphan.arrival.ending, orphan.arrival.duration_ms, orphan.arrival):
                self._activity.write(row)
            return
        ended = answers.classify(outcomes.Orphaned())
        duration_ms = round(orphan.age_s * 1000)
        arrival = None
        if orphan.journey is not None:
            journey = replace(orphan.journey, status=int(ended.answer.status))
            arrival = Arrival(ending=ended.ending, duration_ms=duration_ms, journey=journey)
        for row in _rows(orphan, ended.ending, duration_ms, arrival):
            self._activity.log(row)
        publish_ended(
            self._bus,
            orphan.target_id,
            orphan.call_id,
            ending=ended.ending,
            status=ended.answer.status,
            duration_ms=duration_ms,
        )
        self._leave(orphan, arrival=arrival)
        self._streams.interrupt(orphan.call_id)
        self.interrupted += 1
        log.warning("call_interrupted", call_id=orphan.call_id, workspace_id=orphan.target_id)

    def _leave(self, orphan: ports.Orphan, *, arrival: Arrival | None = None, waits_s: float | None = None) -> None:
        left = ports.Left(
            call_id=orphan.call_id,
            target_id=orphan.target_id,
            trace_id=orphan.trace_id,
            month="",
            cost=0,
            keep_s=waits_s,
            arrival=arrival,
        )
        self._gate.leave(left)


def _rows(orphan: ports.Orphan, ending: Ending, duration_ms: int, arrival: Arrival | None) -> Iterator[Line]:
    """What the histories have of it; what was said has gone with its replica."""
    line = Line(
        id=of_line(orphan.call_id),
        workspace_id=orphan.target_id,
        activity_type="a2a_receive",
        method=orphan.method,
        summary=f"{orphan.method}: {ending.value}",
        status="ok" if ending is Ending.COMPLETED else "error",
        source_id=orphan.caller_id,
        target_id=orphan.target_id,
        call_id=orphan.call_id,
        duration_ms=duration_ms,
        error_detail=None if ending is Ending.COMPLETED else ending.value,
        counts=True,
        arrival=arrival,
    )
    yield line
    if orphan.caller_id is not None and orphan.caller_id != orphan.target_id:
        yield line.as_sent()
