"""The drain: calls that wait are sent when they may be, each by one process, and each to one end."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from random import random
from typing import Any, Final

import orjson
import structlog

from events.bus import Bus
from events.event import event
from gateway import ports
from gateway.core import delegation, endings, queue, usage, views
from gateway.core.budget import exhausted
from gateway.core.calls import END_STATES, Call, State
from gateway.core.endings import Ended, Ending
from gateway.core.prices import Prices
from gateway.core.queue import Back
from gateway.core.rates import Tariff
from gateway.core.refusals import Code, Refusal
from gateway.core.trace import trace_id
from gateway.core.workspaces import Workspace
from gateway.services.activity import ActivityLog, Line
from gateway.services.admission import Admission
from gateway.services.directory import Directory
from gateway.services.entrance import Entrance, Ticket, Wish
from gateway.services.history import ended_row, publish_end, publish_status, sent_line
from gateway.services.outage import Outage
from gateway.services.requests import Requests
from gateway.services.room import Hold, Room
from gateway.services.tolls import Toll

log = structlog.get_logger("gateway.drain")

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
BATCH: Final = 32
"""Calls that are claimed at once."""
RENEWALS: Final = 3
"""How often a lease is renewed before it would run out."""
CLOSE_S: Final = 5.0
"""How long what is called off may take to be written down."""
WRITE_AGAIN_S: Final = 0.5
"""How long it takes until an end is written again that could not be written."""


class Drain:
    """Sends what waits: for a busy agent, or, as delegations do, for the first time.

    `capacity` bounds what this process has out; each of these is leased for `lease_s` seconds.
    retry_s: about the first time between two tries. restart_s: when a delegation is tried again whose agent was dead.
    every_s: how often it is looked what waits.
    """

    def __init__(
        self,
        *,
        queue: ports.Claims,
        directory: Directory,
        admission: Admission,
        requests: Requests,
        entrance: Entrance,
        dispatcher: ports.Dispatcher,
        prices: Prices,
        activity: ActivityLog,
        bus: Bus,
        room: Room,
        capacity: int,
        lease_s: float,
        retry_s: float,
        restart_s: float,
        every_s: float,
        spawn: Spawn,
        chance: Callable[[], float] = random,
    ) -> None:
        self._queue = queue
        self._directory = directory
        self._admission = admission
        self._requests = requests
        self._entrance = entrance
        self._dispatcher = dispatcher
        self._prices = prices
        self._activity = activity
        self._bus = bus
        self._room = room
        self._capacity = capacity
        self._lease_s = lease_s
        self._retry_s = retry_s
        self._restart_s = restart_s
        self._every_s = every_s
        self._spawn = spawn
        self._chance = chance
        self._outage = Outage("draining the queue")
        self._waiting: frozenset[str] = frozenset()
        self._turning: dict[str, bool | None] = {}
        self._out: dict[str, tuple[str, asyncio.Task[None]]] = {}
        self._writing: set[asyncio.Task[None]] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Drain waiting={len(self._waiting)} out={len(self._out)}>"

    @property
    def out(self) -> int:
        """Calls that this process has out."""
        return len(self._out)

    # -- when to look

    async def run(self) -> None:
        """Look what waits, for ever."""
        while True:
            await asyncio.sleep(self._every_s)
            try:
                await self.tick()
                self._outage.worked()
            except ports.StoreError as error:
                self._outage.failed(error)

    async def tick(self) -> None:
        """Free what dead processes had and did not send, and send what is due; raises StoreError."""
        freed = await self._queue.free_lost(limit=BATCH)
        if freed:
            log.warning("queued_calls_freed", calls=len(freed))
        waiting = await self._queue.list_waiting()
        self._waiting = frozenset(waiting)
        for workspace_id, due in waiting.items():
            if due:
                self._stir(workspace_id, eager=False)

    async def renew(self) -> None:
        """Keep the leases on what is out, for ever."""
        while True:
            await asyncio.sleep(self._lease_s / RENEWALS)
            claims = {call_id: claim for call_id, (claim, _) in self._out.items()}
            if claims:
                with suppress(ports.StoreError):  # the pool has logged it; the lease is long enough to try again
                    await self._queue.renew(claims, lease_s=self._lease_s)

    def waits(self, workspace_id: str) -> bool:
        """Whether calls waited for this workspace when it was last looked."""
        return workspace_id in self._waiting

    def freed(self, workspace_id: str) -> None:
        """Note that an agent has ended a call, and may have time for another one."""
        if self.waits(workspace_id):
            self._stir(workspace_id, eager=True)

    def beat(self, workspace_id: str, active_tasks: int) -> None:
        """Note what an agent says that it works on."""
        if self.waits(workspace_id):
            self._spawn(self._weigh(workspace_id, active_tasks), f"queue:weigh:{workspace_id}")

    async def _weigh(self, workspace_id: str, active_tasks: int) -> None:
        with suppress(Refusal):  # whoever claims finds out what is wrong
            target = await self._directory.get(workspace_id)
            if active_tasks < target.max_concurrent_tasks:
                self._stir(workspace_id, eager=True)

    def came(self, workspace_id: str) -> None:
        """Note that something has just been written that may be sent to this workspace."""
        self._stir(workspace_id, eager=False)

    def _stir(self, workspace_id: str, *, eager: bool) -> None:
        """Look once more, now or when the look that is under way has ended."""
        if self._closed:
            return
        if workspace_id in self._turning:
            self._turning[workspace_id] = bool(self._turning[workspace_id]) or eager
            return
        self._turning[workspace_id] = None
        self._spawn(self._turn(workspace_id, eager), f"queue:turn:{workspace_id}")

    async def _turn(self, workspace_id: str, eager: bool) -> None:
        again: bool | None = eager
        try:
            while again is not None and not self._closed:
                self._turning[workspace_id] = None
                full = await self._claim(workspace_id, eager=again)
                asked = self._turning[workspace_id]
                again = again or bool(asked) if full else asked
        except ports.StoreError as error:
            self._outage.failed(error)
        finally:
            del self._turning[workspace_id]

    async def _claim(self, workspace_id: str, *, eager: bool) -> bool:
        """Take what may be sent now; return whether there may be more."""
        limit = min(BATCH, self._capacity - len(self._out))
        if limit <= 0:
            return False
        taken = await self._queue.claim(workspace_id, eager=eager, limit=limit, lease_s=self._lease_s)
        for one in taken:
            task = self._spawn(self._run(one), f"queued:{one.call.id}")
            self._out[one.call.id] = (one.claim, task)
        return len(taken) == limit

    # -- one call

    async def _run(self, one: ports.Claimed) -> None:
        """Try a call once; whatever becomes of it, it ends or waits again."""
        hold, workspace_id = self._room.hold(), one.call.workspace_id
        free = False
        try:
            free = await self._try(one, hold)
        finally:
            hold.release()
            del self._out[one.call.id]
            self._stir(workspace_id, eager=free)

    async def _try(self, one: ports.Claimed, hold: Hold) -> bool:
        """Send a call if it may be sent still; return whether its agent may have time for another one."""
        call = one.call
        ticket: Ticket | None = None
        chances = {"first_s": self._retry_s, "jitter": self._chance()}
        try:
            hold.grow(len(one.body))
            target = await self._admission.readmit(call.caller_id, call.workspace_id)
            outbound = self._requests.again(target, one, hold)
            ticket = await self._enter(one, target, outbound)
            if not await self._queue.mark_sent(call.id, one.claim):
                self._entrance.leave(ticket, 0)
                log.warning("queued_call_lost", call_id=call.id)  # our lease ran out: it is another one's by now
                return False
        except (Exception, asyncio.CancelledError) as error:
            if ticket is not None:
                self._entrance.leave(ticket, 0, waits_s=max(0.0, one.left_s))
            await self._settled(one, self._stopped_short(call, error, chances), None, None)
            return False
        publish_status(self._bus, call, State.DISPATCHED)
        sessions = "session" in target.metadata.capabilities
        ended = await self._send(one, outbound, sessions)
        then = delegation.decide(ended, call, sessions=sessions, restart_s=self._restart_s, **chances)
        await self._settled(one, then, target, ticket)
        return not isinstance(then, Back)

    async def _enter(self, one: ports.Claimed, target: Workspace, outbound: ports.Outbound) -> Ticket:
        """Let it begin again: nobody pays for that but its target's budget."""
        wish = Wish(
            call_id=one.call.id,
            caller_id=one.call.caller_id,
            target=target,
            trace_id=trace_id(outbound.headers["traceparent"]),
            method=one.call.method,
            ledgered=True,
            serves=None,
            limit_s=outbound.limit_s,
        )
        try:
            return await self._entrance.enter(Toll(Tariff.CALL, "queue", free=True), wish)
        except Refusal as refused:
            if refused.code is Code.BUDGET_EXCEEDED and not exhausted(target.budget_limit, target.spend):
                raise _Reserved from refused
            raise

    def _stopped_short(self, call: Call, error: BaseException, chances: Mapping[str, float]) -> Back | Ended:
        """What follows when a call was not sent."""
        match error:
            case _Reserved():
                return queue.wait(Code.BUDGET_EXCEEDED, **chances)
            case Refusal(code=code):
                return delegation.decide_refused(code, call, **chances)
            case ports.NoRoom():
                return queue.wait(Code.OVERLOADED, **chances)
            case ports.StoreError():
                return queue.wait(Code.PLATFORM_UNAVAILABLE, **chances)
            case asyncio.CancelledError():
                return Back(delay_s=0.0, error=Code.DRAINING.value)
            case _:  # a bug of ours must not leave a call without an end; it is logged and told
                log.error("call_broke", call_id=call.id, exc_info=error)
                return endings.classify(endings.Broke())

    async def _send(self, one: ports.Claimed, outbound: ports.Outbound, sessions: bool) -> Ended:
        outcome: endings.Outcome
        try:
            outcome = await self._dispatcher.send(outbound)
        except asyncio.CancelledError:
            outcome = endings.Stopped()
        except Exception:  # a bug of ours must not leave a call without an end; it is logged and told
            log.exception("call_broke", call_id=one.call.id)
            outcome = endings.Broke()
        return endings.classify(outcome, native_session=sessions)

    # -- what becomes of it

    async def _settled(
        self, one: ports.Claimed, then: Back | Ended, target: Workspace | None, ticket: Ticket | None
    ) -> None:
        """Have it written down by a task of its own: whoever cancels the attempt does not cancel that."""
        writing = self._spawn(self._settle(one, then, target, ticket), f"queued:settle:{one.call.id}")
        self._writing.add(writing)
        writing.add_done_callback(self._writing.discard)
        await asyncio.shield(writing)

    async def _settle(
        self, one: ports.Claimed, then: Back | Ended, target: Workspace | None, ticket: Ticket | None
    ) -> None:
        """Write it down, however long that takes: while it cannot be written its lease is renewed, or runs out."""
        call = one.call
        said, used, cost = None, usage.Usage(), 0
        if isinstance(then, Ended) and target is not None and ticket is not None:
            body = then.answer.body
            said = views.parse(body)
            used = usage.find(body) if len(body) > views.VIEW_BYTES else usage.read(said)
            cost = self._prices.cost(target.model, used)
            unknown = then.delivered is None or then.ending in endings.UNREAD
            if unknown and self._prices.has(target.model):
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
                self._outage.failed(error)
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
            counts=ended.ending is not Ending.REJECTED,
        )
        call = await self._queue.end(one.call.id, one.claim, end, history)
        if call is None:
            log.warning("queued_call_lost", call_id=one.call.id, ending=ended.ending.value)
            return
        for line in lines:
            self._activity.tell(line)
        if done and call.caller_id is None:
            whole = shown if len(body) <= views.VIEW_BYTES else orjson.Fragment(views.whole(body))
            reply = {"response_body": whole, "method": call.method, "duration_ms": call.duration_ms}
            self._bus.publish(event("A2A_RESPONSE", call.workspace_id, reply, sign=True))
        publish_end(self._bus, call, via="queue" if call.busy else None)

    async def close(self, within_s: float) -> None:
        """Claim no more; let what is out end by itself within this time, and end the rest as gateway_shutdown."""
        self._closed = True
        tasks = [task for _, task in self._out.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)
        left = [task for task in tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=CLOSE_S)
        if self._writing:
            await asyncio.wait(list(self._writing), timeout=CLOSE_S)


class _Reserved(Exception):
    """Others hold what is left of the budget just now."""


def _error(ended: Ended) -> str:
    if ended.ending is Ending.REJECTED:
        reason: str = orjson.loads(ended.answer.body)["reason"]
        return reason
    return ended.ending.value
