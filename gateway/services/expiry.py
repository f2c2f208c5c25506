"""The end of calls whose time in an inbox is over, each brought about by one replica."""

import asyncio
from typing import Final

from events.bus import Bus
from gateway import ports
from gateway.core.calls import END_STATES, State
from gateway.core.endings import Ending
from gateway.services.activity import ActivityLog
from gateway.services.history import ended_row, publish_end, sent_line
from gateway.services.outage import Outage

BATCH: Final = 200
"""Calls that end in one transaction."""
OVERDUE: Final = ((State.PARKED, Ending.EXPIRED), (State.DISPATCHED, Ending.DELIVERED_TO_INBOX))
"""How a call ends whose time is over: nobody fetched it, or its agent has it and never answered."""


class Expiry:
    """Looks every `every_s` seconds for calls whose time is over."""

    def __init__(self, *, calls: ports.Calls, activity: ActivityLog, bus: Bus, every_s: float) -> None:
        self._calls = calls
        self._activity = activity
        self._bus = bus
        self._every_s = every_s
        self._outage = Outage("ending calls whose time is over")

    async def run(self) -> None:
        """Turn for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.tick()
                self._outage.worked()
            except ports.StoreError as error:
                self._outage.failed(error)

    async def tick(self) -> None:
        """End all whose time is over; raises StoreError."""
        for state, ending in OVERDUE:
            more = True
            while more:
                calls = await self._calls.end_overdue(
                    state, to=END_STATES[ending], ending=ending, limit=BATCH, history=ended_row
                )
                for call in calls:
                    for line in sent_line(call):
                        self._activity.log(line)
                    publish_end(self._bus, call)
                more = len(calls) == BATCH
