"""The call: let in, sent out or put into an inbox, kept alive, ended once, and told to everybody."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import orjson
import structlog

from events.bus import Bus
from events.event import event
from gateway import ports
from gateway.core import endings, envelope, queue, usage, views
from gateway.core.claims import Claim
from gateway.core.endings import Answer, Ended, Ending
from gateway.core.ids import of_line
from gateway.core.prices import Prices
from gateway.core.refusals import Code, Refusal
from gateway.services.activity import ActivityLog, Line
from gateway.services.entrance import METHOD_CHARS, Entrance, Ticket, Wish
from gateway.services.flights import Flight, Flights, planned
from gateway.services.joining import Joiner, Joining
from gateway.services.parking import Parked, Parking
from gateway.services.queue import Busy, Held, Queue, Unsure
from gateway.services.requests import Asked, Requests, Wanted
from gateway.services.tolls import Tolls
from gateway.services.waiting import Waiting

log = structlog.get_logger("gateway.proxy")

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


CLIENT_CLOSED: Final = 499
"""How the log shows a call that was called off."""
STOPPED_WITHIN_S: Final = 5.0
"""How long the calls that are ended by a shutdown may take to end."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    wanted: Wanted
    outbound: ports.Outbound
    ticket: Ticket
    flight: Flight


class Proxy:
    """Makes calls. `capacity` bounds those in flight, `share` those of one payer; past it callers come back later.

    `freed` is told whose agent has ended a call.
    """

    def __init__(
        self,
        *,
        requests: Requests,
        tolls: Tolls,
        entrance: Entrance,
        prices: Prices,
        dispatcher: ports.Dispatcher,
        activity: ActivityLog,
        bus: Bus,
        waiting: Waiting,
        parking: Parking,
        queue: Queue,
        freed: Callable[[str], None],
        joining: Joining,
        flights: Flights,
        capacity: int,
        share: int,
        spawn: Spawn,
    ) -> None:
        self._requests = requests
        self._tolls = tolls
        self._entrance = entrance
        self._prices = prices
        self._dispatcher = dispatcher
        self._activity = activity
        self._bus = bus
        self._waiting = waiting
        self._parking = parking
        self._queue = queue
        self._freed = freed
        self._joining = joining
        self._flights = flights
        self._capacity = capacity
        self._share = share
        self._of_payer: Counter[str] = Counter()
        self._spawn = spawn
        self._draining = False

    def __repr__(self) -> str:
        return f"<Proxy in_flight={len(self._flights)}>"

    @property
    def in_flight(self) -> int:
        """Calls that have not ended."""
        return len(self._flights)

    async def call(self, asked: Asked) -> Answer:
        """Make a call and return its answer; refuses what may not or cannot be called.

        Once it is under way it goes on to its end, whether or not anybody still waits here for the answer.
        """
        self._check_room(asked.toll.payer)
        wanted = await self._requests.read(asked)
        if isinstance(wanted, envelope.BadEnvelope):
            await self._tolls.take(asked.toll)
            return Answer(status=400, body=envelope.error_body(wanted), headers={"Content-Type": endings.JSON})
        return await (self._park(wanted) if wanted.outbound is None else self._send(wanted, wanted.outbound))

    async def _enter(self, wanted: Wanted, limit_s: float | None) -> Ticket:
        """Let a call begin, or refuse; one that is pushed holds money, and is not made if it is the same as another."""
        outbound = wanted.outbound
        wish = Wish(
            call_id=wanted.asked.call_id,
            caller_id=wanted.caller_id,
            target=wanted.target,
            trace_id=wanted.trace_id,
            method=wanted.message.method or "",
            serves=wanted.asked.headers.get("X-A2A-Call-ID"),
            limit_s=limit_s,
            holds=outbound is not None,
            claim=wanted.claim if outbound is not None else None,
            journey=None if outbound is None else planned(outbound, self._flights.replica),
        )
        ticket = await self._entrance.enter(wanted.asked.toll, wish)
        if ticket.earlier is None:
            try:
                self._check_room(wanted.asked.toll.payer)  # others may have come while this one was being admitted
            except Refusal:
                self._leave_unmade(ticket, wish.claim)
                raise
        return ticket

    def _leave_unmade(self, ticket: Ticket, claim: Claim | None, *, ledgered: bool = False) -> None:
        """Say that a call that was let in is not made after all; ledgered: because the ledger has an earlier one."""
        kept = None if claim is None else ports.Kept(claim=claim, again=not ledgered, waits=ledgered)
        self._entrance.leave(ticket, 0, kept)

    async def _park(self, wanted: Wanted) -> Answer:
        """Put a call into its target's inbox: it holds no money, and stands in its chain until its time is over."""
        lives_s = self._parking.lives_s(wanted.message)
        ticket = await self._enter(wanted, lives_s)
        call = Parked(
            call_id=wanted.asked.call_id,
            target=wanted.target,
            caller_id=wanted.caller_id,
            message=wanted.message,
            lives_s=ticket.within(lives_s),
            wait_s=ticket.within(wanted.wait_s),
            gone=wanted.asked.gone,
            claim=wanted.claim,
        )
        try:
            answer = await self._parking.park(call)
        except Refusal:
            self._entrance.leave(ticket, 0)
            raise
        if answer.call_id is not None:  # it is the same as an earlier one, which stands in the chain
            self._entrance.leave(ticket, 0)
        return answer

    async def _send(self, wanted: Wanted, outbound: ports.Outbound) -> Answer:
        """Send a call out, unless it is the same as an earlier one; it ends no later than the one that it serves."""
        claim = wanted.claim
        if claim is not None and (held := self._joining.find(claim)) is not None:
            await self._tolls.take(wanted.asked.toll)
            with self._joined(wanted.asked.toll.payer):
                return await self._joining.share(held, _joiner(wanted, claim, outbound))
        ticket = await self._enter(wanted, outbound.limit_s)
        if claim is not None:
            answer = await self._join(wanted, claim, _within(outbound, ticket), ticket)
            if answer is None and ticket.earlier is not None:  # that one is over, and the next one is made
                self._entrance.release(ticket.earlier, wanted.target, claim)
                wanted.asked.toll.free = True  # it has paid
                ticket = await self._enter(wanted, outbound.limit_s)
                answer = await self._join(wanted, claim, _within(outbound, ticket), ticket)
            if answer is not None:
                return answer
            if ticket.earlier is not None:
                raise Refusal(Code.OVERLOADED, "too many calls with one message at once", retry_after_s=2)
        outbound = _within(outbound, ticket)
        flight = Flight(
            outbound=outbound,
            caller_id=wanted.caller_id,
            method=(wanted.message.method or "")[:METHOD_CHARS],
            replica=self._flights.replica,
        )
        return await self._make(_Call(wanted=wanted, outbound=outbound, ticket=ticket, flight=flight))

    async def _join(self, wanted: Wanted, claim: Claim, outbound: ports.Outbound, ticket: Ticket) -> Answer | None:
        """The answer of an earlier call that is the same; None where this one is to be made.

        If it is, nothing has been awaited since it was looked whether this process makes one already.
        """
        joiner = _joiner(wanted, claim, outbound)
        if not ticket.sure:
            answer = await self._joining.recall(joiner)
            if answer is not None:
                self._leave_unmade(ticket, claim, ledgered=True)
                return answer
        if (held := self._joining.find(claim)) is not None:  # it has begun here meanwhile
            if ticket.earlier is None:  # and Redis does not know of it
                self._leave_unmade(ticket, claim)
            with self._joined(wanted.asked.toll.payer):
                return await self._joining.share(held, joiner)
        if ticket.earlier is None:
            return None
        with self._joined(wanted.asked.toll.payer):
            return await self._joining.follow(ticket.earlier, joiner)

    @contextmanager
    def _joined(self, payer: str) -> Iterator[None]:
        """A place for who waits for the answer of an earlier call: they are shared as those in flight are."""
        self._check_room(payer)
        self._of_payer[payer] += 1
        try:
            yield
        finally:
            self._give_back(payer)

    async def _make(self, call: _Call) -> Answer:
        """Send a call out, and wait for its answer as long as its caller does."""
        call_id, claim = call.wanted.asked.call_id, call.wanted.claim
        answer: asyncio.Future[Answer | Held] = asyncio.get_running_loop().create_future()
        task = call.flight.task = self._spawn(self._run(call, answer), f"call:{call_id}")
        self._flights.add(call_id, call.flight)
        self._of_payer[call.wanted.asked.toll.payer] += 1
        if claim is not None:
            self._joining.hold(claim, call_id, answer)
        task.add_done_callback(lambda _: self._out(call.wanted))
        got = await asyncio.shield(answer)  # others may wait for it, too
        if isinstance(got, Answer):
            return got
        wanted = call.wanted
        with self._waiting.call(wanted.caller_id if wanted.wait_s else None, wanted.target.id):
            return await self._queue.stay(got, wanted.wait_s, wanted.asked.gone)

    def _out(self, wanted: Wanted) -> None:
        self._flights.remove(wanted.asked.call_id)
        if wanted.claim is not None:
            self._joining.drop(wanted.claim, wanted.asked.call_id)
        self._give_back(wanted.asked.toll.payer)

    def _give_back(self, payer: str) -> None:
        self._of_payer[payer] -= 1
        if not self._of_payer[payer]:
            del self._of_payer[payer]

    def _check_room(self, payer: str) -> None:
        if self._draining:
            raise Refusal(Code.DRAINING, "the gateway is shutting down", retry_after_s=5)
        if len(self._flights) >= self._capacity:
            raise Refusal(Code.OVERLOADED, "too many calls in flight", retry_after_s=2)
        if self._of_payer[payer] >= self._share:
            raise Refusal(Code.OVERLOADED, "too many calls in flight of this caller", retry_after_s=2)

    async def _run(self, call: _Call, answer: "asyncio.Future[Answer | Held]") -> None:
        """Make the call; whatever becomes of it, it ends here, once, or waits because its agent is busy."""
        flight = call.flight
        outcome: endings.Outcome
        native_session = "session" in call.wanted.target.metadata.capabilities
        try:
            if flight.stopped is not None:  # before it was sent
                outcome = flight.stopped
            else:
                flight.under_way = True
                with self._waiting.call(call.wanted.caller_id, call.wanted.target.id):
                    outcome = await self._dispatcher.send(call.outbound)
        except asyncio.CancelledError:
            outcome = flight.stopped or endings.Stopped()
        except Exception:  # a bug of ours must not leave a caller waiting; it is logged and told
            log.exception("call_broke", call_id=call.wanted.asked.call_id)
            outcome = endings.Broke()
        flight.under_way = False
        ended = endings.classify(outcome, native_session=native_session)
        late = await self._is_late(call)
        busy = ended.ending is Ending.AGENT_BUSY and not native_session and not late
        got = await self._hold(call) if busy else None
        unsure = isinstance(got, Unsure)
        if isinstance(got, Unsure):
            ended, got = replace(ended, answer=queue.unsure(ended.answer)), None
        if isinstance(got, Refusal):
            answer.set_exception(got)
            answer.exception()  # its caller may have gone away
        else:
            answer.set_result(got or ended.answer)
        if got is None:
            self._tell(call, ended, late=late, unsure=unsure)
            self._freed(call.wanted.target.id)
        else:
            claim = call.wanted.claim
            kept = None if claim is None else ports.Kept(claim=claim, waits=True)
            self._entrance.leave(call.ticket, 0, kept, waits_s=got.lives_s if isinstance(got, Held) else None)

    async def _is_late(self, call: _Call) -> bool:
        """Whether this process was held up for so long that another one has ended the call for it."""
        try:
            return await self._entrance.has_lost(call.ticket, call.flight.took_s)
        except asyncio.CancelledError:
            return False

    async def _hold(self, call: _Call) -> Held | Answer | Refusal | Unsure | None:
        """Let a call wait for its agent, if it can; where an earlier one has its message, that one does."""
        wanted = call.wanted
        busy = Busy(
            caller_id=wanted.caller_id,
            lane=wanted.lane,
            priority=wanted.priority,
            message=wanted.message,
            outbound=call.outbound,
            took_s=call.flight.took_s,
            claim=wanted.claim,
        )
        try:
            return await self._queue.hold(busy)
        except Refusal as refused:
            return refused
        except asyncio.CancelledError:
            return Unsure()

    def _tell(self, call: _Call, ended: Ended, *, late: bool, unsure: bool) -> None:
        """Tell the world and write it down; nothing here waits. late: the world has been told of another end, and only
        who waits for the answer gets it. unsure: it may wait all the same, and who sends it again asks the ledger."""
        target, asked, message = call.wanted.target, call.wanted.asked, call.wanted.message
        method = message.method
        if method is not None:
            method = method[:METHOD_CHARS]
        arrival = call.flight.arrive(ended)
        duration_ms = arrival.duration_ms
        body, answered = ended.answer.body, ended.ending is Ending.COMPLETED
        said = views.parse(body)
        used = usage.find(body) if len(body) > views.VIEW_BYTES else usage.read(said)
        cost = self._prices.cost(target.model, used)
        unknown = ended.delivered is None or ended.ending in endings.UNREAD
        if unknown and self._prices.has(target.model):
            cost = call.ticket.held  # nobody knows what the agent has used: what it held of the budget
        claim = call.wanted.claim
        kept = None if claim is None else self._joining.keep(claim, ended, asked.toll.payer)
        if kept is not None and unsure:
            kept = ports.Kept(claim=kept.claim, waits=True)
        self._entrance.leave(call.ticket, cost, kept, arrival=arrival)
        if late:
            log.warning("call_ended_late", call_id=asked.call_id, workspace_id=target.id, ending=ended.ending.value)
            return
        shown = views.view(body, said) if answered else None
        line = Line(
            id=of_line(asked.call_id),
            workspace_id=target.id,
            activity_type="a2a_receive",
            method=method,
            summary=f"{method}: {ended.ending.value}",
            status="ok" if ended.succeeded else "error",
            source_id=call.wanted.caller_id,
            target_id=target.id,
            call_id=asked.call_id,
            duration_ms=duration_ms,
            error_detail=None if ended.succeeded else ended.ending.value,
            request_body=views.view(message.body, views.parse(message.body)),
            response_body=shown,
            usage=used,
            cost=cost,
            counts=True,
            arrival=arrival,
        )
        self._activity.log(line)
        if call.wanted.caller_id is not None and call.wanted.caller_id != target.id:
            self._activity.log(line.as_sent())
        if call.wanted.caller_id is None and answered:
            reply = {"response_body": _reply(body, shown), "method": method, "duration_ms": duration_ms}
            self._bus.publish(event("A2A_RESPONSE", target.id, reply, sign=True))
        self._bus.publish(
            event(
                "CALL_ENDED",
                target.id,
                {
                    "call_id": asked.call_id,
                    "ending": ended.ending.value,
                    "status": ended.answer.status,
                    "duration_ms": duration_ms,
                },
            )
        )
        if ended.ending is not Ending.COMPLETED:  # a completed call has its row and its event; a line would cost more
            log.info(
                "call_ended",
                call_id=asked.call_id,
                workspace_id=target.id,
                caller_id=call.wanted.caller_id,
                method=method,
                ending=ended.ending.value,
                status=CLIENT_CLOSED if ended.ending is Ending.CANCELLED else int(ended.answer.status),
                duration_ms=duration_ms,
            )

    def stop_admitting(self) -> None:
        """Refuse new calls from now on."""
        self._draining = True

    async def drain(self, within_s: float) -> None:
        """Let the calls in flight end by themselves within this time; end the rest as gateway_shutdown."""
        self._draining = True
        await self._flights.drain(within_s, STOPPED_WITHIN_S)


def _within(outbound: ports.Outbound, ticket: Ticket) -> ports.Outbound:
    """A call ends no later than the one that it serves."""
    if ticket.left_s is None or (outbound.limit_s is not None and outbound.limit_s <= ticket.left_s):
        return outbound
    return replace(outbound, limit_s=ticket.left_s, by_deadline=True)


def _joiner(wanted: Wanted, claim: Claim, outbound: ports.Outbound) -> Joiner:
    """Who would have made this call."""
    return Joiner(
        claim=claim,
        id_json=wanted.message.id_json,
        limit_s=outbound.limit_s,
        by_deadline=outbound.by_deadline,
        wait_s=wanted.wait_s,
        gone=wanted.asked.gone,
        hold=wanted.asked.hold,
    )


def _reply(body: bytes, shown: Any) -> Any:
    """What browsers get of an answer: all of it, though people's view of it is cut."""
    return shown if len(body) <= views.VIEW_BYTES else orjson.Fragment(views.whole(body))
