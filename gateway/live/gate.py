"""What all replicas decide together, in one round trip: rates, chains, deadlines, budgets, and who makes a call."""

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files
from time import monotonic
from typing import Any, Final

import orjson
import structlog

from events.redis import Servers
from gateway.core.claims import Claim
from gateway.core.endings import Answer
from gateway.core.journey import Arrival, Journey
from gateway.core.rates import Rate, Standing
from gateway.live.pipe import Pipe
from gateway.ports import (
    Barred,
    Earlier,
    Entered,
    Entry,
    Kept,
    Left,
    LiveUnavailable,
    Orphan,
    Stage,
    Travelling,
    Waiting,
)

log = structlog.get_logger("gateway.live")

_SCRIPTS: Final = {
    name: files("gateway.live").joinpath(f"{name}.lua").read_text()
    for name in ("admit", "find", "inherit", "leave", "lost", "remember")
}
RENEWALS: Final = 3
"""A replica that has missed so many renewals of its lease holds no budget any more."""
INHERITED: Final = 100
"""Calls taken over at once."""
ENDLESS_S: Final = 86_400.0
"""How long the record of a call without a limit is kept."""
WAITERS_S: Final = 60.0
"""How long those that wait for a call may ask for its answer, though the next one is made."""
AFTER_S: Final = 60.0
"""How long a call that has ended is known as the one above those that it has started."""
MONTH_S: Final = 40 * 86_400.0
"""How long what was spent in a month is kept."""
LATER: Final = 10_000
"""Endings kept for a Redis that is away; the oldest are let go, and their records run out by themselves."""

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class Gate:
    """`ports.Gate` over one Redis, for the replica of this name.

    max_depth: the most calls in a chain. renew_s: how often the lease is renewed. kept_s: how long answers are kept.
    """

    def __init__(
        self,
        servers: Servers,
        *,
        replica: str,
        prefix: str,
        max_depth: int,
        answer_s: float,
        renew_s: float,
        kept_s: float,
    ) -> None:
        self._prefix = prefix
        self._max_depth = max_depth
        self._kept_s = kept_s
        self._replica = replica
        self._replicas = f"{prefix}:replicas"
        self._renew_s = renew_s
        self._lease = f"{prefix}:replica:"
        self._later: deque[Left] = deque(maxlen=LATER)
        self._written_later: deque[str] = deque(maxlen=LATER)
        self._renewed_at = self._lapsed_at = -math.inf
        self.ups = 0
        self.told = 0
        self._pipe = Pipe(servers, _SCRIPTS, answer_s=answer_s, on_up=self._begin)

    def __repr__(self) -> str:
        return f"<Gate {self._pipe!r} later={len(self._later)}>"

    @property
    def is_up(self) -> bool:
        """Whether Redis answers, as far as is known."""
        return self._pipe.is_up

    async def take(self, payer: str, rate: Rate) -> Standing:
        """Take one request out of a bucket. Raises LiveUnavailable."""
        keys = (self._bucket(payer), "")
        _, remaining, full_ms, retry_ms, *_ = await self._pipe.script("admit", keys, rate.requests, _ms(rate.period_s))
        return _standing(rate, remaining, full_ms, retry_ms)

    async def enter(self, entry: Entry) -> Entered:
        """Let a call begin, or not. Raises LiveUnavailable."""
        rate, budget = entry.rate, entry.budget
        serving = f"{self._prefix}:serving:{entry.trace_id}:"
        keys = (
            self._bucket(entry.payer),
            self._call(entry.call_id),
            self._call(entry.serves) if entry.serves is not None else "",
            f"{serving}{entry.caller_id}" if entry.caller_id is not None else "",
            f"{serving}{entry.target_id}",
            *(self._spend(entry.target_id, budget.month) if budget is not None else ("", "")),
            self._calls(self._replica) if entry.held else "",
            self._message(entry.claim) if entry.claim is not None else "",
        )
        arguments: list[str | int | bytes] = [
            rate.requests if rate is not None else 0,
            _ms(rate.period_s) if rate is not None else 0,
            self._replica,
            entry.caller_id or "",
            entry.target_id,
            -1 if entry.limit_s is None else _ms(entry.limit_s),
            _ms(ENDLESS_S),
            self._max_depth,
            entry.call_id,
            entry.trace_id,
            entry.method.encode(errors="replace"),
            self._lease,
            entry.claim.words if entry.claim is not None else "",
            _ms(self._kept_s),
            "" if entry.journey is None else orjson.dumps(entry.journey),
        ]
        if budget is not None:
            reserve = -1 if budget.reserve is None else budget.reserve
            arguments += [budget.limit, budget.priced, budget.reported, reserve, _ms(MONTH_S)]
        said = await self._pipe.script("admit", keys, *arguments)
        verdict, remaining, full_ms, retry_ms, depth, left_ms, held, *_ = said
        earlier = _earlier(said, entry.claim)
        return Entered(
            barred=None if verdict == b"yes" or earlier is not None else Barred(verdict.decode()),
            standing=None if rate is None else _standing(rate, remaining, full_ms, retry_ms),
            depth=depth,
            left_s=None if left_ms < 0 else left_ms / 1000,
            held=held,
            earlier=earlier,
            sure=self.told == self.ups,
        )

    async def look(self, claim: Claim) -> Earlier | None:
        """Return the call that has a claim. Raises LiveUnavailable."""
        keys = ("", "", "", "", "", "", "", "", self._message(claim))
        said = await self._pipe.script("admit", keys, 0, 0, self._replica, "", "", -1, 0, 0, "", "", "", self._lease)
        return _earlier(said, claim)

    async def find(self, call_id: str) -> Travelling | None:
        """Return a pushed call that has not ended, or has a moment ago. Raises LiveUnavailable."""
        said = await self._pipe.script("find", (self._call(call_id),))
        if said is None:
            return None
        target, caller, method, age_ms, limit_ms, journey, ended = said
        return Travelling(
            call_id=call_id,
            target_id=target.decode(),
            caller_id=caller.decode() or None,
            method=method.decode(),
            age_s=age_ms / 1000,
            journey=_within(Journey.from_json(orjson.loads(journey)), limit_ms),
            arrival=Arrival.from_json(orjson.loads(ended)) if ended else None,
        )

    async def remember(self, waiting: Waiting) -> None:
        """Say that a message's call waits, unless that is known. Raises LiveUnavailable."""
        keep_ms = _ms(waiting.left_s + ENDLESS_S + self._kept_s)
        keys = (self._message(waiting.claim),)
        await self._pipe.script("remember", keys, waiting.call_id, waiting.claim.words, keep_ms)

    def leave(self, left: Left) -> None:
        """Say that a call has ended, now or once Redis is back."""
        self._leave(left, left.cost)

    def _leave(self, left: Left, cost: int) -> None:
        kept = left.kept
        keys = (
            self._call(left.call_id),
            f"{self._prefix}:serving:{left.trace_id}:{left.target_id}",
            *(self._spend(left.target_id, left.month) if left.month else ("", "")),
            self._calls(self._replica),
            self._message(kept.claim) if kept is not None else "",
        )
        keep_ms = _ms(AFTER_S + (left.keep_s or 0.0))
        how = b"1" if left.arrival is None else orjson.dumps(left.arrival)
        arguments: list[str | int | bytes] = [self._replica, cost, keep_ms, _ms(MONTH_S), left.call_id, how]
        if kept is not None:
            arguments += [kept.claim.words, _ms(self._kept_for_s(left, kept)), _word(kept)]
            if kept.answer is None:
                arguments += [0, "", ""]
            else:
                arguments += [int(kept.answer.status), _lines(kept.answer.headers), kept.answer.body]
        try:
            said = self._pipe.script("leave", keys, *arguments)
        except LiveUnavailable:
            self._put_off(left)
            return
        said.add_done_callback(lambda one: self._put_off(left) if one.exception() is not None else None)

    def let_go(self, call_ids: Collection[str]) -> None:
        """Say that the rows of these calls are written, now or once Redis is back: nobody has to inherit them."""
        if not call_ids:
            return
        try:
            said = self._pipe.ask("SREM", self._calls(self._replica), *call_ids)
        except LiveUnavailable:
            self._written_later.extend(call_ids)
            return
        said.add_done_callback(
            lambda one: self._written_later.extend(call_ids) if one.exception() is not None else None
        )

    def _kept_for_s(self, left: Left, kept: Kept) -> float:
        """A call that waits may take its time when it is sent: until then it has to be known that it is there."""
        if kept.waits:
            return (left.keep_s or 0.0) + ENDLESS_S + self._kept_s
        return WAITERS_S if kept.again else self._kept_s

    def _put_off(self, left: Left) -> None:
        """Say it later, without the answer: so many could fill the memory."""
        kept = left.kept
        self._later.append(left if kept is None else replace(left, kept=replace(kept, answer=None)))

    def _begin(self) -> None:
        """Renew the lease, and say what has ended meanwhile: what that cost has been in the database for a while."""
        self.ups += 1
        self._renew()
        later, self._later = self._later, deque(maxlen=LATER)
        for left in later:
            self._leave(left, 0)
        written, self._written_later = self._written_later, deque(maxlen=LATER)
        self.let_go(written)

    async def has_lost(self, call_id: str, age_s: float) -> bool:
        """Return whether another replica has taken over a call of this one that began so long ago. Raises
        LiveUnavailable.

        It may, once this process was held up for longer than its lease lasts; who never was asks nobody.
        """
        now = monotonic()
        self._note_lapse(now)
        if now - age_s > self._lapsed_at:
            return False
        self._renew()  # from here on nobody takes over anything
        lost: int = await self._pipe.script("lost", (self._call(call_id), self._calls(self._replica)), call_id)
        return lost == 1

    def _note_lapse(self, now: float) -> None:
        if now - self._renewed_at >= RENEWALS * self._renew_s:
            self._lapsed_at = now

    def _renew(self) -> None:
        now = monotonic()
        self._note_lapse(now)
        self._renewed_at = now
        self._pipe.ask("SET", f"{self._lease}{self._replica}", 1, "PX", _ms(RENEWALS * self._renew_s))
        self._pipe.ask("SADD", self._replicas, self._replica)
        self._pipe.ask("PEXPIRE", self._replicas, _ms(ENDLESS_S))

    async def renew(self) -> None:
        """Keep the lease, for ever."""
        while True:
            if self._pipe.is_up:
                self._renew()
            await asyncio.sleep(self._renew_s)

    async def run(self) -> None:
        """Be connected, for ever."""
        await self._pipe.run()

    async def lapsed(self) -> Sequence[str]:
        """Return the replicas that may have calls in flight and have no lease. Raises LiveUnavailable."""
        replicas = [one.decode() for one in await self._pipe.ask("SMEMBERS", self._replicas)]
        leases = [self._pipe.ask("EXISTS", f"{self._lease}{one}") for one in replicas]
        return [one for one, lease in zip(replicas, leases, strict=True) if not await lease]

    async def inherit(self, replica: str) -> tuple[Sequence[Orphan], bool]:
        """Take over some calls of a replica without a lease; return them, and whether there may be more.

        Raises LiveUnavailable.
        """
        keys = (self._replicas, self._calls(replica), self._calls(self._replica), f"{self._lease}{replica}")
        count, *found = await self._pipe.script("inherit", keys, replica, self._call(""), INHERITED)
        return [_orphan(*fields) for fields in found], count > 0

    def _bucket(self, payer: str) -> str:
        return f"{self._prefix}:rate:{payer}"

    def _call(self, call_id: str) -> str:
        return f"{self._prefix}:call:{call_id}"

    def _calls(self, replica: str) -> str:
        return f"{self._prefix}:calls:{replica}"

    def _message(self, claim: Claim) -> str:
        return f"{self._prefix}:message:{claim.key}"

    def _spend(self, target_id: str, month: str) -> tuple[str, str]:
        return f"{self._prefix}:spend:{target_id}:{month}", f"{self._prefix}:reserved:{target_id}:{month}"


def _earlier(said: list[Any], claim: Claim | None) -> Earlier | None:
    """Return the earlier call that the script tells of, if it does."""
    if claim is None or said[0] != b"same":
        return None
    call_id, words, stage, again, status, headers, body = said[7:]
    answer = Answer(status=int(status), headers=_headers(headers), body=body) if status else None
    return Earlier(
        call_id=call_id.decode(),
        words=words.decode() == claim.words,
        stage=Stage(stage.decode()),
        answer=answer,
        again=again == b"1",
    )


def _word(kept: Kept) -> str:
    """What the scripts call the end of a call: whether the next one is made, or the ledger has this one."""
    return "waits" if kept.waits else str(int(kept.again))


def _lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they are kept; an agent's may hold bytes that are no text."""
    return "\n".join(f"{name}:{value}" for name, value in headers.items()).encode("utf-8", "surrogateescape")


def _headers(lines: bytes) -> dict[str, str]:
    said = (line.partition(":") for line in lines.decode("utf-8", "surrogateescape").split("\n"))
    return {name: value for name, _, value in said if name}


def _standing(rate: Rate, remaining: int, full_ms: int, retry_ms: int) -> Standing:
    return Standing(limit=rate.requests, remaining=remaining, reset_s=full_ms / 1000, retry_s=retry_ms / 1000)


def _orphan(
    call_id: bytes,
    target: bytes,
    caller: bytes,
    method: bytes,
    trace: bytes,
    age_ms: int,
    journey: bytes,
    ended: bytes,
) -> Orphan:
    return Orphan(
        call_id=call_id.decode(),
        target_id=target.decode(),
        caller_id=caller.decode() or None,
        method=method.decode(),
        trace_id=trace.decode(),
        age_s=age_ms / 1000,
        journey=Journey.from_json(orjson.loads(journey)) if journey else None,
        arrival=Arrival.from_json(orjson.loads(ended)) if ended else None,
    )


def _within(journey: Journey, limit_ms: int) -> Journey:
    """Return the journey with the limit that it has got, where the call that it serves leaves it less than it wants."""
    if limit_ms < 0 or (journey.limit_s is not None and _ms(journey.limit_s) <= limit_ms):
        return journey
    return replace(journey, limit_s=limit_ms / 1000, by_deadline=True)


def _ms(seconds: float) -> int:
    return math.ceil(seconds * 1000)


@asynccontextmanager
async def opened(
    url: str, *, replica: str, prefix: str, max_depth: int, answer_s: float, renew_s: float, kept_s: float
) -> AsyncIterator[Gate]:
    """Prepare the way to this URL. Redis need not answer yet; a malformed URL raises ValueError."""
    servers = Servers(url)
    try:
        yield Gate(
            servers,
            replica=replica,
            prefix=prefix,
            max_depth=max_depth,
            answer_s=answer_s,
            renew_s=renew_s,
            kept_s=kept_s,
        )
    finally:
        await servers.close()
