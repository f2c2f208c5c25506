"""The call: let in, sent out or put into an inbox, kept alive, ended once, and told to everybody."""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Final

import orjson
import structlog

from events.bus import Bus
from events.event import event
from gateway import ports
from gateway.core import endings, envelope, usage, views
from gateway.core.claims import Claim
from gateway.core.endings import Answer, Ended, Ending
from gateway.core.prices import Prices
from gateway.core.refusals import Code, Refusal
from gateway.services.activity import ActivityLog, Line
from gateway.services.entrance import Entrance, Ticket, Wish
from gateway.services.joining import Held, Joiner, Joining
from gateway.services.parking import Parked, Parking
from gateway.services.requests import Asked, Requests, Wanted
from gateway.services.tolls import Tolls
from gateway.services.waiting import Waiting

log = structlog.get_logger("gateway.proxy")

METHOD_CHARS: Final = 200
"""How much of a method's name is shown and stored: it is the caller's word."""

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    wanted: Wanted
    outbound: ports.Outbound
    ticket: Ticket
    started: float = field(default_factory=monotonic)


class Proxy:
    """Makes calls. `capacity` bounds those in flight, `share` those of one payer; past it callers come back later."""

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
        joining: Joining,
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
        self._joining = joining
        self._capacity = capacity
        self._share = share
        self._of_payer: Counter[str] = Counter()
        self._spawn = spawn
        self._in_flight: dict[str, asyncio.Task[None]] = {}
        self._draining = False

    def __repr__(self) -> str:
        return f"<Proxy in_flight={len(self._in_flight)}>"

    @property
    def in_flight(self) -> int:
        """Calls that have not ended."""
        return len(self._in_flight)

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

    async def _enter(self, wanted: Wanted, limit_s: float | None, *, pushed: bool) -> Ticket:
        """Let a call begin, or refuse; one that is pushed holds money, and is not made if it is the same as another."""
        wish = Wish(
            call_id=wanted.asked.call_id,
            caller_id=wanted.caller_id,
            target=wanted.target,
            trace_id=wanted.trace_id,
            method=(wanted.message.method or "")[:METHOD_CHARS],
            serves=wanted.asked.headers.get("X-A2A-Call-ID"),
            limit_s=limit_s,
            holds=pushed,
            claim=wanted.claim if pushed else None,
        )
        ticket = await self._entrance.enter(wanted.asked.toll, wish)
        if ticket.earlier is None:
            try:
                self._check_room(wanted.asked.toll.payer)  # others may have come while this one was being admitted
            except Refusal:
                self._leave_unmade(ticket, wish.claim)
                raise
        return ticket

    def _leave_unmade(self, ticket: Ticket, claim: Claim | None) -> None:
        """Say that a call that was let in is not made after all."""
        kept = None if claim is None else ports.Kept(claim=claim, answer=None, again=True)
        self._entrance.leave(ticket, 0, kept)

    async def _park(self, wanted: Wanted) -> Answer:
        """Put a call into its target's inbox: it holds no money, and stands in its chain until its time is over."""
        lives_s = self._parking.lives_s(wanted.message)
        ticket = await self._enter(wanted, lives_s, pushed=False)
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
            return await self._join(wanted, _joiner(wanted, claim, outbound), held)
        ticket = await self._enter(wanted, outbound.limit_s, pushed=True)
        if ticket.left_s is not None and (outbound.limit_s is None or ticket.left_s < outbound.limit_s):
            outbound = replace(outbound, limit_s=ticket.left_s, by_deadline=True)
        if claim is not None and (held := self._joining.find(claim)) is not None:  # it has begun here meanwhile
            if ticket.earlier is None:  # and Redis does not know of it
                self._leave_unmade(ticket, claim)
            return await self._join(wanted, _joiner(wanted, claim, outbound), held)
        if claim is not None and ticket.earlier is not None:
            return await self._join(wanted, _joiner(wanted, claim, outbound), ticket.earlier)
        return await self._make(_Call(wanted=wanted, outbound=outbound, ticket=ticket))

    async def _make(self, call: _Call) -> Answer:
        """Send a call out, and wait for its answer as long as its caller does."""
        call_id, claim = call.wanted.asked.call_id, call.wanted.claim
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        task = self._spawn(self._run(call, answer), f"call:{call_id}")
        self._in_flight[call_id] = task
        self._of_payer[call.wanted.asked.toll.payer] += 1
        if claim is not None:
            self._joining.hold(claim, call_id, answer)
        task.add_done_callback(lambda _: self._out(call.wanted))
        return await asyncio.shield(answer)  # others may wait for it, too

    async def _join(self, wanted: Wanted, joiner: Joiner, earlier: Held | ports.Earlier) -> Answer:
        """Wait for the answer of an earlier call: the places for that are shared as those in flight are."""
        payer = wanted.asked.toll.payer
        self._check_room(payer)
        self._of_payer[payer] += 1
        try:
            if isinstance(earlier, Held):
                return await self._joining.share(earlier, joiner)
            return await self._joining.follow(earlier, joiner)
        finally:
            self._give_back(payer)

    def _out(self, wanted: Wanted) -> None:
        self._in_flight.pop(wanted.asked.call_id, None)
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
        if len(self._in_flight) >= self._capacity:
            raise Refusal(Code.OVERLOADED, "too many calls in flight", retry_after_s=2)
        if self._of_payer[payer] >= self._share:
            raise Refusal(Code.OVERLOADED, "too many calls in flight of this caller", retry_after_s=2)

    async def _run(self, call: _Call, answer: "asyncio.Future[Answer]") -> None:
        """Make the call; whatever becomes of it, it ends here, once."""
        outcome: endings.Outcome
        try:
            with self._waiting.call(call.wanted.caller_id, call.wanted.target.id):
                outcome = await self._dispatcher.send(call.outbound)
        except asyncio.CancelledError:
            outcome = endings.Stopped()
        except Exception:  # a bug of ours must not leave a caller waiting; it is logged and told
            log.exception("call_broke", call_id=call.wanted.asked.call_id)
            outcome = endings.Broke()
        ended = endings.classify(outcome, native_session="session" in call.wanted.target.metadata.capabilities)
        if not answer.done():
            answer.set_result(ended.answer)
        self._tell(call, ended)

    def _tell(self, call: _Call, ended: Ended) -> None:
        """Tell the world and write it down; nothing here waits."""
        target, asked, message = call.wanted.target, call.wanted.asked, call.wanted.message
        method = message.method
        if method is not None:
            method = method[:METHOD_CHARS]
        duration_ms = round((monotonic() - call.started) * 1000)
        body, answered = ended.answer.body, ended.ending is Ending.COMPLETED
        said = views.parse(body)
        used = usage.find(body) if len(body) > views.VIEW_BYTES else usage.read(said)
        cost = self._prices.cost(target.model, used)
        unknown = ended.delivered is None or ended.ending in endings.UNREAD
        if unknown and self._prices.has(target.model):
            cost = call.ticket.held  # nobody knows what the agent has used: what it held of the budget
        claim = call.wanted.claim
        kept = None if claim is None else self._joining.keep(claim, ended, asked.toll.payer)
        self._entrance.leave(call.ticket, cost, kept)
        shown = views.view(body, said) if answered else None
        line = Line(
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
                status=int(ended.answer.status),
                duration_ms=duration_ms,
            )

    def stop_admitting(self) -> None:
        """Refuse new calls from now on."""
        self._draining = True

    async def drain(self, within_s: float) -> None:
        """Let the calls in flight end by themselves within this time; end the rest as gateway_shutdown."""
        self._draining = True
        if self._in_flight:
            await asyncio.wait(list(self._in_flight.values()), timeout=within_s)
        left = list(self._in_flight.values())
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=5)


def _joiner(wanted: Wanted, claim: Claim, outbound: ports.Outbound) -> Joiner:
    """Who would have made this call."""
    return Joiner(
        claim=claim,
        id_json=wanted.message.id_json,
        limit_s=outbound.limit_s,
        by_deadline=outbound.by_deadline,
        gone=wanted.asked.gone,
        hold=wanted.asked.hold,
    )


def _reply(body: bytes, shown: Any) -> Any:
    """What browsers get of an answer: all of it, though people's view of it is cut."""
    return shown if len(body) <= views.VIEW_BYTES else orjson.Fragment(views.whole(body))
