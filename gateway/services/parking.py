"""A call to an agent that polls: in its inbox before it is acknowledged, and answered to a caller that stays."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Final

import structlog

from gateway import ports
from gateway.core import answers, claims, delivery, envelope, inbox, outcomes, queue, views
from gateway.core.answers import Answer
from gateway.core.calls import Kind, State
from gateway.core.refusals import Code, Refusal, platform_unavailable
from gateway.core.workspaces import Workspace
from gateway.services.activity import ActivityLog, Line
from gateway.services.wakes import Wakes, heard

log = structlog.get_logger("gateway.parking")

WARNED: Final = 10_000
"""Workspaces of which the log has said that their mode is not known, before it says so again."""
FULL_RETRY_S: Final = 30


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Seconds: the longest that a call lies in an inbox, and the longest that its caller may stay for the answer.

    And how long after its end who makes the same call again gets its answer.
    """

    lives_s: float
    wait_s: float
    kept_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Parked:
    """A call that goes into an inbox. `gone`: whether its caller has hung up.

    Seconds: how long it may lie there, and how long its caller would stay for an answer, 0 for not at all. `claim`:
    what makes another call the same.
    """

    call_id: str
    target: Workspace
    caller_id: str | None
    message: envelope.Envelope = field(repr=False)
    lives_s: float
    wait_s: float
    gone: Callable[[], bool] = field(repr=False)
    claim: claims.Claim | None = None


class Parking:
    """Puts calls into inboxes that hold `room` messages each.

    `unsure` counts the calls whose mode nobody knew, `joined` those that an earlier call is the same as.
    """

    def __init__(
        self,
        *,
        calls: ports.Calls,
        activity: ActivityLog,
        callers: Wakes,
        times: Times,
        room: int,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._calls = calls
        self._activity = activity
        self._callers = callers
        self._times = times
        self._room = room
        self._now = now
        self._warned: set[str] = set()
        self.unsure = 0
        self.joined = 0

    def takes(self, target: Workspace) -> bool:
        """Return whether this workspace polls; a mode that is not known counts as push, loudly."""
        mode = delivery.find_mode(target)
        if mode is None:
            self.unsure += 1
            if target.id not in self._warned:
                log.warning("delivery_mode_unsure", workspace_id=target.id, delivery_mode=target.delivery_mode)
                self._warned = {target.id} if len(self._warned) >= WARNED else self._warned | {target.id}
        return mode is delivery.Mode.POLL

    def lives_s(self, message: envelope.Envelope) -> float:
        """Return for how long a message may lie in an inbox."""
        return min(message.expires_in_s or self._times.lives_s, self._times.lives_s)

    async def park(self, call: Parked) -> Answer:
        """Write the call down and return its answer: that it is queued, or the agent's if it comes while one waits.

        Who hangs up loses nothing. Where an earlier call is the same nothing is written, and the answer is that one's.
        Refuses with inbox_full, with message_id_reused, and with platform_unavailable when it cannot be written.
        """
        fault = inbox.find_fault(call.message)
        if fault is not None:
            return Answer(status=400, body=envelope.error_body(fault), headers={"Content-Type": answers.JSON})
        wait_s = 0.0 if self._callers.full or self._callers.closed else min(call.wait_s, self._times.wait_s)
        until = self._now() + wait_s
        with self._callers.waiting(call.call_id) as woken:
            same = await self._write(call, wait_s)
            if same is None and wait_s:
                await heard(woken, until - self._now(), call.gone)
                answer = await self._find_answer(call)
                if answer is not None:
                    return replace(answer, call_id=None)
        if same is not None:
            return await self._join(call, same, until)
        return _queued(call)

    async def _join(self, call: Parked, same: ports.Same, until: float) -> Answer:
        """The answer of an earlier call, as soon as it is there or for as long as one stays."""
        if not same.words:
            raise claims.reused(same.call.id)
        self.joined += 1
        earlier = replace(call, call_id=same.call.id)
        with self._callers.waiting(earlier.call_id) as woken:
            answer = await self._find_answer(earlier)
            if answer is None and until > self._now():
                await heard(woken, until - self._now(), call.gone)
                answer = await self._find_answer(earlier)
        return answer or replace(queue.waiting(same.call, None), call_id=earlier.call_id)

    async def _write(self, call: Parked, wait_s: float) -> ports.Same | None:
        """Write a call down, unless an earlier one is the same: then that one is returned."""
        message, target = call.message, call.target
        new = ports.NewCall(
            id=call.call_id,
            kind=Kind.PARKED,
            workspace_id=target.id,
            caller_id=call.caller_id,
            method=message.method or "",
            body=message.body,
            waits_s=wait_s,
            lives_s=call.lives_s,
            claim=call.claim,
        )
        line = Line(
            id=call.call_id,
            workspace_id=target.id,
            activity_type="a2a_receive",
            method=message.method,
            summary=f"{message.method}: {State.QUEUED.value}",
            status=State.QUEUED.value,
            source_id=call.caller_id,
            target_id=target.id,
            call_id=call.call_id,
            request_body=views.view(message.body, views.parse(message.body)),
            counts=True,
        )
        try:
            kept = await self._calls.park(new, line.row(0.0), room=self._room, kept_s=self._times.kept_s)
        except (ports.StoreUnavailable, ports.StoreTimeout) as error:
            raise platform_unavailable() from error
        if isinstance(kept, ports.Same):
            return kept
        if not kept:
            raise Refusal(Code.INBOX_FULL, "the agent's inbox is full", retry_after_s=FULL_RETRY_S)
        self._activity.tell(line)
        return None

    async def _find_answer(self, call: Parked) -> Answer | None:
        """Look once, woken or not: what has happened may not have been heard of here. None: nothing has."""
        try:
            found = await self._calls.find(call.target.id, call.call_id)
        except ports.StoreError as error:  # the call is safe; its answer can be asked for
            log.warning("answer_unread", call_id=call.call_id, error=type(error).__name__)
            return None
        if found is None or not found.ended:
            return None
        answer = queue.find_answer(found)
        return None if answer is None else claims.readdress(answer, found.id, call.message.id_json)


def _queued(call: Parked) -> Answer:
    return answers.classify(outcomes.Parked(call_id=call.call_id, method=call.message.method or "")).answer
