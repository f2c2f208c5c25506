import asyncio

from gateway.services import wakes as waking
from gateway.services.wakes import Wakes, heard

LONG_S = 30.0


def stays() -> bool:
    return False


async def test_all_who_wait_for_a_thing_are_woken_and_nobody_else():
    wakes = Wakes(capacity=10)
    with wakes.waiting("a") as first, wakes.waiting("a") as second, wakes.waiting("b") as other:
        wakes.wake("a")
        wakes.wake("nobody waits for this")
        assert [one.is_set() for one in (first, second, other)] == [True, True, False]
        assert len(wakes) == 3


async def test_what_happens_between_the_look_and_the_waiting_is_heard():
    wakes = Wakes(capacity=10)
    with wakes.waiting("a") as woken:
        wakes.wake("a")
        async with asyncio.timeout(LONG_S / 3):
            await heard(woken, LONG_S, stays)


async def test_a_wait_ends_by_itself():
    with Wakes(capacity=10).waiting("a") as woken:
        await heard(woken, 0.01, stays)
        assert not woken.is_set()
        await heard(woken, -1.0, stays)


async def test_nothing_is_left_of_those_who_have_gone():
    wakes = Wakes(capacity=2)
    with wakes.waiting("a"):
        with wakes.waiting("a"):
            assert wakes.full
        assert "a" in wakes
    assert (len(wakes), "a" in wakes, wakes.full) == (0, False, False)
    assert repr(wakes) == "<Wakes waiting=0 closed=False>"


async def test_once_it_is_closed_nobody_waits():
    wakes = Wakes(capacity=10)
    with wakes.waiting("a") as before:
        wakes.close()
        with wakes.waiting("b") as after:
            async with asyncio.timeout(LONG_S / 3):
                await heard(before, LONG_S, stays)
                await heard(after, LONG_S, stays)


async def test_nobody_waits_for_those_who_have_hung_up(monkeypatch):
    monkeypatch.setattr(waking, "LOOK_S", 0.02)
    looks = iter([False, False, True])
    with Wakes(capacity=10).waiting("a") as woken:
        async with asyncio.timeout(LONG_S / 3):
            await heard(woken, LONG_S, lambda: next(looks))
        assert not woken.is_set()


async def test_a_wait_is_as_long_as_it_was_asked_for_though_it_is_cut_in_pieces(monkeypatch):
    monkeypatch.setattr(waking, "LOOK_S", 0.03125)
    looks: list[bool] = []
    with Wakes(capacity=10).waiting("a") as woken:
        await heard(woken, 0.125, lambda: looks.append(True) or False)
    assert len(looks) == 4
