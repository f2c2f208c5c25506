from dataclasses import replace

import pytest

from gateway.core.budget import Spend
from gateway.core.prices import MILLION
from gateway.core.rates import Rate, Standing, Tariff
from gateway.core.refusals import Code, Refusal
from gateway.core.workspaces import Status, Workspace
from gateway.ports import Barred, Budget, Entered, Left
from gateway.services.entrance import Entrance, Wish
from gateway.services.tolls import Toll, Tolls
from tests.services.memory import Gate

TEN = Rate(requests=10, period_s=60.0)
TARGET, CALLER, ABOVE = (f"00000000-0000-4000-8000-00000000000{name}" for name in "abc")
YES = Entered(barred=None, standing=Standing(limit=10, remaining=3, reset_s=1.0), depth=1, left_s=None)
SPENT = Spend(month="2026-11", priced=7 * MILLION + 1, reported_cents=3)


@pytest.fixture
def gate() -> Gate:
    gate = Gate()
    gate.answer = YES
    return gate


@pytest.fixture
def tolls(gate) -> Tolls:
    return Tolls(gate, dict.fromkeys(Tariff, TEN))


@pytest.fixture
def entrance(gate, tolls) -> Entrance:
    return Entrance(gate, tolls, reserve_cents=2)


def toll(*, free: bool = False) -> Toll:
    return Toll(Tariff.CALL, "a", free=free)


def wish(serves: str | None = None, **fields: object) -> Wish:
    target = Workspace(id=TARGET, name="t", status=Status.ONLINE, spend=SPENT, **fields)
    return Wish(call_id="c", caller_id=CALLER, target=target, trace_id="t", method="m", serves=serves, limit_s=9.0)


async def refused(entrance: Entrance, paid: Toll | None = None, wanted: Wish | None = None) -> Code:
    with pytest.raises(Refusal) as error:
        await entrance.enter(paid or toll(), wanted or wish(budget_limit=10))
    return error.value.code


async def test_a_call_is_asked_for_in_one_turn_with_its_rate_its_chain_and_its_budget(entrance, gate):
    gate.answer = replace(YES, depth=3, left_s=4.5)
    paid = toll()
    ticket = await entrance.enter(paid, wish(serves=ABOVE.upper(), budget_limit=10))
    [entry] = gate.entries
    assert (entry.payer, entry.rate) == ("call:a", TEN)
    assert (entry.call_id, entry.caller_id, entry.target_id, entry.trace_id) == ("c", CALLER, TARGET, "t")
    assert (entry.serves, entry.limit_s, entry.method, entry.held) == (ABOVE, 9.0, "m", True)
    assert entry.budget == Budget(
        month="2026-11", limit=10 * MILLION, priced=7 * MILLION + 1, reported=3 * MILLION, reserve=2 * MILLION
    )
    assert (ticket.depth, ticket.left_s, ticket.month) == (3, 4.5, "2026-11")
    assert paid.standing is gate.answer.standing
    assert entrance.entered == 1
    entrance.leave(ticket, 17)
    assert gate.left == [Left(call_id="c", target_id=TARGET, trace_id="t", month="2026-11", cost=17)]


async def test_what_has_no_budget_and_no_rate_is_not_asked_for_them(entrance, gate):
    gate.answer = replace(YES, standing=None)
    ticket = await entrance.enter(toll(free=True), wish())
    [entry] = gate.entries
    assert (entry.rate, entry.budget, ticket.month) == (None, None, "")


@pytest.mark.parametrize("serves", ["", "nonsense", "'; drop", "x" * 1000])
async def test_what_is_not_the_id_of_a_call_is_served_by_nobody(entrance, gate, serves):
    await entrance.enter(toll(), wish(serves=serves))
    assert gate.entries[0].serves is None


@pytest.mark.parametrize(("barred", "code"), [(Barred.DEEP, Code.TOO_DEEP), (Barred.SPENT, Code.BUDGET_EXCEEDED)])
async def test_what_may_not_begin_is_told_why(entrance, gate, barred, code):
    gate.answer = replace(YES, barred=barred)
    paid = toll()
    assert await refused(entrance, paid) is code
    assert paid.standing is not None, "it has cost a request all the same"
    assert entrance.entered == 0


async def test_who_has_called_too_often_is_refused_and_then_without_asking(entrance, gate):
    empty = Standing(limit=10, remaining=0, reset_s=60.0, retry_s=4.2)
    gate.answer = replace(YES, barred=Barred.RATE, standing=empty)
    for _ in range(3):
        assert await refused(entrance) is Code.RATE_LIMITED
    assert len(gate.entries) == 1


async def test_while_redis_is_away_calls_go_on_unchecked_and_are_counted(entrance, gate, tolls):
    gate.away = True
    ticket = await entrance.enter(toll(), wish(budget_limit=10))
    assert (ticket.depth, ticket.left_s, tolls.unchecked, entrance.entered) == (1, None, 1, 0)
    entrance.leave(ticket, 5)
    assert gate.left[0].cost == 5
