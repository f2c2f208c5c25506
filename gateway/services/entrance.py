"""Whether a call may begin now: its rate, the depth of its chain, its target's budget; and that it has ended."""

from dataclasses import dataclass, replace
from typing import Final, assert_never

import structlog

from gateway import ports
from gateway.core import budget
from gateway.core.claims import Claim
from gateway.core.ids import find_uuid
from gateway.core.journey import Arrival, Journey
from gateway.core.prices import MILLION
from gateway.core.refusals import Code, Refusal
from gateway.core.workspaces import Workspace
from gateway.services.tolls import Toll, Tolls

log = structlog.get_logger("gateway.entrance")

METHOD_CHARS: Final = 200
"""How much of a method's name is shown and kept: it is the caller's word."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Wish:
    """A call that wants to begin. `serves` is what the caller says that it serves, whatever that is; `holds`: whether
    this process has it in its hands until its end, with a part of its target's budget; `claim`: what makes another call
    the same; `journey`: how it is about to travel."""

    call_id: str
    caller_id: str | None
    target: Workspace
    trace_id: str
    method: str
    serves: str | None
    limit_s: float | None
    holds: bool = True
    claim: Claim | None = None
    journey: Journey | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Ticket:
    """A call that has begun, unless there is an `earlier` one that is the same.

    `left_s` is what is left to the call that it serves, None if that may take for ever; `held`, in millionths of a
    cent, what it holds of its target's budget. `sure`: there is no other that Redis does not know of.
    """

    call_id: str
    target_id: str
    trace_id: str
    month: str
    depth: int = 1
    left_s: float | None = None
    held: int = 0
    earlier: ports.Earlier | None = None
    sure: bool = True

    def within(self, seconds: float) -> float:
        """Return these seconds, or what is left."""
        return seconds if self.left_s is None else min(seconds, self.left_s)


class Entrance:
    """Lets calls begin. reserve_cents: the least that is held of a budget for a call under way."""

    def __init__(self, gate: ports.Gate, tolls: Tolls, *, reserve_cents: int) -> None:
        self._gate = gate
        self._tolls = tolls
        self._reserve = reserve_cents * MILLION
        self.entered = 0
        """Calls that all replicas together have let begin."""

    async def enter(self, toll: Toll, wish: Wish) -> Ticket:
        """Let a call begin; refuses with rate_limited, too_deep or budget_exceeded.

        While Redis is away none of them is checked but what the database knows to be spent: that is counted.
        """
        self._tolls.check(toll)
        target = wish.target
        month = target.spend.month if target.budget_limit is not None else ""
        ticket = Ticket(call_id=wish.call_id, target_id=target.id, trace_id=wish.trace_id, month=month)
        try:
            entered = await self._gate.enter(self._entry(toll, wish))
        except ports.LiveUnavailable as error:
            self._tolls.missed(error)
            return replace(ticket, sure=False)
        if entered.standing is not None:
            self._tolls.settle(toll, entered.standing)
        match entered.barred:
            case None:
                self.entered += entered.earlier is None
                return Ticket(
                    call_id=ticket.call_id,
                    target_id=ticket.target_id,
                    trace_id=ticket.trace_id,
                    month=month,
                    depth=entered.depth,
                    left_s=entered.left_s,
                    held=entered.held,
                    earlier=entered.earlier,
                    sure=entered.sure,
                )
            case ports.Barred.DEEP:
                log.warning("call_too_deep", target_id=target.id, caller_id=wish.caller_id, depth=entered.depth)
                raise Refusal(Code.TOO_DEEP, "too many calls wait for one another")
            case ports.Barred.SPENT:
                raise over_budget()
            case ports.Barred.RATE:
                raise AssertionError("settling refuses it")
            case never:
                assert_never(never)

    def _entry(self, toll: Toll, wish: Wish) -> ports.Entry:
        target = wish.target
        spend = target.spend
        return ports.Entry(
            payer=toll.payer,
            rate=self._tolls.rate(toll),
            call_id=wish.call_id,
            caller_id=wish.caller_id,
            target_id=target.id,
            trace_id=wish.trace_id,
            method=wish.method[:METHOD_CHARS],
            held=wish.holds,
            serves=find_uuid(wish.serves) if wish.serves is not None else None,
            limit_s=wish.limit_s,
            claim=wish.claim,
            journey=wish.journey,
            budget=None
            if target.budget_limit is None
            else ports.Budget(
                month=spend.month,
                limit=target.budget_limit * MILLION,
                priced=spend.priced,
                reported=spend.reported_cents * MILLION,
                reserve=self._reserve if wish.holds else None,
            ),
        )

    def leave(
        self,
        ticket: Ticket,
        cost: int,
        kept: ports.Kept | None = None,
        *,
        arrival: Arrival | None = None,
        waits_s: float | None = None,
    ) -> None:
        """Say that a call has ended, what it cost (millionths of a cent) and what is kept of it; nothing here waits.

        arrival: how it ended, of one that was sent. waits_s: it has not ended, but is not under way for so long, and
        begins again as deep in its chain as it was.
        """
        self._gate.leave(
            ports.Left(
                call_id=ticket.call_id,
                target_id=ticket.target_id,
                trace_id=ticket.trace_id,
                month=ticket.month,
                cost=cost,
                keep_s=waits_s,
                kept=kept,
                arrival=arrival,
            )
        )

    async def knows(self, call_id: str) -> bool:
        """Return whether this is a pushed call, as far as Redis can say: one under way, which has no row yet."""
        try:
            return await self._gate.find(call_id) is not None
        except ports.LiveUnavailable:
            return False

    async def has_lost(self, ticket: Ticket, age_s: float) -> bool:
        """Return whether another replica has a call by now that began here so long ago, and has ended it or will."""
        try:
            return await self._gate.has_lost(ticket.call_id, age_s)
        except ports.LiveUnavailable:  # whoever took it over has had Redis, and this one's end is told once more
            return False

    def release(self, earlier: ports.Earlier, target: Workspace, claim: Claim) -> None:
        """Say of a call that waited that it is over, so that the next one with its claim begins."""
        ticket = Ticket(call_id=earlier.call_id, target_id=target.id, trace_id="", month="")
        self.leave(ticket, 0, ports.Kept(claim=claim, again=True))

    def answered(self, target: Workspace, call_id: str, cost: int) -> None:
        """Say that a call was answered out of its inbox, and what that cost; nothing here waits."""
        month = "" if target.budget_limit is None else target.spend.month
        self.leave(Ticket(call_id=call_id, target_id=target.id, trace_id="", month=month), cost)


def check_budget(target: Workspace) -> None:
    """Refuse a call to a workspace that is known to have spent what it may."""
    if budget.exhausted(target.budget_limit, target.spend):
        raise over_budget()


def over_budget() -> Refusal:
    """Refuse because a workspace has spent what it may."""
    return Refusal(Code.BUDGET_EXCEEDED, "workspace budget limit exceeded")
