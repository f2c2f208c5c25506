"""The call: let in, and sent out, put into an inbox, or answered as an earlier one that is the same."""

import asyncio
from dataclasses import replace
from typing import Final

from gateway import ports
from gateway.core import answers, envelope, farewells
from gateway.core.answers import Answer
from gateway.core.claims import Claim
from gateway.core.refusals import Code, Refusal
from gateway.services.concurrency import Concurrency
from gateway.services.entrance import Entrance, Ticket, Wish
from gateway.services.flights import Flights, planned
from gateway.services.joining import Joiner, Joining
from gateway.services.parking import Parked, Parking
from gateway.services.queue import Held
from gateway.services.requests import Asked, Requests, Wanted
from gateway.services.resubscribing import Resubscribing
from gateway.services.sending import Sending
from gateway.services.streams import Opened
from gateway.services.tolls import Tolls
from gateway.services.vigils import Awaited

STOPPED_WITHIN_S: Final = 5.0
"""How long the calls that are ended by a shutdown may take to end."""


class Proxy:
    """Makes calls, as many at once as `concurrency` lets in; `flights` are those that were sent."""

    def __init__(
        self,
        *,
        requests: Requests,
        tolls: Tolls,
        entrance: Entrance,
        parking: Parking,
        joining: Joining,
        sending: Sending,
        resubscribing: Resubscribing,
        flights: Flights,
        concurrency: Concurrency,
    ) -> None:
        self._requests = requests
        self._tolls = tolls
        self._entrance = entrance
        self._parking = parking
        self._joining = joining
        self._sending = sending
        self._resubscribing = resubscribing
        self._flights = flights
        self._concurrency = concurrency

    def __repr__(self) -> str:
        return f"<Proxy in_flight={len(self._flights)}>"

    @property
    def in_flight(self) -> int:
        """Calls that have not ended."""
        return len(self._flights)

    async def call(self, asked: Asked) -> Answer | Opened | Awaited:
        """Make a call and return its answer, or the stream that it is or will be; refuses what may not be called.

        Once it is under way it goes on to its end, whether or not anybody still waits here for the answer.
        """
        self._concurrency.check(asked.toll.payer)
        try:
            return await self._call(asked)
        except Refusal as refused:
            if asked.operation is not None or refused.code not in farewells.CODES_TOLD_IN_BAND:
                raise
            message = await self._requests.read_message(asked)
            if isinstance(message, envelope.BadEnvelope) or not message.streaming:
                raise
            if asked.toll.standing is None:  # refused before it has paid; nobody further out sees that it was
                await self._tolls.take(asked.toll)
            return farewells.refused_in_band(refused, call_id=asked.call_id, id_json=message.id_json)

    async def _call(self, asked: Asked) -> Answer | Opened | Awaited:
        wanted = await self._requests.read(asked)
        if isinstance(wanted, envelope.BadEnvelope):
            await self._tolls.take(asked.toll)
            return Answer(status=400, body=envelope.error_body(wanted), headers={"Content-Type": answers.JSON})
        got = await (self._park(wanted) if wanted.outbound is None else self._send(wanted, wanted.outbound))
        if wanted.message.method in envelope.RESUBSCRIBING_METHODS:
            got = await self._resubscribing.instead(got, wanted)
        if isinstance(got, Opened) or not wanted.message.streaming or asked.operation is not None:
            return got  # clients of HTTP+JSON look at the status of an answer, whatever they have asked for
        if got.waits:
            call_id = got.call_id or asked.call_id
            return Awaited(
                call_id=call_id,
                workspace_id=wanted.target.id,
                id_json=wanted.message.id_json,
                stays_s=wanted.stays_s,
            )
        return farewells.in_band(got, call_id=got.call_id or asked.call_id, id_json=wanted.message.id_json)

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
            self._check_room_still(wanted, wish.claim, ticket)
        return ticket

    def _check_room_still(self, wanted: Wanted, claim: Claim | None, ticket: Ticket) -> None:
        """Others may have come while something was awaited for a call that was let in."""
        try:
            self._concurrency.check(wanted.asked.toll.payer)
        except Refusal:
            self._leave_unmade(ticket, claim)
            raise

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

    async def _send(self, wanted: Wanted, outbound: ports.Outbound) -> Answer | Opened:
        """Send a call out, unless it is the same as an earlier one; it ends no later than the one that it serves."""
        claim = wanted.claim
        if claim is not None and (held := self._joining.find(claim)) is not None:
            await self._tolls.take(wanted.asked.toll)
            with self._concurrency.joined(wanted.asked.toll.payer):
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
        return await self._sending.send(wanted, outbound, ticket)

    async def _join(
        self, wanted: Wanted, claim: Claim, outbound: ports.Outbound, ticket: Ticket
    ) -> Answer | Opened | None:
        """The answer of an earlier call that is the same; None where this one is to be made.

        If it is, nothing has been awaited since it was looked whether this process makes one already.
        """
        if not ticket.sure:
            got = await self._recall(claim, ticket)
            if got is not None:
                return await self._joining.stay(got, _joiner(wanted, claim, outbound))
            if ticket.earlier is None:
                self._check_room_still(wanted, claim, ticket)
        if (held := self._joining.find(claim)) is not None:  # it has begun here meanwhile
            if ticket.earlier is None:  # and Redis does not know of it
                self._leave_unmade(ticket, claim)
            with self._concurrency.joined(wanted.asked.toll.payer):
                return await self._joining.share(held, _joiner(wanted, claim, outbound))
        if ticket.earlier is None:
            return None
        with self._concurrency.joined(wanted.asked.toll.payer):
            return await self._joining.follow(ticket.earlier, _joiner(wanted, claim, outbound))

    async def _recall(self, claim: Claim, ticket: Ticket) -> Answer | Held | None:
        """An earlier call that the ledger has; then the one that was let in is not made."""
        try:
            got = await self._joining.recall(claim)
        except Refusal:  # the ledger has it, with other words, or without its answer
            self._leave_unmade(ticket, claim, ledgered=True)
            raise
        except asyncio.CancelledError:
            self._leave_unmade(ticket, claim)
            raise
        if got is not None:
            self._leave_unmade(ticket, claim, ledgered=True)
        return got

    def forsake(self, call_id: str) -> None:
        """Call off a call whose caller has left its stream and wants it ended then; nothing here waits."""
        self._sending.forsake(call_id)

    def stop_admitting(self) -> None:
        """Refuse new calls from now on."""
        self._concurrency.close()

    async def drain(self, within_s: float) -> None:
        """Let the calls in flight end by themselves within this time; end the rest as gateway_shutdown."""
        self._concurrency.close()
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
        streaming=wanted.message.streaming,
        last_event_id=wanted.asked.headers.get("Last-Event-ID"),
    )
