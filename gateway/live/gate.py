"""What all replicas decide together, in one round trip: rates, chains, deadlines, budgets, and who makes a call."""

from collections import deque
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib.resources import files
from typing import Final

import orjson

from events.bus import Stamp, unwatched
from events.redis import Servers
from gateway.core.claims import Claim
from gateway.core.rates import Rate, Standing
from gateway.live.claims import kept_arguments, read_earlier, waits_for_s
from gateway.live.leases import Leases
from gateway.live.pipe import Pipe
from gateway.live.records import AFTER_S, ENDLESS_S, MONTH_S, Keys, ms, read_travelling
from gateway.ports import Barred, Earlier, Entered, Entry, Left, LiveUnavailable, Travelling, Waiting

_SCRIPTS: Final = {
    name: files("gateway.live").joinpath(f"{name}.lua").read_text()
    for name in ("admit", "find", "inherit", "leave", "lost", "remember")
}
LATER: Final = 10_000
"""Endings kept for a Redis that is away; the oldest are let go, and their records run out by themselves."""


class Gate:
    """`ports.Gate` over one Redis, for the replica of this name, whose `leases` go the same way.

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
        self._keys = Keys(prefix)
        self._max_depth = max_depth
        self._kept_s = kept_s
        self._replica = replica
        self._own_calls = self._keys.in_hands_of(replica)
        self._later: deque[Left] = deque(maxlen=LATER)
        self._written_later: deque[str] = deque(maxlen=LATER)
        self.ups = 0
        self.told = 0
        self._pipe = Pipe(servers, _SCRIPTS, answer_s=answer_s, on_up=self._begin)
        self.leases = Leases(self._pipe, self._keys, replica=replica, renew_s=renew_s)

    def __repr__(self) -> str:
        return f"<Gate {self._pipe!r} later={len(self._later)}>"

    @property
    def is_up(self) -> bool:
        """Whether Redis answers, as far as is known."""
        return self._pipe.is_up

    async def take(self, payer: str, rate: Rate) -> Standing:
        """Take one request out of a bucket. Raises LiveUnavailable."""
        keys = (self._keys.bucket(payer), "")
        _, remaining, full_ms, retry_ms, *_ = await self._pipe.script("admit", keys, rate.requests, ms(rate.period_s))
        return _standing(rate, remaining, full_ms, retry_ms)

    async def enter(self, entry: Entry) -> Entered:
        """Let a call begin, or not. Raises LiveUnavailable."""
        rate, budget, names = entry.rate, entry.budget, self._keys
        keys = (
            names.bucket(entry.payer),
            names.call(entry.call_id),
            names.call(entry.serves) if entry.serves is not None else "",
            names.serving(entry.trace_id, entry.caller_id) if entry.caller_id is not None else "",
            names.serving(entry.trace_id, entry.target_id),
            *(names.spend(entry.target_id, budget.month) if budget is not None else ("", "")),
            self._own_calls if entry.held else "",
            names.claim(entry.claim) if entry.claim is not None else "",
        )
        arguments: list[str | int | bytes] = [
            rate.requests if rate is not None else 0,
            ms(rate.period_s) if rate is not None else 0,
            self._replica,
            entry.caller_id or "",
            entry.target_id,
            -1 if entry.limit_s is None else ms(entry.limit_s),
            ms(ENDLESS_S),
            self._max_depth,
            entry.call_id,
            entry.trace_id,
            entry.method.encode(errors="replace"),
            names.leases,
            entry.claim.words if entry.claim is not None else "",
            ms(self._kept_s),
            "" if entry.journey is None else orjson.dumps(entry.journey),
        ]
        if budget is not None:
            reserve = -1 if budget.reserve is None else budget.reserve
            arguments += [budget.limit, budget.priced, budget.reported, reserve, ms(MONTH_S)]
        said = await self._pipe.script("admit", keys, *arguments)
        verdict, remaining, full_ms, retry_ms, depth, left_ms, held, *_ = said
        earlier = read_earlier(said, entry.claim)
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
        names = self._keys
        keys = ("", "", "", "", "", "", "", "", names.claim(claim))
        said = await self._pipe.script("admit", keys, 0, 0, self._replica, "", "", -1, 0, 0, "", "", "", names.leases)
        return read_earlier(said, claim)

    async def find(self, call_id: str) -> Travelling | None:
        """Return a pushed call that has not ended, or has a moment ago. Raises LiveUnavailable."""
        said = await self._pipe.script("find", (self._keys.call(call_id),))
        return None if said is None else read_travelling(call_id, *said)

    async def remember(self, waiting: Waiting) -> None:
        """Say that a message's call waits, unless that is known. Raises LiveUnavailable."""
        keep_ms = ms(waits_for_s(waiting.left_s, self._kept_s))
        keys = (self._keys.claim(waiting.claim),)
        await self._pipe.script("remember", keys, waiting.call_id, waiting.claim.words, keep_ms)

    def leave(self, left: Left) -> None:
        """Say that a call has ended, now or once Redis is back."""
        self._leave(left, left.cost)

    def _leave(self, left: Left, cost: int) -> None:
        kept, names = left.kept, self._keys
        keys = (
            names.call(left.call_id),
            names.serving(left.trace_id, left.target_id),
            *(names.spend(left.target_id, left.month) if left.month else ("", "")),
            self._own_calls,
            names.claim(kept.claim) if kept is not None else "",
        )
        keep_ms = ms(AFTER_S + (left.keep_s or 0.0))
        how = b"1" if left.arrival is None else orjson.dumps(left.arrival)
        arguments: list[str | int | bytes] = [self._replica, cost, keep_ms, ms(MONTH_S), left.call_id, how]
        if kept is not None:
            arguments += kept_arguments(left, kept, self._kept_s)
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
            said = self._pipe.ask("SREM", self._own_calls, *call_ids)
        except LiveUnavailable:
            self._written_later.extend(call_ids)
            return
        said.add_done_callback(
            lambda one: self._written_later.extend(call_ids) if one.exception() is not None else None
        )

    def _put_off(self, left: Left) -> None:
        """Say it later, without the answer: so many could fill the memory."""
        kept = left.kept
        self._later.append(left if kept is None else replace(left, kept=replace(kept, answer=None)))

    def _begin(self) -> None:
        """Renew the lease, and say what has ended meanwhile: what that cost has been in the database for a while."""
        self.ups += 1
        self.leases.renew()
        later, self._later = self._later, deque(maxlen=LATER)
        for left in later:
            self._leave(left, 0)
        written, self._written_later = self._written_later, deque(maxlen=LATER)
        self.let_go(written)

    async def has_lost(self, call_id: str, age_s: float) -> bool:
        """Return whether another replica has taken over a call of this one that began so long ago. Raises
        LiveUnavailable."""
        return await self.leases.has_lost(call_id, age_s)

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Be connected, for ever."""
        await self._pipe.run(stamp)


def _standing(rate: Rate, remaining: int, full_ms: int, retry_ms: int) -> Standing:
    return Standing(limit=rate.requests, remaining=remaining, reset_s=full_ms / 1000, retry_s=retry_ms / 1000)


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
