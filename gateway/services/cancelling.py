"""The end of a call that is out because somebody wants it, whichever replica has it in its hands."""

import asyncio
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Final

from events.bus import Bus
from events.event import changed
from gateway import ports
from gateway.core.calls import Call
from gateway.services.flights import Flights
from gateway.services.pushed import Pushed
from gateway.services.wakes import Wakes

WITHIN_S: Final = 2.0
"""How long who calls off a call waits for its end ..."""
LOOK_S: Final = 0.1
"""... and how often it looks when it hears nothing."""


class Cancelling:
    """Calls off calls that are out. The list of changes carries the word, so that it arrives with or without Redis; the
    bus only makes it arrive at once. `callers`: woken by the end of each call."""

    def __init__(
        self,
        *,
        flights: Flights,
        pushed: Pushed,
        calls: ports.Calls,
        changes: ports.Changes,
        bus: Bus,
        callers: Wakes,
    ) -> None:
        self._flights = flights
        self._pushed = pushed
        self._calls = calls
        self._changes = changes
        self._bus = bus
        self._callers = callers

    async def cancel_pushed(self, call: Call) -> Call:
        """Call off a call that is under way, and return it as it stands then: it has ended, or is about to.

        Raises StoreError where nobody can be told.
        """
        flight = self._flights.find(call.id)
        if flight is not None:
            self._flights.call_off(call.id)
            await asyncio.wait([flight.task], timeout=WITHIN_S)
            return flight.call()
        with self._woken(call.id) as woken:
            await self._changes.call_off(call.id)
            self._bus.publish(changed())
            until = asyncio.get_running_loop().time() + WITHIN_S
            while asyncio.get_running_loop().time() < until:
                await _heard(woken)
                try:
                    found = await self._pushed.find(call.workspace_id, call.id)
                except ports.LiveUnavailable:  # and so nobody hears of its end before its row is there
                    return call
                if found is None:  # its row is there, and its record has gone
                    return call
                if found.ended:
                    return found
                woken.clear()
        return call

    async def cancel_stored(self, call: Call) -> Call:
        """Call off a call of the ledger that a process has, and return it as it stands then: it has ended, or nobody
        has it any more, or it is about to end.

        The ledger keeps the word, too: should that process die, whoever finds the call does not send it. Raises
        StoreError where that cannot be written.
        """
        with self._woken(call.id) as woken:
            await self._calls.call_off(call.workspace_id, call.id)
            self._bus.publish(changed())
            until = asyncio.get_running_loop().time() + WITHIN_S
            while asyncio.get_running_loop().time() < until:
                await _heard(woken)
                call = await self._calls.find(call.workspace_id, call.id) or call
                if call.ended or call.lease_until is None:
                    return call
                woken.clear()
        return call

    def _woken(self, call_id: str) -> AbstractContextManager[asyncio.Event]:
        """What is set when the call ends; where as many wait as may, nothing sets it."""
        return nullcontext(asyncio.Event()) if self._callers.full else self._callers.waiting(call_id)


async def _heard(woken: asyncio.Event) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(LOOK_S):
            await woken.wait()
