"""Pushed calls that have no row yet: as this process knows them that has them in its hands, or as Redis does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from gateway import ports
from gateway.core import calls
from gateway.core.calls import Call
from gateway.core.journey import Journey, Sign
from gateway.services.flights import Flights


class Pushed:
    """Finds calls under way, and those that ended so short a while ago that their row is not written."""

    def __init__(self, *, gate: ports.Gate, flights: Flights, liveness: ports.Silence) -> None:
        self._gate = gate
        self._flights = flights
        self._liveness = liveness

    def find_here(self, workspace_id: str, call_id: str) -> Call | None:
        """Return a call to this workspace that this process has in its hands."""
        flight = self._flights.find(call_id)
        if flight is None:
            return None
        call = flight.call()
        return call if call.workspace_id == workspace_id else None

    async def find(self, workspace_id: str, call_id: str) -> Call | None:
        """Return a call to this workspace that any replica has, or had a moment ago. Raises LiveUnavailable."""
        here = self.find_here(workspace_id, call_id)
        if here is not None:
            return here
        found = await self._gate.find(call_id)
        if found is None or found.target_id != workspace_id:
            return None
        return calls.pushed(
            call_id=call_id,
            workspace_id=workspace_id,
            caller_id=found.caller_id,
            method=found.method,
            created_at=datetime.now(UTC) - timedelta(seconds=found.age_s),
            journey=found.journey if found.arrival is not None else await self._heard(found),
            arrival=found.arrival,
        )

    async def _heard(self, found: ports.Travelling) -> Journey:
        """Return the way of a call that another replica has, with the last sign of life that the database knows of.

        Bytes of its answer are known to that replica alone: to write them down would cost more than they tell.
        """
        try:
            silent_s = (await self._liveness.silence([found.target_id])).get(found.target_id)
        except ports.StoreError:
            return found.journey
        if silent_s is None or silent_s > found.age_s:
            return found.journey
        return replace(found.journey, reset_by=Sign.WORKSPACE, reset_ms=round((found.age_s - silent_s) * 1000))
