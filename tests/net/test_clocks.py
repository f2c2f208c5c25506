import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import cast

import pytest

from gateway.core.journey import Sign
from gateway.core.outcomes import Clock
from gateway.net.clocks import CONFIRM_S, RECHECK_S, ClockExpired, Clocks
from gateway.ports import StoreUnavailable
from gateway.services.tasks import Tasks
from tests.harness.liveness import ScriptedLiveness
from tests.harness.virtual import VirtualLoop

EMPTY = "<Clocks cells=0 suspects=0>"


def away(_: Sequence[str]) -> Mapping[str, float]:
    raise StoreUnavailable("nobody answers")


def broken(_: Sequence[str]) -> Mapping[str, float]:
    raise RuntimeError("a bug")


class Bench:
    """Clocks, with calls on them."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self.liveness = ScriptedLiveness()
        self.clocks = Clocks(silence=self.liveness, spawn=tasks.spawn, bus_lost_s=60)
        self.loop = cast(VirtualLoop, asyncio.get_running_loop())

    async def silent_call(
        self,
        workspace: str = "w",
        *,
        idle_s: float = 10,
        limit_s: float | None = None,
        limit: Clock = Clock.CEILING,
        touches: Sequence[float] = (),
    ) -> tuple[Clock, float]:
        """Return which clock ended a call that is never answered, and after how many seconds."""
        started = self.loop.time()
        try:
            async with self.clocks.watch(workspace, idle_s=idle_s, limit_s=limit_s, limit=limit) as watch:
                for after_s in touches:
                    self.loop.call_later(after_s, watch.touch)
                await asyncio.Event().wait()
        except ClockExpired as expired:
            return expired.clock, self.loop.time() - started
        raise AssertionError("the block ended by itself")

    def later(self, after_s: float, what: str = "w") -> None:
        """Show life of a workspace in a while."""
        self.loop.call_later(after_s, self.clocks.stamp, what)


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Tasks() as tasks:
        bench = Bench(tasks)
        yield bench
        assert repr(bench.clocks) == EMPTY
        await asyncio.sleep(0)
        assert (len(tasks), tasks.deaths, bench.loop.timers) == (0, 0, 0)


async def test_silence_ends_a_call_when_its_idle_time_is_over(bench: Bench):
    assert await bench.silent_call() == (Clock.IDLE, pytest.approx(10))


async def test_a_call_that_is_answered_in_time_leaves_nothing_behind(bench: Bench):
    async with bench.clocks.watch("w", idle_s=10, limit_s=20, limit=Clock.CEILING):
        await asyncio.sleep(9)
        assert repr(bench.clocks) == "<Clocks cells=1 suspects=0>"


async def test_an_error_of_the_block_goes_through_as_it_is(bench: Bench):
    with pytest.raises(ZeroDivisionError):
        async with bench.clocks.watch("w", idle_s=10, limit_s=None, limit=Clock.CEILING):
            raise ZeroDivisionError


async def test_a_sign_of_life_starts_the_idle_time_afresh(bench: Bench):
    bench.later(4)
    bench.later(9)
    assert await bench.silent_call() == (Clock.IDLE, pytest.approx(19))


async def test_a_sign_of_life_of_another_workspace_does_not_count(bench: Bench):
    bench.later(9, "another")
    assert await bench.silent_call() == (Clock.IDLE, pytest.approx(10))


async def test_a_sign_of_life_from_before_the_call_neither_shortens_nor_lengthens_it(bench: Bench):
    async with bench.clocks.watch("w", idle_s=100, limit_s=None, limit=Clock.CEILING):
        bench.clocks.stamp("w")
        await asyncio.sleep(9)
        assert await bench.silent_call() == (Clock.IDLE, pytest.approx(10))


async def test_bytes_of_its_own_answer_keep_a_call_alive_and_no_other(bench: Bench):
    answered, other = await asyncio.gather(bench.silent_call(touches=[8]), bench.silent_call())
    assert answered == (Clock.IDLE, pytest.approx(18))
    assert other == (Clock.IDLE, pytest.approx(10))


@pytest.mark.parametrize("limit", [Clock.DEADLINE, Clock.CEILING])
async def test_the_total_time_holds_whatever_life_is_shown(bench: Bench, limit: Clock):
    for second in range(1, 30):
        bench.later(second)
    assert await bench.silent_call(limit_s=25, limit=limit) == (limit, pytest.approx(25))
    await asyncio.sleep(5)


async def test_a_total_time_shorter_than_the_idle_time_ends_the_call_first(bench: Bench):
    assert await bench.silent_call(limit_s=3, limit=Clock.DEADLINE) == (Clock.DEADLINE, pytest.approx(3))
    assert bench.liveness.asked == []


async def test_what_the_database_heard_keeps_a_call_alive(bench: Bench):
    bench.liveness.takes_s = 1.0
    bench.liveness.answer = lambda _: {"w": 4.0 if bench.loop.time() < 12 else 100.0}
    assert await bench.silent_call() == (Clock.IDLE, pytest.approx(17))
    assert len(bench.liveness.asked) == 2


async def test_suspects_of_one_turn_are_confirmed_by_one_question(bench: Bench):
    endings = await asyncio.gather(*(bench.silent_call(name) for name in "abca"))
    assert {clock for clock, _ in endings} == {Clock.IDLE}
    assert bench.liveness.asked == [["a", "b", "c"]]


async def test_who_becomes_a_suspect_while_the_database_is_asked_is_asked_about_next(bench: Bench):
    bench.liveness.takes_s = 1.0
    endings = await asyncio.gather(bench.silent_call("a"), bench.silent_call("b", idle_s=10.5))
    assert bench.liveness.asked == [["a"], ["b"]]
    assert [after_s for _, after_s in endings] == [pytest.approx(11), pytest.approx(12)]


async def test_who_is_answered_before_the_question_is_not_asked_about(bench: Bench):
    bench.liveness.takes_s = 1.0
    async with asyncio.TaskGroup() as group:
        group.create_task(bench.silent_call("a"))
        async with bench.clocks.watch("b", idle_s=10.5, limit_s=None, limit=Clock.CEILING):
            await asyncio.sleep(10.7)
    assert bench.liveness.asked == [["a"]]


async def test_a_sign_of_life_while_the_database_is_asked_counts(bench: Bench):
    bench.liveness.takes_s = 1.0
    bench.liveness.answer = lambda _: {"w": 100.0}
    bench.later(10.5)
    assert await bench.silent_call() == (Clock.IDLE, pytest.approx(21.5))


async def test_a_call_that_is_answered_while_the_database_is_asked_is_left_alone(bench: Bench):
    bench.liveness.takes_s = 1.0
    async with bench.clocks.watch("w", idle_s=10, limit_s=None, limit=Clock.CEILING):
        await asyncio.sleep(10.5)
    await asyncio.sleep(10)


async def test_the_total_time_holds_while_the_database_is_asked(bench: Bench):
    bench.liveness.takes_s = 1.0
    assert await bench.silent_call(limit_s=10.5) == (Clock.CEILING, pytest.approx(10.5))
    await asyncio.sleep(1)


@pytest.mark.parametrize("answer", [away, broken])
async def test_a_silence_that_cannot_be_confirmed_ends_nothing_until_the_bus_is_lost(bench: Bench, answer):
    bench.liveness.answer = answer
    assert await bench.silent_call() == (Clock.BUS_LOST, pytest.approx(70))
    assert len(bench.liveness.asked) == 60 / RECHECK_S + 1


async def test_a_database_that_hangs_is_one_that_cannot_confirm(bench: Bench):
    bench.liveness.takes_s = 1e6
    clock, after_s = await bench.silent_call()
    assert clock is Clock.BUS_LOST
    assert 70 <= after_s <= 70 + RECHECK_S + CONFIRM_S


async def test_a_database_that_comes_back_decides(bench: Bench):
    bench.liveness.answer = away
    bench.loop.call_at(12, setattr, bench.liveness, "answer", lambda _: {"w": 100.0})
    assert await bench.silent_call() == (Clock.IDLE, pytest.approx(10 + RECHECK_S))


async def test_two_short_silences_that_nobody_could_confirm_are_not_one_long_one(bench: Bench):
    bench.liveness.answer = away
    for second in (12, 60):
        bench.later(second)
    assert await bench.silent_call() == (Clock.BUS_LOST, pytest.approx(70 + 60))


async def test_a_sign_of_life_at_the_last_moment_saves_a_call_from_a_lost_bus(bench: Bench):
    bench.liveness.answer = away
    bench.liveness.takes_s = 1.0
    bench.later(70.5)
    clock, after_s = await bench.silent_call()
    assert clock is Clock.BUS_LOST
    assert after_s > 80.5 + 60


async def test_a_cancel_from_outside_is_a_cancel_even_at_the_moment_of_expiry(bench: Bench):
    async with asyncio.TaskGroup() as group:
        call = group.create_task(bench.silent_call(limit_s=5))
        await asyncio.sleep(0)
        bench.loop.call_at(5, call.cancel)
    assert call.cancelled()


async def test_after_an_expiry_the_task_does_not_count_as_cancelled(bench: Bench):
    await bench.silent_call(limit_s=5)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_it_is_told_what_set_the_clock_back_last_and_when(bench: Bench):
    async with bench.clocks.watch("w", idle_s=10, limit_s=None, limit=Clock.CEILING) as watch:
        assert watch.last_reset() == (Sign.SENT, 0)
        await asyncio.sleep(1)
        bench.clocks.stamp("w")
        await asyncio.sleep(1)
        assert watch.last_reset() == (Sign.WORKSPACE, 1)
        watch.touch()
        await asyncio.sleep(1)
        assert (watch.last_reset(), watch.age_s) == ((Sign.ANSWER, 2), 3)
