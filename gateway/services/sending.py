"""A call that goes out: it is kept alive until its one end, or until it waits because its agent is busy."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import replace
from typing import Any, Final

import structlog

from gateway import ports
from gateway.core import answers, budget, envelope, outcomes, queue
from gateway.core.answers import Answer, Ended
from gateway.core.endings import Ending
from gateway.core.refusals import Refusal
from gateway.core.usage import Usage
from gateway.services import parting
from gateway.services.arrivals import Arrivals, Sent
from gateway.services.concurrency import Concurrency
from gateway.services.entrance import METHOD_CHARS, Entrance, Ticket
from gateway.services.flights import Flight, Flights
from gateway.services.joining import Joining
from gateway.services.queue import Busy, Held, Queue, Unsure
from gateway.services.relays import Relay
from gateway.services.requests import Wanted
from gateway.services.streams import Opened, Streams
from gateway.services.waiting import Waiting

log = structlog.get_logger("gateway.proxy")

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]

GONE_S: Final = 0.5
"""How often it is looked whether a caller is still there that wants its call ended when it leaves."""


class Sending:
    """Sends calls, each by a task of its own. `freed` is told whose agent has ended a call.

    grace_s: how long a stream is still kept for a caller that wants it ended when it leaves.
    """

    def __init__(
        self,
        *,
        dispatcher: ports.Dispatcher,
        entrance: Entrance,
        joining: Joining,
        queue: Queue,
        waiting: Waiting,
        arrivals: Arrivals,
        freed: Callable[[str], None],
        flights: Flights,
        concurrency: Concurrency,
        streams: Streams,
        grace_s: float,
        spawn: Spawn,
    ) -> None:
        self._dispatcher = dispatcher
        self._entrance = entrance
        self._joining = joining
        self._queue = queue
        self._waiting = waiting
        self._arrivals = arrivals
        self._freed = freed
        self._flights = flights
        self._concurrency = concurrency
        self._streams = streams
        self._grace_s = grace_s
        self._spawn = spawn

    def __repr__(self) -> str:
        return f"<Sending {self._flights!r}>"

    async def send(self, wanted: Wanted, outbound: ports.Outbound, ticket: Ticket) -> Answer | Opened:
        """Send a call out, and wait for its answer, or for its beginning if it is a stream, as long as its caller does.

        Nothing is awaited before others find that this process makes it. Refuses with message_id_reused and
        already_completed where its agent is busy and the ledger has its message.
        """
        method = wanted.message.method
        if method is not None:
            method = method[:METHOD_CHARS]
        flight = Flight(
            outbound=outbound, caller_id=wanted.caller_id, method=method or "", replica=self._flights.replica
        )
        call = Sent(wanted=wanted, outbound=outbound, ticket=ticket, flight=flight, method=method)
        call_id, claim, payer = wanted.asked.call_id, wanted.claim, wanted.asked.toll.payer
        answer: asyncio.Future[Answer | Held | Opened] = asyncio.get_running_loop().create_future()
        task = flight.task = self._spawn(self._run(call, answer), f"call:{call_id}")
        self._flights.add(call_id, flight)
        self._concurrency.take(payer)
        if claim is not None:
            self._joining.hold(claim, call_id, answer)
        task.add_done_callback(lambda _: self._out(wanted))
        got = await self._stay(wanted, answer)
        if not isinstance(got, Held):
            return got
        with self._waiting.call(wanted.caller_id if wanted.wait_s else None, wanted.target.id):
            return await self._queue.stay(got, wanted.wait_s, wanted.asked.gone)

    async def _stay(self, wanted: Wanted, answer: "asyncio.Future[Answer | Held | Opened]") -> Answer | Held | Opened:
        """Wait for the answer; whether a caller is there that wants the call ended when it leaves is looked at."""
        while wanted.asked.call_off and not answer.done():
            await asyncio.wait([answer], timeout=GONE_S)
            if not answer.done() and wanted.asked.gone():
                self.forsake(wanted.asked.call_id)
                break
        return await asyncio.shield(answer)  # others may wait for it, too

    def forsake(self, call_id: str) -> None:
        """Call off a call whose caller has left, once nobody else here wants its answer, nor will within the grace."""
        self._spawn(self._forsake(call_id), f"call:forsake:{call_id}")

    async def _forsake(self, call_id: str) -> None:
        await asyncio.sleep(self._grace_s)
        wanted = self._is_wanted(call_id)
        while wanted:  # by others, who may leave, and come back, as well
            await asyncio.sleep(GONE_S)
            wanted = self._is_wanted(call_id)
            if not wanted and self._grace_s:
                await asyncio.sleep(self._grace_s)
                wanted = self._is_wanted(call_id)
        self._flights.call_off(call_id)

    def _is_wanted(self, call_id: str) -> bool:
        """Whether somebody here reads the stream of a call under way, or waits for its answer."""
        flight = self._flights.find(call_id)
        if flight is None:
            return False
        return (flight.relay is not None and bool(flight.relay.readers)) or self._joining.is_shared(call_id)

    def _out(self, wanted: Wanted) -> None:
        self._flights.remove(wanted.asked.call_id)
        if wanted.claim is not None:
            self._joining.drop(wanted.claim, wanted.asked.call_id)
        self._concurrency.give_back(wanted.asked.toll.payer)

    async def _run(self, call: Sent, answer: "asyncio.Future[Answer | Held | Opened]") -> None:
        """Make the call; whatever becomes of it, it ends here, once, or waits because its agent is busy."""
        flight = call.flight
        relay: Relay | None = None

        def begin(status: int, headers: Mapping[str, str]) -> Relay:
            """Let its caller have a stream from now on; it goes on to its end though nobody reads it."""
            nonlocal relay
            method = call.wanted.message.method
            relay = flight.relay = self._streams.begin(
                _head(call, status, headers),
                hold=call.outbound.hold,
                names=method not in envelope.RESUBSCRIBING_METHODS,
            )
            relay.on_usage = lambda used: self._weigh(call, used)
            answer.set_result(Opened(head=relay.head, relay=relay))
            return relay

        outcome: outcomes.Outcome
        native_session = "session" in call.wanted.target.metadata.capabilities
        try:
            if flight.stopped is not None:  # before it was sent
                outcome = flight.stopped
            else:
                flight.under_way = True
                with self._waiting.call(call.wanted.caller_id, call.wanted.target.id):
                    outcome = await self._dispatcher.send(call.outbound, begin)
        except asyncio.CancelledError:
            outcome = flight.stopped or outcomes.Stopped()
        except Exception:  # a bug of ours must not leave a caller waiting; it is logged and told
            log.exception("call_broke", call_id=call.wanted.asked.call_id)
            outcome = outcomes.Broke()
        flight.under_way = False
        if relay is not None and relay.complete:  # what comes after all has been said changes nothing any more
            outcome = outcomes.Streamed(status=relay.head.status, headers=relay.head.headers)
        plain = call.outbound.operation is not None
        ended = answers.classify(outcome, native_session=native_session, plain=plain)
        late = await self._is_late(call)
        if relay is not None:
            self._streams.end(relay, ended)
            self._arrivals.tell(call, ended, late=late, unsure=False, relay=relay)
            self._freed(call.wanted.target.id)
            self._part(call, ended, relay)
            return
        busy = ended.ending is Ending.AGENT_BUSY and not native_session and not plain and not late
        got = await self._hold(call, ended.retry_after_s) if busy else None
        unsure = isinstance(got, Unsure)
        if isinstance(got, Unsure):
            ended, got = replace(ended, answer=queue.unsure(ended.answer)), None
        if isinstance(got, Refusal):
            answer.set_exception(got)
            answer.exception()  # its caller may have gone away
        else:
            answer.set_result(got or ended.answer)
        if got is None:
            self._arrivals.tell(call, ended, late=late, unsure=unsure)
            if ended.ending is not Ending.AGENT_BUSY:
                self._freed(call.wanted.target.id)
        else:
            claim = call.wanted.claim
            kept = None if claim is None else ports.Kept(claim=claim, waits=True)
            self._entrance.leave(call.ticket, 0, kept, waits_s=got.lives_s if isinstance(got, Held) else None)

    def _weigh(self, call: Sent, used: Usage) -> None:
        """End a stream in whose middle its agent says that it has used more than its budget has left."""
        target = call.wanted.target
        cost = self._arrivals.cost(target.model, used)
        if budget.outspent(target.budget_limit, target.spend, cost, held=call.ticket.held):
            call.flight.stop(outcomes.Spent())

    def _part(self, call: Sent, ended: Ended, relay: Relay) -> None:
        """Tell an agent that nobody wants its task any more, if that is so."""
        if parting.is_due(ended.ending, relay) and relay.task_id is not None:
            telling = parting.tell(self._dispatcher, call.outbound, relay.task_id, v1=call.wanted.message.v1)
            self._spawn(telling, f"call:part:{call.wanted.asked.call_id}")

    async def _is_late(self, call: Sent) -> bool:
        """Whether this process was held up for so long that another one has ended the call for it."""
        try:
            return await self._entrance.has_lost(call.ticket, call.flight.took_s)
        except asyncio.CancelledError:
            return False

    async def _hold(self, call: Sent, retry_after_s: float | None) -> Held | Answer | Refusal | Unsure | None:
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
            retry_after_s=retry_after_s,
        )
        try:
            return await self._queue.hold(busy)
        except Refusal as refused:
            return refused
        except asyncio.CancelledError:
            return Unsure()
        except Exception:  # a bug of ours must not leave a caller waiting; it is logged and told
            log.exception("call_broke", call_id=wanted.asked.call_id)
            return Unsure()


def _head(call: Sent, status: int, headers: Mapping[str, str]) -> ports.StreamHead:
    wanted = call.wanted
    return ports.StreamHead(
        call_id=wanted.asked.call_id,
        workspace_id=wanted.target.id,
        status=status,
        headers=dict(headers),
        id_json=wanted.message.id_json,
        plain=call.outbound.operation is not None,
    )
