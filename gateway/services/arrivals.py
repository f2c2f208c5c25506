"""The end of a call that was sent, told: to Redis, to the histories of both sides, to whoever listens, to the log."""

from dataclasses import dataclass, replace

import structlog

from events.bus import Bus
from gateway import ports
from gateway.core import usage, views
from gateway.core.answers import Ended
from gateway.core.causes import UNREAD
from gateway.core.claims import Claim
from gateway.core.endings import Ending
from gateway.core.ids import of_line
from gateway.core.prices import Prices
from gateway.services.activity import ActivityLog, Line
from gateway.services.entrance import Entrance, Ticket
from gateway.services.flights import Flight
from gateway.services.history import publish_answer, publish_ended
from gateway.services.joining import Joining
from gateway.services.relays import Relay
from gateway.services.requests import Wanted

log = structlog.get_logger("gateway.proxy")


@dataclass(frozen=True, kw_only=True, slots=True)
class Sent:
    """A call that was let in, as it goes out."""

    wanted: Wanted
    outbound: ports.Outbound
    ticket: Ticket
    flight: Flight
    method: str | None


class Arrivals:
    """Tells of ends, each once."""

    def __init__(
        self, *, entrance: Entrance, joining: Joining, prices: Prices, activity: ActivityLog, bus: Bus
    ) -> None:
        self._entrance = entrance
        self._joining = joining
        self._prices = prices
        self._activity = activity
        self._bus = bus

    def cost(self, model: str | None, used: usage.Usage) -> int:
        """Return what so much costs, in millionths of a cent."""
        return self._prices.cost(model, used)

    def tell(self, call: Sent, ended: Ended, *, late: bool, unsure: bool, relay: Relay | None = None) -> None:
        """Tell the world and write it down; nothing here waits.

        relay: through which its answer went, if that was a stream; what is shown of it is its last event.

        late: the world has been told of another end, and only who waits for the answer gets it. unsure: it may wait all
        the same, and who sends it again asks the ledger.
        """
        target, asked, message = call.wanted.target, call.wanted.asked, call.wanted.message
        method = call.method
        arrival = call.flight.arrive(ended)
        duration_ms = arrival.duration_ms
        answered = ended.ending is Ending.COMPLETED
        body = ended.answer.body if relay is None or not answered else relay.last
        said = views.parse(body)
        if relay is not None:
            used = relay.usage
        else:
            used = usage.find(body) if len(body) > views.VIEW_BYTES else usage.read(said)
        cost = self._prices.cost(target.model, used)
        unknown = ended.delivered is None or ended.ending in UNREAD
        if unknown and self._prices.has(target.model) and cost < call.ticket.held:
            cost = call.ticket.held  # nobody knows what the agent has used: what it held of the budget
        claim = call.wanted.claim
        kept = None if claim is None else self._keep(claim, ended, asked.toll.payer, relay)
        if kept is not None and unsure:
            kept = ports.Kept(claim=kept.claim, waits=True)
        self._entrance.leave(call.ticket, cost, kept, arrival=arrival)
        if late:
            log.warning("call_ended_late", call_id=asked.call_id, workspace_id=target.id, ending=ended.ending.value)
            return
        shown = views.view(body, said) if answered else None
        line = Line(
            id=of_line(asked.call_id),  # whoever writes it: a replica that was held up, or who has taken over its calls
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
            publish_answer(self._bus, target.id, body, shown, method=method, duration_ms=duration_ms)
        publish_ended(
            self._bus,
            target.id,
            asked.call_id,
            ending=ended.ending,
            status=ended.answer.status,
            duration_ms=duration_ms,
        )
        if not answered:  # a completed call has its row and its event; a line would cost more
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

    def _keep(self, claim: Claim, ended: Ended, payer: str, relay: Relay | None) -> ports.Kept:
        """What is kept of it for those who make it again: of a stream that has completed, all its events, if they are
        not too long."""
        if relay is None or ended.ending is not Ending.COMPLETED:
            return self._joining.keep(claim, ended, payer)
        if relay.body is None:
            return ports.Kept(claim=claim, answer=None, again=False)
        return self._joining.keep(claim, replace(ended, answer=replace(ended.answer, body=relay.body)), payer)
