"""The calls that this process has in its hands: how far each is, and that each may be stopped before its end."""

import asyncio
from datetime import UTC, datetime
from time import monotonic

from gateway import ports
from gateway.core import calls, outcomes
from gateway.core.answers import Ended
from gateway.core.calls import Call
from gateway.core.journey import Arrival, Journey
from gateway.core.outcomes import Outcome
from gateway.services.relays import Relay


class Flight:
    """One call, from when it was let in to its end.

    `task` makes it; `stopped` is why it is to end early, if it is: that cancels the task while it is `under_way`, and
    before that the task looks by itself. `relay`: through which its answer goes, once that is a stream.
    """

    __slots__ = (
        "_caller_id", "_created_at", "_method", "_outbound", "_replica", "_started", "arrival", "relay", "stopped",
        "task", "under_way",
    )  # fmt: skip

    task: "asyncio.Task[None]"

    def __init__(self, *, outbound: ports.Outbound, caller_id: str | None, method: str, replica: str) -> None:
        self._outbound = outbound
        self._caller_id = caller_id
        self._method = method
        self._replica = replica
        self._created_at = datetime.now(UTC)
        self._started = monotonic()
        self.under_way = False
        self.stopped: Outcome | None = None
        self.arrival: Arrival | None = None
        self.relay: Relay | None = None

    def __repr__(self) -> str:
        return f"<Flight {self._outbound.call_id} stopped={self.stopped} arrival={self.arrival}>"

    @property
    def took_s(self) -> float:
        """For how long it has been under way."""
        return monotonic() - self._started

    def stop(self, outcome: Outcome) -> None:
        """Let it end with this, at once; whoever comes first says how, and after its end nothing changes any more."""
        if self.stopped is not None or self.arrival is not None:
            return
        self.stopped = outcome
        if self.under_way:
            self.task.cancel()

    def arrive(self, ended: Ended) -> Arrival:
        """Note its one end, and return what there is to know of it."""
        assert self.arrival is None, "a call ends once"
        journey = self._journey(int(ended.answer.status))
        self.arrival = Arrival(ending=ended.ending, duration_ms=round(self.took_s * 1000), journey=journey)
        return self.arrival

    def call(self) -> Call:
        """Return it as the ledger will have it."""
        return calls.pushed(
            call_id=self._outbound.call_id,
            workspace_id=self._outbound.workspace_id,
            caller_id=self._caller_id,
            method=self._method,
            created_at=self._created_at,
            journey=self._journey() if self.arrival is None else self.arrival.journey,
            arrival=self.arrival,
        )

    def _journey(self, status: int | None = None) -> Journey:
        outbound, meter = self._outbound, self._outbound.meter
        reset_by, reset_s = (None, 0.0) if meter.clockwork is None else meter.clockwork.last_reset()
        return Journey(
            replica=self._replica,
            idle_s=outbound.idle_s,
            limit_s=outbound.limit_s,
            by_deadline=outbound.by_deadline,
            sent_bytes=len(outbound.body),
            attempts=meter.attempts,
            received_bytes=meter.received_bytes,
            first_byte_ms=None if meter.first_byte_s is None else round(meter.first_byte_s * 1000),
            reset_by=reset_by,
            reset_ms=None if reset_by is None else round(reset_s * 1000),
            status=status,
        )


class Flights:
    """All of them, by their ids. `replica`: the name under which others know this process."""

    def __init__(self, replica: str) -> None:
        self.replica = replica
        self._flights: dict[str, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def __repr__(self) -> str:
        return f"<Flights {len(self._flights)}>"

    def add(self, call_id: str, flight: Flight) -> None:
        """Have a call in hand from now on."""
        self._flights[call_id] = flight

    def remove(self, call_id: str) -> None:
        """Let go of a call that has ended."""
        self._flights.pop(call_id, None)

    def find(self, call_id: str) -> Flight | None:
        """Return the call if this process has it."""
        return self._flights.get(call_id)

    def call_off(self, call_id: str) -> None:
        """End a call as cancelled if this process has it: somebody says so, here or on another replica."""
        flight = self._flights.get(call_id)
        if flight is not None:
            flight.stop(outcomes.Cancelled(under_way=True))

    async def drain(self, within_s: float, afterwards_s: float) -> None:
        """Let them end by themselves within this time; end the rest as gateway_shutdown, within that one."""
        if self._flights:
            await asyncio.wait([flight.task for flight in self._flights.values()], timeout=within_s)
        left = list(self._flights.values())
        for flight in left:
            flight.stop(outcomes.Stopped())
        if left:
            await asyncio.wait([flight.task for flight in left], timeout=afterwards_s)


def planned(outbound: ports.Outbound, replica: str) -> Journey:
    """Return what is known of a call before it goes out."""
    return Journey(
        replica=replica,
        idle_s=outbound.idle_s,
        limit_s=outbound.limit_s,
        by_deadline=outbound.by_deadline,
        sent_bytes=len(outbound.body),
    )
