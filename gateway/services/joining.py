"""A call that is the same as an earlier one: it is not made, and gets the answer of that one, wherever that is."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Final

import structlog

from gateway import ports
from gateway.core import answers, claims, outcomes, streams
from gateway.core.answers import Answer, Ended
from gateway.core.causes import UNDELIVERED
from gateway.core.claims import Claim
from gateway.core.endings import Ending
from gateway.core.outcomes import Clock
from gateway.core.refusals import Code, Refusal, platform_unavailable
from gateway.services import queue
from gateway.services.shelf import Shelf
from gateway.services.streams import Opened, Streams
from gateway.services.wakes import LOOK_S, Wakes, heard

log = structlog.get_logger("gateway.joining")

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
    answer: "asyncio.Future[Answer | queue.Held | Opened]" = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Joiner:
    """Who makes a call that was made before, and how long it stays for the answer (seconds; None: to the end).

    `by_deadline`: that is its caller's own wish. `wait_s`: how long it stays for a call that waits for its agent.
    `hold` counts the bytes of the answer. `streaming`: it wants a stream, from behind `last_event_id` if that is one of
    its events.
    """

    claim: Claim
    id_json: bytes | None
    limit_s: float | None
    by_deadline: bool
    wait_s: float
    gone: Callable[[], bool] = field(repr=False)
    hold: ports.Hold = field(repr=False)
    streaming: bool = False
    last_event_id: str | None = None


class Joining:
    """Brings those together that make the same call. `callers` waits for calls that other replicas make; `waits` knows
    those that wait for a busy agent.

    `capacity`: how many may wait for calls made here. `shelf`: how much is kept of the answers for those who come late.
    """

    def __init__(
        self,
        *,
        gate: ports.Gate,
        waits: queue.Queue,
        callers: Wakes,
        shelf: Shelf,
        streams: Streams,
        capacity: int,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._gate = gate
        self._waits = waits
        self._callers = callers
        self._shelf = shelf
        self._streams = streams
        self._capacity = capacity
        self._now = now
        self._held: dict[str, Held] = {}
        self._sharing = 0
        self._sharers: dict[str, list[Joiner]] = {}
        self.joined = 0
        """Calls that were not made, because an earlier one was."""

    def __repr__(self) -> str:
        return f"<Joining held={len(self._held)} sharing={self._sharing} joined={self.joined}>"

    def find(self, claim: Claim) -> Held | None:
        """Return the call with this claim that this process makes."""
        return self._held.get(claim.key)

    def hold(self, claim: Claim, call_id: str, answer: "asyncio.Future[Answer | queue.Held | Opened]") -> None:
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
        if ended.ending is Ending.GATEWAY_SHUTDOWN:  # who asks later asks a gateway that is not shutting down
            answer = answers.classify(outcomes.Orphaned()).answer
        kept = again or self._shelf.takes(_weight(answer), payer)
        return ports.Kept(claim=claim, answer=answer if kept else None, again=again)

    def is_shared(self, call_id: str) -> bool:
        """Whether somebody else waits here for the answer of a call that this process makes."""
        return any(not joiner.gone() for joiner in self._sharers.get(call_id, ()))

    async def share(self, held: Held, joiner: Joiner) -> Answer | Opened:
        """Return the answer of a call that this process makes, or that it waits if its agent is busy.

        Refuses with message_id_reused and overloaded.
        """
        if held.words != joiner.claim.words:
            raise claims.reused(held.call_id)
        if self._sharing >= self._capacity:
            raise _overloaded()
        self.joined += 1
        until = None if joiner.limit_s is None else self._now() + joiner.limit_s
        try:
            with self._sharing_one(held.call_id, joiner):
                async with asyncio.timeout(joiner.limit_s):
                    got = await asyncio.shield(held.answer)
        except TimeoutError:
            return _overdue(held.call_id, joiner)
        return await self._stay(got, held.call_id, joiner, until)

    @contextmanager
    def _sharing_one(self, call_id: str, joiner: Joiner) -> Iterator[None]:
        """Know who shares a call for as long as the block lasts."""
        sharers = self._sharers.setdefault(call_id, [])
        sharers.append(joiner)
        self._sharing += 1
        try:
            yield
        finally:
            self._sharing -= 1
            sharers[:] = [one for one in sharers if one is not joiner]
            if not sharers:
                self._sharers.pop(call_id, None)

    async def follow(self, earlier: ports.Earlier, joiner: Joiner) -> Answer | Opened | None:
        """Return the answer of a call that another replica makes, that waits, or that has ended.

        None: it waited, and has ended so that the next call with this claim is made. Refuses with message_id_reused,
        already_completed (its answer is not kept), interrupted (its replica is gone), overloaded, and with
        platform_unavailable where only the ledger knows.
        """
        until = None if joiner.limit_s is None else self._now() + joiner.limit_s
        if not earlier.words and earlier.stage is not ports.Stage.WAITS:
            raise claims.reused(earlier.call_id)
        self.joined += 1
        if earlier.stage in (ports.Stage.RUNNING, ports.Stage.LOST):
            if self._callers.full:
                raise _overloaded()
            with self._callers.waiting(earlier.call_id) as woken:
                found = await self._settled(earlier, joiner, woken, until)
            if found is None:
                return _overdue(earlier.call_id, joiner)
            if isinstance(found, Opened):
                return _opened(found, joiner)
            earlier = found
        over = earlier.stage in (ports.Stage.ENDED, ports.Stage.LOST)
        if joiner.streaming and over and not earlier.again:
            opened = await self._begun(earlier.call_id)  # its journal has it by the ids of its events
            if opened is not None:
                return _opened(opened, joiner)
        if earlier.stage is not ports.Stage.ENDED:
            return await self._ask_ledger(earlier, joiner, until)
        if earlier.answer is not None:
            return await _readdress(earlier.answer, earlier.call_id, joiner)
        raise _overloaded() if earlier.again else claims.not_kept(earlier.call_id)

    async def recall(self, claim: Claim) -> Answer | queue.Held | None:
        """Return the call that the ledger has under a claim, or its answer, though Redis has not told of it.

        None: there is none, or the ledger cannot be asked either. Refuses with message_id_reused and already_completed.
        """
        try:
            return await self._waits.find(claim)
        except ports.StoreError as error:
            log.warning("claim_unchecked", error=type(error).__name__)
            return None

    async def stay(self, got: Answer | queue.Held, joiner: Joiner) -> Answer | Opened:
        """Return the answer of a call that was recalled, or that it waits; refuses with overloaded."""
        self.joined += 1
        until = None if joiner.limit_s is None else self._now() + joiner.limit_s
        return await self._stay(got, _id(got), joiner, until)

    async def _ask_ledger(self, earlier: ports.Earlier, joiner: Joiner, until: float | None) -> Answer | Opened | None:
        """What has become of a call that waited, as far as Redis knows, or that may have: its replica is gone."""
        try:
            got = await self._waits.find(joiner.claim)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if got is not None:
            return await self._stay(got, _id(got), joiner, until)
        if earlier.stage is ports.Stage.LOST:
            raise claims.interrupted(earlier.call_id)
        self.joined -= 1
        return None

    async def _stay(
        self, got: Answer | queue.Held | Opened, call_id: str, joiner: Joiner, until: float | None
    ) -> Answer | Opened:
        """Stay with a call that waits as long as one may, and return its answer."""
        if isinstance(got, Opened):
            return _opened(got, joiner)
        if isinstance(got, queue.Held):
            wait_s = joiner.wait_s if until is None else min(joiner.wait_s, until - self._now())
            got = await self._waits.stay(got, wait_s, joiner.gone)
        return await _readdress(got, call_id, joiner)

    async def _settled(
        self, earlier: ports.Earlier, joiner: Joiner, woken: asyncio.Event, until: float | None
    ) -> ports.Earlier | Opened | None:
        """Wait until a call has ended, waits, is lost or has begun a stream, and return it; None when the joiner's time
        is over, or it has hung up.

        It looks when it hears of the end, and now and then: an event may be lost, and the replica that makes the call.
        """
        call_id, gone = earlier.call_id, replace(earlier, stage=ports.Stage.LOST)
        blind_at, lost, pause_s = self._now() + BLIND_S, False, LOOK_S
        while True:
            try:
                seen = await self._gate.look(joiner.claim)
            except ports.LiveUnavailable:
                if self._now() >= blind_at:
                    return gone
            else:
                blind_at = self._now() + BLIND_S
                if seen is None:  # Redis has forgotten it, and whoever began now might be the second
                    return gone
                if seen.call_id != call_id:  # it has not reached its agent, and the next one is made already
                    raise _overloaded()
                if seen.stage in (ports.Stage.ENDED, ports.Stage.WAITS):
                    return seen
                if seen.stage is ports.Stage.LOST and lost:  # once may mean that Redis has just come back
                    return gone
                lost = seen.stage is ports.Stage.LOST
                if not lost and (opened := await self._begun(call_id)) is not None:
                    return opened
            left_s = LOOK_S if until is None else until - self._now()
            if left_s <= 0 or joiner.gone():
                return None
            if self._callers.closed:
                raise Refusal(Code.DRAINING, "the gateway is shutting down", retry_after_s=5)
            await heard(woken, min(pause_s, left_s), joiner.gone)
            pause_s = SOON_S if woken.is_set() else min(2 * pause_s, LOOK_S)
            woken.clear()

    async def _begun(self, call_id: str) -> Opened | None:
        """The stream of a call that another replica makes or has made, once its answer has begun and is one."""
        try:
            return await self._streams.find(call_id)
        except ports.LiveUnavailable:
            return None


def _opened(opened: Opened, joiner: Joiner) -> Opened:
    """A stream that somebody else has begun, for who joins."""
    after = streams.find_number(opened.head.call_id, joiner.last_event_id)
    return replace(opened, id_json=joiner.id_json or b"null", after=after or 0)


def _id(got: Answer | queue.Held) -> str:
    """The call that the ledger has found: it says whose answer it gives."""
    call_id = got.call_id
    assert call_id is not None
    return call_id


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
    answer = answers.classify(outcomes.Expired(clock=clock)).answer
    return claims.readdress(answer, call_id, joiner.id_json)


def _overloaded() -> Refusal:
    return Refusal(Code.OVERLOADED, "too many calls wait for one another's answer", retry_after_s=2)
