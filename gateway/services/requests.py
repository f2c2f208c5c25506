"""The request for a call: who asks, whether it may, what it says, and how it goes out. Nothing has happened yet."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from gateway import ports
from gateway.core import address, answers, envelope, http_json, queue
from gateway.core.callers import Principal
from gateway.core.claims import Claim, find_claim
from gateway.core.http_json import Operation
from gateway.core.ids import new_id
from gateway.core.limits import decide_limit, read_timeout, read_wait
from gateway.core.refusals import Code, Refusal
from gateway.core.trace import continued, trace_id
from gateway.core.workspaces import Workspace
from gateway.services.admission import Admission, Admitted
from gateway.services.parking import Parking
from gateway.services.reach import get_url
from gateway.services.tolls import Toll

log = structlog.get_logger("gateway.requests")

FORWARDED: Final = ("Content-Type", "Accept", "A2A-Version", "A2A-Extensions", "X-A2A-Extensions")
"""The caller's headers that reach the agent; its credentials and cookies never do."""

LONG_BYTES: Final = 64 * 1024
"""A body that takes more than a millisecond to look at."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A call as it was asked for.

    `headers` finds names whatever their case; `claimed` is the X-Workspace-ID; `gone` tells whether the caller hung up,
    `call_off` whether the call is to end then; `hold` counts the bytes of the call and its answer. `operation`: how it
    is asked for by HTTP+JSON, None for JSON-RPC.
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
    call_off: bool = False
    operation: Operation | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Seconds: of silence, of a workspace's call in all, and of the longest call that a workspace may ask for."""

    idle_s: float
    ceiling_s: float
    max_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A call that may be made. `caller_id`: the calling workspace, None for a person. `outbound`: how it goes out, None
    if its agent polls. If it has to wait, its caller would stay `wait_s` seconds for the answer, in a stream `stays_s`,
    None for as long as the call waits; among those that do it has this priority, and goes by turns with those of other
    lanes. `claim`: what makes another call the same, None where nothing does."""

    asked: Asked
    target: Workspace
    caller_id: str | None
    message: envelope.Envelope
    trace_id: str
    wait_s: float
    stays_s: float | None
    priority: int
    lane: str
    outbound: ports.Outbound | None
    claim: Claim | None


class Requests:
    """Reads requests."""

    def __init__(
        self, *, admission: Admission, parking: Parking, vault: ports.Vault | None, reach: address.Reach, times: Times
    ) -> None:
        self._admission = admission
        self._parking = parking
        self._vault = vault
        self._reach = reach
        self._times = times

    async def read(self, asked: Asked) -> Wanted | envelope.BadEnvelope:
        """Look at a request; refuses what may not or cannot be called, and tells of a bad body."""
        admitted = await self._admission.admit(asked.principal, asked.claimed, asked.target_id, peer=asked.peer)
        wanted_s = read_timeout(asked.headers.get("X-Timeout"))
        priority = queue.read_priority(asked.headers.get("X-A2A-Priority"), asked.principal)
        message = await self.read_message(asked)
        if isinstance(message, envelope.BadEnvelope):
            return message
        trace = continued(asked.headers.get("traceparent"), asked.headers.get("tracestate"))
        polls = self._parking.takes(admitted.target)
        if polls and asked.operation is not None:
            raise Refusal(Code.INVALID_REQUEST, "the agent polls, and so is called by JSON-RPC only")
        wait_s = 0.0 if message.streaming else read_wait(asked.headers.get("Prefer"))  # who streams stays in its stream
        return Wanted(
            asked=asked,
            target=admitted.target,
            caller_id=admitted.caller_id,
            message=message,
            trace_id=trace_id(trace["traceparent"]),
            wait_s=min(wait_s, wanted_s) if wanted_s else wait_s,
            stays_s=wanted_s if polls and wanted_s else None,  # in a queue the call itself is over then
            priority=priority,
            lane=queue.lane(asked.principal, admitted.caller_id),
            outbound=None if polls else self._outbound(asked, admitted, message, trace, wanted_s),
            claim=find_claim(asked.principal, admitted.caller_id, admitted.target.id, message),
        )

    async def read_message(self, asked: Asked) -> envelope.Envelope | envelope.BadEnvelope:
        """Return what the caller says; a long body is read beside the loop: it could hold that up for half a second."""
        if len(asked.body) <= LONG_BYTES:
            return _normalised(asked)
        return await asyncio.to_thread(_normalised, asked)

    def _outbound(
        self,
        asked: Asked,
        admitted: Admitted,
        message: envelope.Envelope,
        trace: Mapping[str, str],
        wanted_s: float | None,
    ) -> ports.Outbound:
        """Return the call as it goes out; refuses if it cannot."""
        target = admitted.target
        limit = decide_limit(
            wanted_s,
            by_workspace=admitted.caller_id is not None,
            ceiling_s=self._times.ceiling_s,
            max_s=self._times.max_s,
        )
        return ports.Outbound(
            call_id=asked.call_id,
            workspace_id=target.id,
            url=self._url(target, asked.operation),
            body=message.body,
            headers=self._headers(asked, admitted, trace),
            idle_s=target.metadata.idle_timeout_s or self._times.idle_s,
            limit_s=limit.seconds,
            by_deadline=limit.by_deadline,
            hold=asked.hold,
            operation=asked.operation,
        )

    def _url(self, target: Workspace, operation: Operation | None) -> str:
        """Where the agent takes such a request; refuses if it cannot be called there."""
        url = get_url(target, self._reach)
        if operation is None:
            return url
        other = http_json.find_url(target.agent_card, target.url or "", v1=operation.v1)
        return url if other == target.url else get_url(replace(target, url=other), self._reach)

    def _headers(self, asked: Asked, admitted: Admitted, trace: Mapping[str, str]) -> dict[str, str]:
        headers = {name: asked.headers[name] for name in FORWARDED if name in asked.headers}
        if asked.body:
            headers.setdefault("Content-Type", answers.JSON)
        headers |= trace
        headers["X-Request-ID"] = asked.request_id
        headers["X-A2A-Call-ID"] = asked.call_id
        if admitted.caller_id is not None:
            headers["X-Workspace-ID"] = admitted.caller_id
        return headers | self._credential(admitted.target)

    def _credential(self, target: Workspace) -> dict[str, str]:
        """What the agent itself asks for."""
        if target.agent_auth is None or self._vault is None:
            return {}
        secret = self._vault.unseal(target.agent_auth)
        if secret is None:
            log.error("agent_auth_unreadable", workspace_id=target.id)
            return {}
        return {"Authorization": secret}

    def again(self, target: Workspace, held: ports.Claimed, hold: ports.Hold) -> ports.Outbound:
        """Return how a call goes out that has waited; refuses if it cannot."""
        way = held.outgoing
        return ports.Outbound(
            call_id=held.call.id,
            workspace_id=target.id,
            url=get_url(target, self._reach),
            body=held.body,
            headers={**way.headers, **self._credential(target)},
            idle_s=target.metadata.idle_timeout_s or self._times.idle_s,
            limit_s=max(0.0, held.left_s) if way.by_deadline else way.limit_s,
            by_deadline=way.by_deadline,
            hold=hold,
        )


def _normalised(asked: Asked) -> envelope.Envelope | envelope.BadEnvelope:
    """What a body says; a bad one is refused in the words of its binding."""
    if asked.operation is None:
        return envelope.normalise(asked.body, a2a_version=asked.headers.get("A2A-Version"), mint=new_id)
    said = http_json.read(asked.operation, asked.body)
    if isinstance(said, envelope.BadEnvelope):
        raise Refusal(Code.INVALID_REQUEST, said.message)
    return said
