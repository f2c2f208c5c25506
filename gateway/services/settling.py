"""What an attempt at a call that waits has come to, its end or one more wait, written down however long that takes."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

import orjson
import structlog

from events.bus import Bus
from gateway import ports
from gateway.core import usage, views
from gateway.core.answers import Ended
from gateway.core.calls import END_STATES, Call, State
from gateway.core.causes import UNREAD
from gateway.core.endings import Ending
from gateway.core.prices import Prices
from gateway.core.retry import Back
from gateway.core.workspaces import Workspace
from gateway.services.activity import ActivityLog, Line
from gateway.services.entrance import Entrance, Ticket
from gateway.services.history import ended_row, publish_answer, publish_end, publish_status, sent_line
from gateway.services.outage import Outage

log = structlog.get_logger("gateway.drain")

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
WRITE_AGAIN_S: Final = 0.5
"""How long it takes until an end is written again that could not be written."""


class Settling:
    """Writes into one source of calls that wait, and tells of it. `outage`: what the log says while it cannot."""

    def __init__(
        self,
        *,
        queue: ports.Claims,
        entrance: Entrance,
        prices: Prices,
        activity: ActivityLog,
        bus: Bus,
        spawn: Spawn,
    ) -> None:
        self._queue = queue
        self._entrance = entrance
        self._prices = prices
        self._activity = activity
        self._bus = bus
        self._spawn = spawn
        self.outage = Outage("draining the queue")
        self._writing: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Settling writing={len(self._writing)}>"

    def cost(self, model: str | None, used: usage.Usage) -> int:
        """Return what so much costs, in millionths of a cent."""
        return self._prices.cost(model, used)

    async def settle(
        self,
        one: ports.Claimed,
        then: Back | Ended,
        target: Workspace | None,
        ticket: Ticket | None,
        used: usage.Usage | None = None,
    ) -> None:
        """Have it written down by a task of its own: whoever cancels the attempt does not cancel that.

        used: what its agent has said of its usage in a stream that has not completed; None: its answer says it.
        """
        writing = self._spawn(self._write(one, then, target, ticket, used), f"queued:settle:{one.call.id}")
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.shield(writing)

    async def _write(
        self,
        one: ports.Claimed,
        then: Back | Ended,
        target: Workspace | None,
        ticket: Ticket | None,
        streamed: usage.Usage | None,
    ) -> None:
        """Write it down, however long that takes: while it cannot be written its lease is renewed, or runs out."""
        call = one.call
        said, used, cost = None, usage.Usage(), 0
        if isinstance(then, Ended) and target is not None and ticket is not None:
            body = then.answer.body
            said = views.parse(body)
            found = usage.find(body) if said is None else usage.read(said)  # a stream is found through, too
            used = found if streamed is None else streamed
            cost = self._prices.cost(target.model, used)
            unknown = then.delivered is None or then.ending in UNREAD
            if unknown and self._prices.has(target.model) and cost < ticket.held:
                cost = ticket.held  # nobody knows what the agent has used: what it held of the budget
        if ticket is not None:
            waits_s = max(0.0, one.left_s) if isinstance(then, Back) else None
            self._entrance.leave(ticket, cost, waits_s=waits_s)
        while True:
            try:
                if isinstance(then, Back):
                    await self._queue.put_back(
                        call.id,
                        one.claim,
                        delay_s=then.delay_s,
                        error=then.error,
                        busy=then.busy,
                        counts=then.counts,
                    )
                    if target is not None:
                        publish_status(self._bus, call, State.QUEUED)
                else:
                    await self._end(one, then, said, used, cost)
                return
            except ports.StoreError as error:
                self.outage.failed(error)
                if self._closed:
                    log.error("queued_call_unsettled", call_id=call.id, consequence="its lease runs out by itself")
                    return
                await asyncio.sleep(WRITE_AGAIN_S)

    async def _end(self, one: ports.Claimed, ended: Ended, said: Any, used: usage.Usage, cost: int) -> None:
        """End a call, write its history and tell everybody."""
        done = ended.ending is Ending.COMPLETED
        body = ended.answer.body
        shown = views.view(body, said) if done else None
        lines: list[Line] = []

        def history(call: Call) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
            lines.extend(sent_line(call))
            return ended_row(call, shown, used, cost), [line.row(0.0) for line in lines]

        end = ports.QueuedEnd(
            to=END_STATES[ended.ending],
            ending=ended.ending,
            error=None if done else _error(ended),
            answer=ended.answer,
            counts=_tried(ended),
        )
        call = await self._queue.end(one.call.id, one.claim, end, history)
        if call is None:
            log.warning("queued_call_lost", call_id=one.call.id, ending=ended.ending.value)
            return
        for line in lines:
            self._activity.tell(line)
        if done and call.caller_id is None:
            publish_answer(self._bus, call.workspace_id, body, shown, method=call.method, duration_ms=call.duration_ms)
        publish_end(self._bus, call, via="queue" if call.busy else None)

    def close(self) -> None:
        """Write nothing again that cannot be written from now on."""
        self._closed = True

    async def wait(self, within_s: float) -> None:
        """Wait for what is being written."""
        if self._writing:
            await asyncio.wait(list(self._writing), timeout=within_s)


def _tried(ended: Ended) -> bool:
    """Whether anything was done about the call: not where it was not sent."""
    match ended.ending:
        case Ending.REJECTED:
            return False
        case Ending.CANCELLED:
            return ended.delivered is None
        case _:
            return True


def _error(ended: Ended) -> str:
    if ended.ending is Ending.REJECTED:
        reason: str = orjson.loads(ended.answer.body)["reason"]
        return reason
    return ended.ending.value
