"""The end of calls that nobody else ends any more: their time is over, or their process is gone."""

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Final

from events.bus import Bus
from gateway import ports
from gateway.core.calls import END_STATES, Call, State
from gateway.core.endings import Ending
from gateway.services.activity import ActivityLog, Line
from gateway.services.history import ended_row, publish_end, sent_line

BATCH: Final = 200
"""Calls that end in one transaction."""
OVERDUE: Final = ((State.PARKED, Ending.EXPIRED), (State.DISPATCHED, Ending.DELIVERED_TO_INBOX))
"""How a call of an inbox ends whose time is over: nobody fetched it, or its agent has it and never answered."""

End = Callable[..., Awaitable[Sequence[Call]]]
"""Ends some calls, `limit` at most, and writes what `history` makes of each; returns them."""


async def ended(end: End, activity: ActivityLog, bus: Bus) -> AsyncIterator[int]:
    """End all of them, batch by batch, and tell of each; yields how many those of a batch are. Raises StoreError."""
    more = True
    while more:
        lines: list[Line] = []
        calls = await end(limit=BATCH, history=partial(_history, lines))
        for line in lines:
            activity.tell(line)
        for call in calls:
            publish_end(bus, call)
        yield len(calls)
        more = len(calls) == BATCH


class Expiry:
    """Ends such calls.

    stale_s: how long calls wait for a busy agent, whatever they were promised when they came; None: as long as that.
    """

    def __init__(
        self,
        *,
        calls: ports.Calls,
        queue: ports.Queue,
        delegations: ports.Delegations,
        activity: ActivityLog,
        bus: Bus,
        stale_s: float | None,
    ) -> None:
        self._calls = calls
        self._queue = queue
        self._delegations = delegations
        self._stale_s = stale_s
        self._activity = activity
        self._bus = bus

    async def tick(self) -> None:
        """End all of them; raises StoreError."""
        for end in self._ends():
            async for _ in ended(end, self._activity, self._bus):
                pass

    def _ends(self) -> Iterator[End]:
        """What ends some of them."""
        for state, ending in OVERDUE:
            yield partial(self._calls.end_overdue, state, to=END_STATES[ending], ending=ending)
        yield self._queue.end_overdue
        yield self._delegations.end_overdue
        yield self._queue.end_called_off
        yield self._queue.end_lost
        if self._stale_s is not None:
            yield partial(self._queue.end_stale, self._stale_s)


def _history(lines: list[Line], call: Call) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
    """What becomes of a call's row, and the rows that are new; their lines are added to `lines`."""
    own = sent_line(call)
    lines.extend(own)
    return ended_row(call), [line.row(0.0) for line in own]
