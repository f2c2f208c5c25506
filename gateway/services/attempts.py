"""One attempt at a call that waits: it is let in again, sent if it may be sent still, and what follows is settled."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import replace
from random import random

import structlog

from events.bus import Bus
from gateway import ports
from gateway.core import answers, budget, envelope, outcomes, retry
from gateway.core.answers import Ended
from gateway.core.calls import Call, State
from gateway.core.endings import Ending
from gateway.core.rates import Tariff
from gateway.core.refusals import Code, Refusal
from gateway.core.retry import Back, Pace
from gateway.core.trace import trace_id
from gateway.core.usage import Usage
from gateway.core.workspaces import Workspace
from gateway.services import parting
from gateway.services.admission import Admission
from gateway.services.entrance import Entrance, Ticket, Wish
from gateway.services.history import publish_status
from gateway.services.relays import Relay
from gateway.services.requests import Requests
from gateway.services.room import Hold
from gateway.services.settling import Settling
from gateway.services.streams import Streams
from gateway.services.tolls import Toll

log = structlog.get_logger("gateway.drain")


class Attempt:
    """One call that is out, claimed as `one`.

    `task` makes the attempt; `stopped` is why it is to end early, if it is. Once it is `called_off` the call ends as
    cancelled: that cancels the task while it is `under_way`, and before and after that the task looks by itself.
    """

    __slots__ = ("one", "stopped", "task", "under_way")

    task: "asyncio.Task[None]"

    def __init__(self, one: ports.Claimed) -> None:
        self.one = one
        self.under_way = False
        self.stopped: outcomes.Outcome | None = None

    def __repr__(self) -> str:
        return f"<Attempt {self.one.call.id} under_way={self.under_way} stopped={self.stopped}>"

    @property
    def called_off(self) -> bool:
        """Whether somebody wants it to end."""
        return isinstance(self.stopped, outcomes.Cancelled)

    def call_off(self) -> None:
        """Let the call end, at once if its agent works on it; to say so twice changes nothing."""
        self.stop(outcomes.Cancelled(under_way=True))

    def stop(self, outcome: outcomes.Outcome) -> None:
        """Let it end with this; whoever comes first says how."""
        if self.stopped is not None:
            return
        self.stopped = outcome
        if self.under_way:
            self.task.cancel()


class Attempts:
    """Tries calls of one source.

    answer_bytes: the longest stream that is kept as an answer. retry_s: about the first time between two tries.
    restart_s: when a delegation is tried again whose agent was dead.
    """

    def __init__(
        self,
        *,
        queue: ports.Claims,
        admission: Admission,
        requests: Requests,
        entrance: Entrance,
        dispatcher: ports.Dispatcher,
        settling: Settling,
        streams: Streams,
        bus: Bus,
        answer_bytes: int,
        retry_s: float,
        restart_s: float,
        chance: Callable[[], float] = random,
    ) -> None:
        self._queue = queue
        self._admission = admission
        self._requests = requests
        self._entrance = entrance
        self._dispatcher = dispatcher
        self._settling = settling
        self._bus = bus
        self._streams = streams
        self._answer_bytes = answer_bytes
        self._retry_s = retry_s
        self._restart_s = restart_s
        self._chance = chance

    def __repr__(self) -> str:
        return f"<Attempts {self._settling!r}>"

    async def make(self, attempt: Attempt, hold: Hold, answered: Callable[[], None]) -> None:
        """Send a call if it may be sent still, and write down what became of it.

        `answered` is told once its agent may have time for another one: before the end is written.
        """
        one = attempt.one
        call = one.call
        ticket: Ticket | None = None
        pace = Pace(first_s=self._retry_s, restart_s=self._restart_s, jitter=self._chance())
        try:
            hold.grow(len(one.body))
            target = await self._admission.readmit(call.caller_id, call.workspace_id)
            outbound = self._requests.again(target, one, hold)
            ticket = await self._enter(one, target, outbound)
            if not await self._queue.mark_sent(call.id, one.claim):
                self._entrance.leave(ticket, 0)
                log.warning("queued_call_lost", call_id=call.id)  # our lease ran out: it is another one's by now
                return
        except (Exception, asyncio.CancelledError) as error:
            then = _cancelled() if attempt.called_off else self._stopped_short(call, error, pace)
            if ticket is not None:
                self._entrance.leave(ticket, 0, waits_s=max(0.0, one.left_s) if isinstance(then, Back) else None)
            await self._settling.settle(one, then, None, None)
            return
        publish_status(self._bus, call, State.DISPATCHED)
        sessions = "session" in target.metadata.capabilities
        held = ticket.held

        def weigh(used: Usage) -> None:
            """End a stream in whose middle its agent says that it has used more than its budget has left."""
            cost = self._settling.cost(target.model, used)
            if budget.outspent(target.budget_limit, target.spend, cost, held=held):
                attempt.stop(outcomes.Spent())

        ended, relay = _cancelled(), None
        if not attempt.called_off:
            ended, relay = await self._send(attempt, outbound, sessions, weigh)
        then = retry.decide(ended, call, sessions=sessions, pace=pace)
        if not isinstance(then, Back):
            answered()
        elif attempt.called_off:
            then = _cancelled()
        used = None if relay is None or ended.ending is Ending.COMPLETED else relay.usage
        await self._settling.settle(one, then, target, ticket, used)
        if relay is not None and relay.task_id is not None and parting.is_due(ended.ending, relay):
            v1 = envelope.is_v1(call.method, outbound.headers.get("A2A-Version"))
            await parting.tell(self._dispatcher, outbound, relay.task_id, v1=v1)

    async def _enter(self, one: ports.Claimed, target: Workspace, outbound: ports.Outbound) -> Ticket:
        """Let it begin again: nobody pays for that but its target's budget."""
        wish = Wish(
            call_id=one.call.id,
            caller_id=one.call.caller_id,
            target=target,
            trace_id=trace_id(outbound.headers["traceparent"]),
            method=one.call.method,
            serves=None,
            limit_s=outbound.limit_s,
        )
        try:
            return await self._entrance.enter(Toll(Tariff.CALL, "queue", free=True), wish)
        except Refusal as refused:
            if refused.code is Code.BUDGET_EXCEEDED and not budget.exhausted(target.budget_limit, target.spend):
                raise _Reserved from refused
            raise

    def _stopped_short(self, call: Call, error: BaseException, pace: Pace) -> Back | Ended:
        """What follows when a call was not sent."""
        match error:
            case _Reserved():
                return retry.wait(Code.BUDGET_EXCEEDED, pace=pace)
            case Refusal(code=code):
                return retry.decide_refused(code, call, pace=pace)
            case ports.NoRoom():
                return retry.wait(Code.OVERLOADED, pace=pace)
            case ports.StoreError():
                return retry.wait(Code.PLATFORM_UNAVAILABLE, pace=pace)
            case asyncio.CancelledError():
                return Back(delay_s=0.0, error=Code.DRAINING.value)
            case _:  # a bug of ours must not leave a call without an end; it is logged and told
                log.error("call_broke", call_id=call.id, exc_info=error)
                return answers.classify(outcomes.Broke())

    async def _send(
        self, attempt: Attempt, outbound: ports.Outbound, sessions: bool, weigh: Callable[[Usage], None]
    ) -> tuple[Ended, Relay | None]:
        outcome: outcomes.Outcome
        attempt.under_way = True
        relay: Relay | None = None

        def begin(status: int, headers: Mapping[str, str]) -> Relay:
            """Let whoever waits for the answer read it as it comes."""
            nonlocal relay
            head = ports.StreamHead(
                call_id=outbound.call_id,
                workspace_id=outbound.workspace_id,
                status=status,
                headers=dict(headers),
                id_json=envelope.find_id(outbound.body),
            )
            relay = self._streams.begin(
                head,
                hold=outbound.hold,
                answer_bytes=self._answer_bytes,
                names=attempt.one.call.method not in envelope.RESUBSCRIBING_METHODS,
            )
            relay.on_usage = weigh
            return relay

        try:
            outcome = await self._dispatcher.send(outbound, begin)
        except asyncio.CancelledError:
            outcome = attempt.stopped or outcomes.Stopped()
        except Exception:  # a bug of ours must not leave a call without an end; it is logged and told
            log.exception("call_broke", call_id=outbound.call_id)
            outcome = outcomes.Broke()
        finally:
            attempt.under_way = False
        if relay is not None and relay.complete:  # what comes after all has been said changes nothing any more
            outcome = outcomes.Streamed(status=relay.head.status, headers=relay.head.headers)
        ended = answers.classify(outcome, native_session=sessions)
        if relay is None:
            return ended, None
        self._streams.end(relay, ended)
        if ended.ending is not Ending.COMPLETED:
            return ended, relay
        if relay.body is None:  # whoever reads it as it comes gets it all; whoever asks later does not
            return answers.classify(outcomes.TooLarge()), relay
        return replace(ended, answer=replace(ended.answer, body=relay.body)), relay


def _cancelled() -> Ended:
    """The end of a call that was called off, and that its agent has not got."""
    return answers.classify(outcomes.Cancelled())


class _Reserved(Exception):
    """Others hold what is left of the budget just now."""
