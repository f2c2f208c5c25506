"""A call whose agent is busy: written down before its caller is told, and answered to a caller that stays."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from random import random
from time import monotonic
from typing import Final

import structlog

from gateway import ports
from gateway.core import claims, envelope, queue, views
from gateway.core.answers import Answer
from gateway.core.calls import State
from gateway.core.claims import Claim
from gateway.core.endings import Ending
from gateway.core.retry import backoff_s
from gateway.services.activity import ActivityLog, Line
from gateway.services.entrance import METHOD_CHARS
from gateway.services.wakes import Wakes, heard

log = structlog.get_logger("gateway.queue")

CREDENTIAL: Final = "Authorization"
"""The agent's credential, which is not stored with a call: it is sealed elsewhere, and may change."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Seconds: the longest that a call waits, the first time between two tries, the longest that a caller may stay.

    And how long after its end who makes the same call again gets its answer.
    """

    lives_s: float
    retry_s: float
    wait_s: float
    kept_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Busy:
    """A call whose agent was busy `took_s` seconds after it came. `claim`: what makes another call the same.

    retry_after_s: when the agent may be asked again, None if it has not said so.
    """

    caller_id: str | None
    lane: str
    priority: int
    message: envelope.Envelope = field(repr=False)
    outbound: ports.Outbound
    took_s: float
    claim: Claim | None = None
    retry_after_s: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A call that waits, for so many seconds at most, and what its caller is told.

    answer: with the `call_id` where it is an earlier one than the caller's.
    """

    call_id: str
    workspace_id: str
    lives_s: float
    answer: Answer


@dataclass(frozen=True, kw_only=True, slots=True)
class Unsure:
    """A call of which nobody knows whether it was written: whoever asks for it asks the ledger."""


class Queue:
    """Lets calls wait, `room` of them for each workspace. `held` counts them."""

    def __init__(
        self,
        *,
        calls: ports.Calls,
        queue: ports.Queue,
        activity: ActivityLog,
        callers: Wakes,
        times: Times,
        room: int,
        chance: Callable[[], float] = random,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._calls = calls
        self._queue = queue
        self._activity = activity
        self._callers = callers
        self._times = times
        self._room = room
        self._chance = chance
        self._now = now
        self.held = 0

    async def hold(self, busy: Busy) -> Held | Answer | Unsure | None:
        """Let a call wait; None if it cannot: its time is over, or the queue is full.

        Where an earlier call has the message nothing is written: then that one waits, or its answer is returned.
        Refuses with message_id_reused.
        """
        lives_s = self._lives_s(busy)
        if lives_s <= 0:
            return None
        try:
            kept = await self._write(busy, lives_s)
            if isinstance(kept, ports.Same):
                return await self._earlier(kept)
        except ports.StoreError as error:
            log.warning("call_not_queued", call_id=busy.outbound.call_id, error=type(error).__name__)
            return Unsure()
        if kept is None:
            return None
        self.held += 1
        outbound = busy.outbound
        answer = queue.held(outbound.workspace_id, outbound.call_id, kept.depth, kept.expires_at)
        return Held(call_id=outbound.call_id, workspace_id=outbound.workspace_id, lives_s=lives_s, answer=answer)

    async def find(self, claim: Claim) -> Held | Answer | None:
        """Return the call that the ledger has under a claim, or its answer; None where the message may be a new call.

        Refuses with message_id_reused and already_completed; raises StoreError.
        """
        same = await self._calls.find_same(claim, kept_s=self._times.kept_s)
        return None if same is None else await self._earlier(same)

    async def _earlier(self, same: ports.Same) -> Held | Answer:
        call = same.call
        if not same.words:
            raise claims.reused(call.id)
        answer = queue.find_answer(call)
        if answer is None and call.ended:
            raise claims.not_kept(call.id)
        if answer is not None:
            return replace(answer, call_id=call.id)
        try:
            place = await self._queue.position(call.workspace_id, call.id)
        except ports.StoreError:  # that it waits is known, and counts
            place = None
        waiting = replace(queue.waiting(call, place), call_id=call.id)
        return Held(call_id=call.id, workspace_id=call.workspace_id, lives_s=self._times.lives_s, answer=waiting)

    def _lives_s(self, busy: Busy) -> float:
        lives_s = min(busy.message.expires_in_s or self._times.lives_s, self._times.lives_s)
        outbound = busy.outbound
        if outbound.by_deadline and outbound.limit_s is not None:
            return min(lives_s, outbound.limit_s - busy.took_s)
        return lives_s

    async def _write(self, busy: Busy, lives_s: float) -> ports.Placed | ports.Same | None:
        outbound, message = busy.outbound, busy.message
        method = (message.method or "")[:METHOD_CHARS]
        new = ports.NewQueued(
            id=outbound.call_id,
            workspace_id=outbound.workspace_id,
            caller_id=busy.caller_id,
            lane=busy.lane,
            priority=busy.priority,
            method=method,
            body=outbound.body,
            outgoing=ports.Outgoing(
                headers={name: value for name, value in outbound.headers.items() if name != CREDENTIAL},
                limit_s=outbound.limit_s,
                by_deadline=outbound.by_deadline,
            ),
            delay_s=max(backoff_s(self._times.retry_s, 1, self._chance()), busy.retry_after_s or 0.0),
            lives_s=lives_s,
            claim=busy.claim,
        )
        line = Line(
            id=new.id,
            workspace_id=new.workspace_id,
            activity_type="a2a_receive",
            method=method,
            summary=f"{method}: {State.QUEUED.value}",
            status=State.QUEUED.value,
            source_id=busy.caller_id,
            target_id=new.workspace_id,
            call_id=new.id,
            request_body=views.view(message.body, views.parse(message.body)),
            counts=True,
        )
        kept = await self._queue.hold(
            new, line.row(0.0), error=Ending.AGENT_BUSY.value, room=self._room, kept_s=self._times.kept_s
        )
        if isinstance(kept, ports.Placed):
            self._activity.tell(line)
        return kept

    async def stay(self, held: Held, wait_s: float, gone: Callable[[], bool]) -> Answer:
        """Return the answer of a call if it comes while its caller stays, or else that it waits.

        gone: whether the caller has hung up. Who hangs up loses nothing.
        """
        if wait_s <= 0 or self._callers.full or self._callers.closed:
            return held.answer
        until = self._now() + min(wait_s, self._times.wait_s, held.lives_s)
        with self._callers.waiting(held.call_id) as woken:
            answer = await self._find_answer(held)
            if answer is None:
                await heard(woken, until - self._now(), gone)
                answer = await self._find_answer(held)
        return answer or held.answer

    async def _find_answer(self, held: Held) -> Answer | None:
        try:
            found = await self._calls.find(held.workspace_id, held.call_id)
        except ports.StoreError as error:  # the call is safe; its answer can be asked for
            log.warning("answer_unread", call_id=held.call_id, error=type(error).__name__)
            return None
        answer = None if found is None else queue.find_answer(found)
        return None if answer is None else replace(answer, call_id=held.answer.call_id)
