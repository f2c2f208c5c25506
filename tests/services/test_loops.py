"""services.loops: what ends is started again, what does not help is given up, and what hangs is seen."""

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from structlog.testing import capture_logs

from events.bus import Stamp
from gateway.ports import StoreUnavailable
from gateway.services import loops as module
from gateway.services.loops import HANGS_S, HEALTHY_S, RESTARTS, Loops, State
from gateway.services.outage import Outage
from tests.harness.world import eventually
from tests.services.memory import Clock

DOES = "Does what a test wants."


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses before restarts, none of which is made."""
    made: list[float] = []
    sleep = asyncio.sleep

    async def sleep_less(delay_s: float) -> None:
        if delay_s >= module.RESTART.first_s:
            made.append(delay_s)
        await sleep(0 if delay_s >= module.RESTART.first_s else delay_s)

    monkeypatch.setattr(module.asyncio, "sleep", sleep_less)
    return made


async def for_ever() -> None:
    await asyncio.Event().wait()


def ends(turns: list[int], *, raises: bool = True, then: Callable[[], Awaitable[None]] | None = None, after: int = 0):
    """Work that ends at once, until its turn `after`; then it does something else."""

    async def work(stamp: Stamp) -> None:
        turns.append(1)
        if then is not None and len(turns) > after:
            await then()
        if raises:
            raise ZeroDivisionError

    return work


async def test_a_loop_that_waited_for_what_was_cancelled_is_started_again() -> None:
    turns: list[int] = []

    async def work(stamp: Stamp) -> None:
        turns.append(1)
        if len(turns) == 1:
            cancelled = asyncio.get_running_loop().create_future()
            cancelled.cancel()
            await cancelled
        await for_ever()

    async with Loops() as loops:
        loops.loop(work, "one", "Turns.")
        await eventually(lambda: len(turns) == 2)
        [one] = loops.liveness()
        assert (one.state, one.restarts, one.last_error) == (State.RUNNING, 1, "CancelledError")
    assert len(loops) == 0, "and still ends when it is asked to"


async def test_a_loop_that_raises_or_returns_is_started_again_and_said_to_be() -> None:
    turns: list[int] = []

    async def work(stamp: Stamp) -> None:
        turns.append(1)
        if len(turns) == 1:
            raise ZeroDivisionError
        if len(turns) == 3:
            await for_ever()

    with capture_logs() as logs:
        async with Loops() as loops:
            loops.loop(work, "restless", DOES)
            await eventually(lambda: len(turns) == 3)
            [one] = loops.liveness()
            assert (loops.deaths, one.restarts, one.state) == (1, 2, State.RUNNING)
    assert [(entry["event"], entry["name"]) for entry in logs] == [
        ("loop_died", "restless"),
        ("loop_returned", "restless"),
    ]


async def test_a_timeout_inside_a_loop_is_a_death_like_any_other() -> None:
    turns: list[int] = []

    async def work(stamp: Stamp) -> None:
        turns.append(1)
        async with asyncio.timeout(0 if len(turns) == 1 else None):
            await for_ever()

    async with Loops() as loops:
        loops.loop(work, "late", DOES)
        await eventually(lambda: len(turns) == 2)
        [one] = loops.liveness()
        assert (loops.deaths, one.last_error) == (1, "TimeoutError")


@pytest.mark.parametrize("raises", [True, False])
async def test_a_loop_that_ends_again_and_again_is_started_ever_later_and_given_up(
    pauses: list[float], raises: bool
) -> None:
    turns: list[int] = []
    with capture_logs() as logs:
        async with Loops() as loops:
            loops.loop(ends(turns, raises=raises), "hopeless", DOES)
            await eventually(lambda: loops.worst is State.GAVE_UP)
            await eventually(lambda: len(loops) == 0)
            [one] = loops.liveness()
    assert (one.restarts, len(turns)) == (RESTARTS, RESTARTS + 1)
    assert one.last_error == ("ZeroDivisionError" if raises else None)
    assert pauses == [1, 2, 4, 8, 16, 30, 30, 30, 30, 30]
    assert logs[-1]["event"] == "loop_gave_up"


async def test_a_loop_that_ran_for_long_has_all_its_restarts_again(pauses: list[float]) -> None:
    turns: list[int] = []
    clock = Clock()

    async def run_long() -> None:
        clock.at += HEALTHY_S if len(turns) <= 2 * RESTARTS else 0

    async with Loops(now=clock) as loops:
        loops.loop(ends(turns, then=run_long), "sturdy", DOES)
        await eventually(lambda: loops.worst is State.GAVE_UP)
    assert len(turns) == 3 * RESTARTS
    assert pauses[: 2 * RESTARTS] == [1.0] * 2 * RESTARTS


async def test_a_loop_that_does_not_turn_hangs_until_it_does_and_one_that_waits_does_not() -> None:
    clock, go = Clock(), asyncio.Event()

    async def work(stamp: Stamp) -> None:
        while True:
            stamp()
            await go.wait()
            go.clear()

    async def wait(stamp: Stamp) -> None:
        stamp(idle=True)
        await for_ever()

    async with Loops(now=clock) as loops:
        loops.loop(work, "slow", DOES, hangs_s=5)
        loops.loop(wait, "patient", DOES, hangs_s=5)
        await asyncio.sleep(0)
        clock.at += 5
        assert [one.state for one in loops.liveness()] == [State.RUNNING, State.IDLE]
        clock.at += 1
        assert [(one.state, one.silent_s) for one in loops.liveness()] == [(State.HUNG, 6), (State.IDLE, 6)]
        assert (loops.worst, loops.crippled, loops.count(State.HUNG)) == (State.HUNG, False, 1)
        go.set()
        await eventually(lambda: loops.worst is State.RUNNING)


async def test_what_is_done_again_and_again_goes_on_while_a_datastore_is_away_and_starts_again_after_a_bug() -> None:
    turns: list[int] = []
    errors: list[Exception] = [StoreUnavailable("away"), StoreUnavailable("away"), ZeroDivisionError()]

    async def tick() -> None:
        turns.append(1)
        if errors:
            raise errors.pop(0)

    with capture_logs() as logs:
        async with Loops() as loops:
            loops.every(0.001, tick, "sweep", DOES, outage=Outage("sweeping"))
            await eventually(lambda: len(turns) >= 5)
            [one] = loops.liveness()
    told = [entry["event"] for entry in logs]
    assert told == ["outage_began", "loop_died", "outage_ended"]
    assert (one.last_error, one.hangs_s) == ("ZeroDivisionError", HANGS_S + 0.001)


async def test_a_turn_that_does_not_come_back_hangs() -> None:
    clock = Clock()
    async with Loops(now=clock) as loops:
        loops.every(60, for_ever, "stuck", DOES, outage=Outage("being stuck"), at_once=True)
        await asyncio.sleep(0)
        clock.at += 60 + HANGS_S
        assert loops.worst is State.RUNNING
        clock.at += 1
        assert loops.worst is State.HUNG


@pytest.mark.parametrize("shared", [True, False])
async def test_a_process_is_of_use_without_what_others_do_too(shared: bool) -> None:
    async with Loops() as loops:
        loops.loop(ends([]), "sweep", DOES, shared=shared)
        await eventually(lambda: loops.count(State.GAVE_UP) == 1)
        assert loops.crippled is not shared
