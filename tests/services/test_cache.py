import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.ports import StoreUnavailable
from gateway.services.cache import Cache
from tests.services.memory import Clock


class Loads:
    """Loads that the test lets through one by one; each answers with what `values` held when it began to read."""

    def __init__(self) -> None:
        self.values: dict[str, str] = {}
        self.waiting: list[asyncio.Future[None]] = []
        self.asked = 0
        self.away = False
        self.held = False

    async def __call__(self, key: str) -> str | None:
        self.asked += 1
        value = self.values.get(key)
        if self.held:
            gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self.waiting.append(gate)
            await gate
        if self.away:
            raise StoreUnavailable("away")
        return value


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def loads() -> Loads:
    return Loads()


@pytest.fixture
def cache(loads, clock) -> Cache[str, str]:
    return Cache(loads, ttl_s=10, capacity=3, now=clock)


async def begin(group: asyncio.TaskGroup, cache: Cache[str, str], loads: Loads) -> "asyncio.Task[str | None]":
    """Start a find and return it once it is held in its load."""
    before = len(loads.waiting)
    task = group.create_task(cache.find("a"))
    await asyncio.sleep(0)
    assert len(loads.waiting) == before + 1
    return task


async def test_a_value_is_loaded_once_and_again_when_it_is_old(cache, loads, clock):
    loads.values["a"] = "old"
    assert await cache.find("a") == "old"
    loads.values["a"] = "new"
    clock.at += 9.9
    assert (await cache.find("a"), cache.peek("a"), loads.asked) == ("old", "old", 1)
    clock.at += 0.2
    assert cache.peek("a") is None
    assert (await cache.find("a"), loads.asked) == ("new", 2)


async def test_the_age_of_a_value_counts_from_the_question_not_from_the_answer(cache, loads, clock):
    loads.values["a"] = "value"
    loads.held = True
    async with asyncio.TaskGroup() as group:
        await begin(group, cache, loads)
        clock.at += 9
        loads.waiting[0].set_result(None)
    assert cache.peek("a") == "value"
    clock.at += 2
    assert cache.peek("a") is None


async def test_what_does_not_exist_is_asked_for_every_time(cache, loads):
    assert await cache.find("a") is None
    loads.values["a"] = "born"
    assert await cache.find("a") == "born"
    assert repr(cache) == "<Cache kept=1 loading=0>"


async def test_what_is_gone_is_not_kept_any_longer(cache, loads, clock):
    loads.values["a"] = "value"
    await cache.find("a")
    del loads.values["a"]
    clock.at += 11
    assert await cache.find("a") is None
    loads.away = True
    with pytest.raises(StoreUnavailable):
        await cache.find("a", stale_s=100)


async def test_a_load_that_was_overtaken_answers_its_caller_and_is_not_kept(cache, loads):
    loads.values["a"] = "old"
    loads.held = True
    async with asyncio.TaskGroup() as group:
        overtaken = await begin(group, cache, loads)
        loads.values["a"] = "new"
        cache.forget("a")
        loads.waiting[0].set_result(None)
    assert overtaken.result() == "old"
    assert cache.peek("a") is None
    loads.held = False
    assert await cache.find("a") == "new"


async def test_of_two_loads_around_a_change_the_later_one_is_kept_whichever_ends_last(cache, loads):
    for order in ((0, 1), (1, 0)):
        loads.waiting, loads.held = [], True
        loads.values["a"] = "old"
        async with asyncio.TaskGroup() as group:
            before = await begin(group, cache, loads)
            loads.values["a"] = "new"
            cache.forget("a")
            after = await begin(group, cache, loads)
            for place in order:
                loads.waiting[place].set_result(None)
                await asyncio.sleep(0)
        assert (before.result(), after.result()) == ("old", "new")
        assert cache.peek("a") == "new", f"ended in the order {order}"
        cache.forget("a")


async def test_a_change_during_a_load_with_several_waiters_keeps_none_of_their_answers(cache, loads):
    loads.values["a"] = "old"
    loads.held = True
    async with asyncio.TaskGroup() as group:
        finds = [await begin(group, cache, loads) for _ in range(3)]
        loads.waiting[1].set_result(None)
        await finds[1]
        assert cache.peek("a") == "old"
        cache.forget("a")
        for place in (0, 2):
            loads.waiting[place].set_result(None)
    assert [find.result() for find in finds] == ["old"] * 3
    assert cache.peek("a") is None
    assert repr(cache) == "<Cache kept=0 loading=0>"


async def test_concurrent_finds_all_get_the_value_and_leave_one_entry(cache, loads):
    loads.values["a"] = "value"
    loads.held = True
    async with asyncio.TaskGroup() as group:
        finds = [await begin(group, cache, loads) for _ in range(5)]
        for gate in reversed(loads.waiting):
            gate.set_result(None)
    assert {find.result() for find in finds} == {"value"}
    assert repr(cache) == "<Cache kept=1 loading=0>"


async def test_a_find_that_is_cancelled_leaves_nothing_behind(cache, loads):
    loads.values["a"] = "value"
    loads.held = True
    async with asyncio.TaskGroup() as group:
        find = await begin(group, cache, loads)
        find.cancel()
    assert repr(cache) == "<Cache kept=0 loading=0>"


async def test_while_the_store_is_away_an_old_value_answers_for_as_long_as_its_asker_allows(cache, loads, clock):
    loads.values["a"] = "value"
    await cache.find("a")
    loads.away = True
    clock.at += 20
    assert await cache.find("a", stale_s=30) == "value"
    for stale_s in (0.0, 19.9):
        with pytest.raises(StoreUnavailable):
            await cache.find("a", stale_s=stale_s)
    cache.forget("a")
    with pytest.raises(StoreUnavailable):
        await cache.find("a", stale_s=1000)


async def test_the_oldest_go_when_it_is_full_and_a_reloaded_one_is_young_again(cache, loads, clock):
    loads.values = {key: key for key in "abcd"}
    for key in "abc":
        await cache.find(key)
    clock.at += 11
    await cache.find("a")
    clock.at -= 11
    await cache.find("d")
    assert [cache.peek(key) for key in "abcd"] == ["a", None, "c", "d"]


steps = st.tuples(st.sampled_from(["find", "change", "finish", "wait"]), st.integers(0, 5))


@given(st.lists(steps, max_size=25))
def test_whatever_the_order_no_value_outlives_a_change_that_was_told(some):
    """Each find reads when it begins; a change forgets. What is kept must be the value as it is now."""

    async def run() -> None:
        loads, clock = Loads(), Clock()
        loads.held = True
        loads.values["a"] = "0"
        cache: Cache[str, str] = Cache(loads, ttl_s=10, capacity=2, now=clock)
        async with asyncio.TaskGroup() as group:
            for number, (what, place) in enumerate(some, 1):
                match what:
                    case "find" if cache.peek("a") is None:
                        await begin(group, cache, loads)
                    case "change":
                        loads.values["a"] = str(number)
                        cache.forget("a")
                    case "finish" if loads.waiting:
                        loads.waiting.pop(place % len(loads.waiting)).set_result(None)
                        for _ in range(3):
                            await asyncio.sleep(0)
                    case "wait":
                        clock.at += place
                assert cache.peek("a") in (None, loads.values["a"])
            for gate in loads.waiting:
                gate.set_result(None)
        assert cache.peek("a") in (None, loads.values["a"])
        assert "loading=0" in repr(cache)

    asyncio.run(run())
