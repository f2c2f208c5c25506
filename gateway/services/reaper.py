"""The end of calls whose replica has died: nobody knows what became of them, and everybody is told so."""

import asyncio
import contextlib

import structlog

from events.bus import Bus
from events.event import event
from gateway import ports
from gateway.core import endings
from gateway.services.activity import ActivityLog, Line

log = structlog.get_logger("gateway.reaper")


class Reaper:
    """Looks every `every_s` seconds for calls in flight of replicas that are dead by both leases, Redis' and the
    database's: one that has merely lost one of them may be making its calls still. Calls that the ledger has by then
    wait for their agents: they go on.

    `interrupted` counts the calls that were ended here.
    """

    def __init__(
        self,
        *,
        gate: ports.Gate,
        instances: ports.Instances,
        calls: ports.Calls,
        activity: ActivityLog,
        bus: Bus,
        every_s: float,
    ) -> None:
        self._gate = gate
        self._calls = calls
        self._instances = instances
        self._activity = activity
        self._bus = bus
        self._every_s = every_s
        self._taken: list[ports.Orphan] = []
        self.interrupted = 0

    async def run(self) -> None:
        """Turn for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            with contextlib.suppress(ports.LiveUnavailable, ports.StoreError):  # both have been told of elsewhere
                await self.tick()

    async def tick(self) -> None:
        """End what the dead have left; raises LiveUnavailable or StoreError."""
        await self._settle()
        lapsed = await self._gate.lapsed()
        if not lapsed:
            return
        alive = await self._instances.find_alive(lapsed)
        for replica in lapsed:
            if replica in alive:
                continue
            more = True
            while more:
                orphans, more = await self._gate.inherit(replica)
                self._taken += orphans
                await self._settle()

    async def _settle(self) -> None:
        """End what was taken over, now or once the ledger can be asked: nobody else has it any more."""
        if not self._taken:
            return
        ledgered = await self._calls.list_ledgered([one.call_id for one in self._taken])
        taken, self._taken = self._taken, []
        for orphan in taken:
            if orphan.call_id in ledgered:
                self._leave(orphan, ledgered[orphan.call_id])
            else:
                self._end(orphan)

    def _end(self, orphan: ports.Orphan) -> None:
        ended = endings.classify(endings.Orphaned())
        ending, method, duration_ms = ended.ending.value, orphan.method, round(orphan.age_s * 1000)
        line = Line(
            workspace_id=orphan.target_id,
            activity_type="a2a_receive",
            method=method,
            summary=f"{method}: {ending}",
            status="error",
            source_id=orphan.caller_id,
            target_id=orphan.target_id,
            call_id=orphan.call_id,
            duration_ms=duration_ms,
            error_detail=ending,
            counts=True,
        )
        self._activity.log(line)
        if orphan.caller_id is not None and orphan.caller_id != orphan.target_id:
            self._activity.log(line.as_sent())
        shown = {
            "call_id": orphan.call_id,
            "ending": ending,
            "status": ended.answer.status,
            "duration_ms": duration_ms,
        }
        self._bus.publish(event("CALL_ENDED", orphan.target_id, shown))
        self._leave(orphan)
        self.interrupted += 1
        log.warning("call_interrupted", call_id=orphan.call_id, workspace_id=orphan.target_id)

    def _leave(self, orphan: ports.Orphan, waits_s: float | None = None) -> None:
        left = ports.Left(
            call_id=orphan.call_id,
            target_id=orphan.target_id,
            trace_id=orphan.trace_id,
            month="",
            cost=0,
            keep_s=waits_s,
        )
        self._gate.leave(left)
