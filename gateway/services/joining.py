"""A call that is the same as an earlier one: it is not made, and gets the answer of that one, here or elsewhere."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from gateway import ports
from gateway.core import claims, endings
from gateway.core.claims import Claim
from gateway.core.endings import UNDELIVERED, Answer, Clock, Ended
from gateway.core.refusals import Code, Refusal
from gateway.services.shelf import Shelf
from gateway.services.wakes import LOOK_S, Wakes, heard

SOON_S: Final = 0.02
"""Who is told that a call has ended may be told before its answer is there ..."""
BLIND_S: Final = 15.0
"""... and who could not look for so long does not know any more whether the call is still made."""
LONG_BYTES: Final = 64 * 1024
"""An answer that takes more than a millisecond to go through."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Held:
    """A call that this process makes, and its answer to come."""

    call_id: str
    words: str
    answer: "asyncio.Future[Answer]" = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Joiner:
    """Who makes a call that was made before, and how long it stays for the answer (seconds; None: to the end).

    `by_deadline`: that is its caller's own wish. `hold` counts the bytes of the answer.
    """

    claim: Claim
    id_json: bytes | None
    limit_s: float | None
    by_deadline: bool
    gone: Callable[[], bool] = field(repr=False)
    hold: ports.Hold = field(repr=False)


class Joining:
    """Brings those together that make the same call. `callers` waits for calls that other replicas make.

    `capacity`: how many may wait for calls made here. `shelf`: how much is kept of the answers for those who come late.
    """

    def __init__(
        self,
        *,
        gate: ports.Gate,
        callers: Wakes,
        shelf: Shelf,
        capacity: int,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._gate = gate
        self._callers = callers
        self._shelf = shelf
        self._capacity = capacity
        self._now = now
        self._held: dict[str, Held] = {}
        self._sharing = 0
        self.joined = 0
        """Calls that were not made, because an earlier one was."""

    def __repr__(self) -> str:
        return f"<Joining held={len(self._held)} sharing={self._sharing} joined={self.joined}>"

    def find(self, claim: Claim) -> Held | None:
        """Return the call with this claim that this process makes."""
        return self._held.get(claim.key)

    def hold(self, claim: Claim, call_id: str, answer: "asyncio.Future[Answer]") -> None:
        """Let others share the answer of a call from now on."""
        self._held[claim.key] = Held(call_id=call_id, words=claim.words, answer=answer)

    def drop(self, claim: Claim, call_id: str) -> None:
        """Say that this process does not make a call any more."""
        held = self._held.get(claim.key)
        if held is not None and held.call_id == call_id:
            del self._held[claim.key]

    def keep(self, claim: Claim, ended: Ended, payer: str) -> ports.Kept:
        """Return what is kept of a payer's call that has ended, for those who make it again."""
        again = ended.ending in UNDELIVERED
        answer = ended.answer
        kept = again or self._shelf.takes(_weight(answer), payer)
        return ports.Kept(claim=claim, answer=answer if kept else None, again=again)

    async def share(self, held: Held, joiner: Joiner) -> Answer:
        """Return the answer of a call that this process makes; refuses with message_id_reused and overloaded."""
        if held.words != joiner.claim.words:
            raise claims.reused(held.call_id)
        if self._sharing >= self._capacity:
            raise _overloaded()
        self.joined += 1
        self._sharing += 1
        try:
            async with asyncio.timeout(joiner.limit_s):
                answer = await asyncio.shield(held.answer)
        except TimeoutError:
            return _overdue(held.call_id, joiner)
        finally:
            self._sharing -= 1
        return await _readdress(answer, held.call_id, joiner)

    async def follow(self, earlier: ports.Earlier, joiner: Joiner) -> Answer:
        """Return the answer of a call that another replica makes, or that has ended.

        Refuses with message_id_reused, already_completed (its answer is not kept), interrupted (its replica is gone)
        and overloaded.
        """
        if not earlier.words:
            raise claims.reused(earlier.call_id)
        self.joined += 1
        if earlier.stage is not ports.Stage.ENDED:
            if self._callers.full:
                raise _overloaded()
            with self._callers.waiting(earlier.call_id) as woken:
                found = await self._ended(earlier.call_id, joiner, woken)
            if found is None:
                return _overdue(earlier.call_id, joiner)
            earlier = found
        if earlier.answer is not None:
            return await _readdress(earlier.answer, earlier.call_id, joiner)
        raise _overloaded() if earlier.again else claims.not_kept(earlier.call_id)

    async def _ended(self, call_id: str, joiner: Joiner, woken: asyncio.Event) -> ports.Earlier | None:
        """Wait until a call has ended, and return it; None when the joiner's time is over, or it has hung up.

        It looks when it hears of the end, and now and then: an event may be lost, and the replica that makes the call.
        """
        until = None if joiner.limit_s is None else self._now() + joiner.limit_s
        blind_at, lost, pause_s = self._now() + BLIND_S, False, LOOK_S
        while True:
            try:
                seen = await self._gate.look(joiner.claim)
            except ports.LiveUnavailable:
                if self._now() >= blind_at:
                    raise claims.interrupted(call_id) from None
            else:
                blind_at = self._now() + BLIND_S
                if seen is None:  # Redis has forgotten it, and whoever began now might be the second
                    raise claims.interrupted(call_id)
                if seen.call_id != call_id:  # it has not reached its agent, and the next one is made already
                    raise _overloaded()
                if seen.stage is ports.Stage.ENDED:
                    return seen
                if seen.stage is ports.Stage.LOST and lost:  # once may mean that Redis has just come back
                    raise claims.interrupted(call_id)
                lost = seen.stage is ports.Stage.LOST
            left_s = LOOK_S if until is None else until - self._now()
            if left_s <= 0 or joiner.gone():
                return None
            if self._callers.closed:
                raise Refusal(Code.DRAINING, "the gateway is shutting down", retry_after_s=5)
            await heard(woken, min(pause_s, left_s), joiner.gone)
            pause_s = SOON_S if woken.is_set() else min(2 * pause_s, LOOK_S)
            woken.clear()


def _weight(answer: Answer) -> int:
    """The bytes of an answer as it is kept; an agent's headers may be longer than what it says."""
    heads = sum(len(name) + len(value.encode(errors="replace")) for name, value in answer.headers.items())
    return heads + len(answer.body)


async def _readdress(answer: Answer, call_id: str, joiner: Joiner) -> Answer:
    """The answer of another call, under the joiner's own id; a long one is gone through beside the loop."""
    try:
        joiner.hold.grow(len(answer.body))
    except ports.NoRoom:
        raise Refusal(Code.OVERLOADED, "too many bodies at once", retry_after_s=2) from None
    if len(answer.body) <= LONG_BYTES:
        return claims.readdress(answer, call_id, joiner.id_json)
    return await asyncio.to_thread(claims.readdress, answer, call_id, joiner.id_json)


def _overdue(call_id: str, joiner: Joiner) -> Answer:
    clock = Clock.DEADLINE if joiner.by_deadline else Clock.CEILING
    answer = endings.classify(endings.Expired(clock=clock)).answer
    return claims.readdress(answer, call_id, joiner.id_json)


def _overloaded() -> Refusal:
    return Refusal(Code.OVERLOADED, "too many calls wait for one another's answer", retry_after_s=2)
