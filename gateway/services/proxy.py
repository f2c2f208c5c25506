"""The call: admitted, repaired, sent out, kept alive, ended once, and told to everybody."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Final

import orjson
import structlog

from events.bus import Bus
from events.event import event
from gateway import ports
from gateway.core import address, endings, envelope, usage, views
from gateway.core.callers import Principal
from gateway.core.endings import Answer, Ended, Ending
from gateway.core.ids import new_id
from gateway.core.limits import decide_limit, read_timeout, read_wait
from gateway.core.prices import Prices
from gateway.core.refusals import Code, Refusal
from gateway.core.trace import continued, trace_id
from gateway.core.workspaces import Workspace
from gateway.services.activity import ActivityLog, Line
from gateway.services.admission import Admission, Admitted
from gateway.services.entrance import Entrance, Ticket, Wish
from gateway.services.parking import Parked, Parking
from gateway.services.reach import get_url
from gateway.services.tolls import Toll, Tolls
from gateway.services.waiting import Waiting

log = structlog.get_logger("gateway.proxy")

FORWARDED: Final = ("Content-Type", "Accept", "A2A-Version", "A2A-Extensions", "X-A2A-Extensions")
"""The caller's headers that reach the agent; its credentials and cookies never do."""

METHOD_CHARS: Final = 200
"""How much of a method's name is shown and stored: it is the caller's word."""

LONG_BYTES: Final = 64 * 1024
"""A body that takes more than a millisecond to look at."""

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A call as it was asked for.

    `headers` finds names whatever their case; `claimed` is the X-Workspace-ID; `gone` tells whether the caller hung up.
    hold: what counts the bytes of the call and its answer.
    """

    call_id: str
    request_id: str
    target_id: str
    principal: Principal
    claimed: str | None
    peer: str
    toll: Toll
    gone: Callable[[], bool] = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    hold: ports.Hold = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Seconds: of silence, of a workspace's call in all, and of the longest call that a workspace may ask for."""

    idle_s: float
    ceiling_s: float
    max_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class _Wanted:
    asked: Asked
    admitted: Admitted
    message: envelope.Envelope
    outbound: ports.Outbound


@dataclass(frozen=True, kw_only=True, slots=True)
class _Call:
    asked: Asked
    target: Workspace
    caller_id: str | None
    message: envelope.Envelope
    outbound: ports.Outbound
    ticket: Ticket
    started: float = field(default_factory=monotonic)


class Proxy:
    """Makes calls. `capacity` bounds those in flight; past it callers are asked to come back."""

    def __init__(
        self,
        *,
        admission: Admission,
        tolls: Tolls,
        entrance: Entrance,
        prices: Prices,
        dispatcher: ports.Dispatcher,
        activity: ActivityLog,
        bus: Bus,
        waiting: Waiting,
        parking: Parking,
        vault: ports.Vault | None,
        reach: address.Reach,
        times: Times,
        capacity: int,
        spawn: Spawn,
    ) -> None:
        self._admission = admission
        self._tolls = tolls
        self._entrance = entrance
        self._prices = prices
        self._dispatcher = dispatcher
        self._activity = activity
        self._bus = bus
        self._waiting = waiting
        self._parking = parking
        self._vault = vault
        self._reach = reach
        self._times = times
        self._capacity = capacity
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
        self._check_room()
        try:
            wanted = await self._prepare(asked)
        except Refusal:
            await self._tolls.take(asked.toll)
            raise
        if isinstance(wanted, envelope.BadEnvelope):
            await self._tolls.take(asked.toll)
            return Answer(status=400, body=envelope.error_body(wanted), headers={"Content-Type": endings.JSON})
        if isinstance(wanted, Parked):
            return await self._park(asked, wanted)
        call = await self._enter(wanted)
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        task = self._spawn(self._run(call, answer), f"call:{asked.call_id}")
        self._in_flight[asked.call_id] = task
        task.add_done_callback(lambda _: self._in_flight.pop(asked.call_id, None))
        return await answer  # a waiter that is cancelled cancels this future, and not the task

    async def _prepare(self, asked: Asked) -> _Wanted | Parked | envelope.BadEnvelope:
        """Look at a call: may it be made, what does it say, how does it go out; refuses, and tells of a bad body."""
        admitted = await self._admission.admit(asked.principal, asked.claimed, asked.target_id, peer=asked.peer)
        message = await self._read(asked)
        if isinstance(message, envelope.BadEnvelope):
            return message
        if self._parking.takes(admitted.target):
            return _parked(asked, admitted, message)
        outbound = self._outbound(asked, admitted, message)
        return _Wanted(asked=asked, admitted=admitted, message=message, outbound=outbound)

    async def _enter(self, wanted: _Wanted) -> _Call:
        """Let a call begin; it ends no later than the one that it serves."""
        asked, admitted, outbound = wanted.asked, wanted.admitted, wanted.outbound
        wish = Wish(
            call_id=asked.call_id,
            caller_id=admitted.caller_id,
            target=admitted.target,
            trace_id=trace_id(outbound.headers["traceparent"]),
            serves=asked.headers.get("X-A2A-Call-ID"),
            limit_s=outbound.limit_s,
        )
        ticket = await self._entrance.enter(asked.toll, wish)
        try:
            self._check_room()  # others may have come while this one was being admitted
        except Refusal:
            self._entrance.leave(ticket, 0)
            raise
        if ticket.left_s is not None and (outbound.limit_s is None or ticket.left_s < outbound.limit_s):
            outbound = replace(outbound, limit_s=ticket.left_s, by_deadline=True)
        return _Call(
            asked=asked,
            target=admitted.target,
            caller_id=admitted.caller_id,
            message=wanted.message,
            outbound=outbound,
            ticket=ticket,
        )

    async def _park(self, asked: Asked, parked: Parked) -> Answer:
        """Put a call into an inbox: it pays and stands in its chain like any other.

        What its agent calls for it is not bound by how long the caller stays, but who stays does so no longer than the
        call that it serves.
        """
        wish = Wish(
            call_id=asked.call_id,
            caller_id=parked.caller_id,
            target=parked.target,
            trace_id=trace_id(continued(asked.headers.get("traceparent"), None)["traceparent"]),
            serves=asked.headers.get("X-A2A-Call-ID"),
            limit_s=None,
        )
        ticket = await self._entrance.enter(asked.toll, wish)
        try:
            if ticket.left_s is not None:
                parked = replace(parked, wait_s=min(parked.wait_s, ticket.left_s))
            return await self._parking.park(parked)
        finally:
            self._entrance.leave(ticket, 0)

    async def _read(self, asked: Asked) -> envelope.Envelope | envelope.BadEnvelope:
        """What the caller says; a long body is read beside the loop, which it could hold up for half a second."""
        version = asked.headers.get("A2A-Version")
        if len(asked.body) <= LONG_BYTES:
            return envelope.normalise(asked.body, a2a_version=version, mint=new_id)
        return await asyncio.to_thread(envelope.normalise, asked.body, a2a_version=version, mint=new_id)

    def _check_room(self) -> None:
        if self._draining:
            raise Refusal(Code.DRAINING, "the gateway is shutting down", retry_after_s=5)
        if len(self._in_flight) >= self._capacity:
            raise Refusal(Code.OVERLOADED, "too many calls in flight", retry_after_s=2)

    def _outbound(self, asked: Asked, admitted: Admitted, message: envelope.Envelope) -> ports.Outbound:
        """Return the call as it goes out; refuses if it cannot."""
        target = admitted.target
        limit = decide_limit(
            read_timeout(asked.headers.get("X-Timeout")),
            by_workspace=admitted.caller_id is not None,
            ceiling_s=self._times.ceiling_s,
            max_s=self._times.max_s,
        )
        return ports.Outbound(
            call_id=asked.call_id,
            workspace_id=target.id,
            url=get_url(target, self._reach),
            body=message.body,
            headers=self._headers(asked, admitted),
            idle_s=target.metadata.idle_timeout_s or self._times.idle_s,
            limit_s=limit.seconds,
            by_deadline=limit.by_deadline,
            hold=asked.hold,
        )

    def _headers(self, asked: Asked, admitted: Admitted) -> dict[str, str]:
        headers = {name: asked.headers[name] for name in FORWARDED if name in asked.headers}
        headers.setdefault("Content-Type", endings.JSON)
        headers |= continued(asked.headers.get("traceparent"), asked.headers.get("tracestate"))
        headers["X-Request-ID"] = asked.request_id
        headers["X-A2A-Call-ID"] = asked.call_id
        if admitted.caller_id is not None:
            headers["X-Workspace-ID"] = admitted.caller_id
        target = admitted.target
        if target.agent_auth is not None and self._vault is not None:
            secret = self._vault.unseal(target.agent_auth)
            if secret is None:
                log.error("agent_auth_unreadable", workspace_id=target.id)
            else:
                headers["Authorization"] = secret
        return headers

    async def _run(self, call: _Call, answer: "asyncio.Future[Answer]") -> None:
        """Make the call; whatever becomes of it, it ends here, once."""
        outcome: endings.Outcome
        try:
            with self._waiting.call(call.caller_id, call.target.id):
                outcome = await self._dispatcher.send(call.outbound)
        except asyncio.CancelledError:
            outcome = endings.Stopped()
        except Exception:  # a bug of ours must not leave a caller waiting; it is logged and told
            log.exception("call_broke", call_id=call.asked.call_id)
            outcome = endings.Broke()
        ended = endings.classify(outcome, native_session="session" in call.target.metadata.capabilities)
        if not answer.done():
            answer.set_result(ended.answer)
        self._tell(call, ended)

    def _tell(self, call: _Call, ended: Ended) -> None:
        """Tell the world and write it down; nothing here waits."""
        target, asked, method = call.target, call.asked, call.message.method
        if method is not None:
            method = method[:METHOD_CHARS]
        duration_ms = round((monotonic() - call.started) * 1000)
        said = views.parse(ended.answer.body) if ended.ending is Ending.COMPLETED else None
        used = usage.read(said)
        cost = self._prices.cost(target.model, used)
        self._entrance.leave(call.ticket, cost)
        shown = views.view(ended.answer.body, said) if ended.ending is Ending.COMPLETED else None
        line = Line(
            workspace_id=target.id,
            activity_type="a2a_receive",
            method=method,
            summary=f"{method}: {ended.ending.value}",
            status="ok" if ended.succeeded else "error",
            source_id=call.caller_id,
            target_id=target.id,
            call_id=asked.call_id,
            duration_ms=duration_ms,
            error_detail=None if ended.succeeded else ended.ending.value,
            request_body=views.view(call.message.body, views.parse(call.message.body)),
            response_body=shown,
            usage=used,
            cost=cost,
            counts=True,
        )
        self._activity.log(line)
        if call.caller_id is not None and call.caller_id != target.id:
            self._activity.log(
                Line(
                    workspace_id=call.caller_id,
                    activity_type="a2a_send",
                    method=method,
                    summary=line.summary,
                    status=line.status,
                    source_id=call.caller_id,
                    target_id=target.id,
                    call_id=asked.call_id,
                    duration_ms=duration_ms,
                    error_detail=line.error_detail,
                )
            )
        if call.caller_id is None and ended.ending is Ending.COMPLETED:
            reply = {"response_body": _reply(ended.answer.body, shown), "method": method, "duration_ms": duration_ms}
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
                caller_id=call.caller_id,
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


def _parked(asked: Asked, admitted: Admitted, message: envelope.Envelope) -> Parked:
    """The call as it goes into an inbox."""
    wanted_s = read_timeout(asked.headers.get("X-Timeout"))
    wait_s = read_wait(asked.headers.get("Prefer"))
    return Parked(
        call_id=asked.call_id,
        target=admitted.target,
        caller_id=admitted.caller_id,
        message=message,
        wait_s=min(wait_s, wanted_s) if wanted_s else wait_s,
        gone=asked.gone,
    )


def _reply(body: bytes, shown: Any) -> Any:
    """What browsers get of an answer: all of it, though people's view of it is cut."""
    return shown if len(body) <= views.VIEW_BYTES else orjson.Fragment(views.whole(body))
