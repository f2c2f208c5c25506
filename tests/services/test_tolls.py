import pytest

from gateway.core.rates import Rate, Standing, Tariff
from gateway.core.refusals import Code, Refusal
from gateway.services import tolls
from gateway.services.tolls import Toll, Tolls, of_address
from tests.services.memory import Clock, Gate

TEN = Rate(requests=10, period_s=60.0)
EMPTY = Standing(limit=10, remaining=0, reset_s=60.0, retry_s=4.2)
RATES = {**dict.fromkeys(Tariff, TEN), Tariff.BEAT: None}


@pytest.fixture
def gate() -> Gate:
    return Gate()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def office(gate, clock) -> Tolls:
    return Tolls(gate, RATES, now=clock)


def call(payer: str = "a") -> Toll:
    return Toll(Tariff.CALL, payer)


async def refused(office: Tolls, toll: Toll) -> Refusal:
    with pytest.raises(Refusal) as error:
        await office.take(toll)
    assert error.value.code is Code.RATE_LIMITED
    return error.value


async def test_what_has_been_taken_stands_on_the_toll(office, gate):
    toll = call()
    await office.take(toll)
    assert gate.taken == [("call:a", TEN)]
    assert toll.standing is gate.standing
    assert (office.refused, office.unchecked) == (0, 0)


@pytest.mark.parametrize("toll", [Toll(Tariff.CALL, "a", free=True), Toll(Tariff.FREE, "a"), Toll(Tariff.BEAT, "a")])
async def test_what_is_free_or_off_costs_nothing(office, gate, toll):
    await office.take(toll)
    assert (gate.taken, toll.standing) == ([], None)


async def test_who_has_nothing_left_is_refused_and_told_when_to_come_back(office, gate):
    gate.standing = EMPTY
    toll = call()
    refusal = await refused(office, toll)
    assert refusal.retry_after_s == 5, "whole seconds, rounded up"
    assert toll.standing.headers() == {
        "X-RateLimit-Limit": "10",
        "X-RateLimit-Remaining": "0",
        "X-RateLimit-Reset": "60",
    }
    assert office.refused == 1


async def test_who_has_nothing_left_is_refused_here_until_there_is_something_again(office, gate, clock):
    gate.standing = EMPTY
    await refused(office, call())
    clock.at += 2
    again = call()
    refusal = await refused(office, again)
    assert len(gate.taken) == 1, "Redis is not asked"
    assert refusal.retry_after_s == 3
    assert (again.standing.retry_s, again.standing.reset_s) == (pytest.approx(2.2), pytest.approx(58))
    await refused(office, call())
    gate.standing = Standing(limit=10, remaining=9, reset_s=1.0)
    await office.take(call("b"))
    await office.take(Toll(Tariff.REQUEST, "a"))
    clock.at += 2.3
    await office.take(call())
    assert gate.taken[-1] == ("call:a", TEN)


async def test_those_who_are_refused_here_are_bounded(office, gate, monkeypatch):
    monkeypatch.setattr(tolls, "BARRED", 3)
    gate.standing = EMPTY
    for name in "abcde":
        await refused(office, call(name))
    asked = len(gate.taken)
    await refused(office, call("e"))
    assert len(gate.taken) == asked
    await refused(office, call("a"))
    assert len(gate.taken) == asked + 1, "the oldest was forgotten, and Redis told it again"


async def test_while_redis_is_away_everybody_goes_on_and_is_counted(office, gate):
    gate.away = True
    for number in range(1, 4):
        toll = call()
        await office.take(toll)
        assert (toll.standing, office.unchecked) == (None, number)


def test_one_network_of_version_six_is_one_payer():
    assert of_address("2001:db8:1:2::1") == of_address("2001:db8:1:2:ffff::9")
    assert of_address("2001:db8:1:2::1") != of_address("2001:db8:1:3::1")
    assert of_address("192.0.2.1") != of_address("192.0.2.2")
