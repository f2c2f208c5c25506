import asyncio

import pytest
from structlog.testing import capture_logs

from gateway.services.tasks import Tasks
from tests.harness.world import eventually


async def for_ever() -> None:
    await asyncio.Event().wait()


async def test_a_task_runs_under_its_name_and_is_let_go_when_it_ends():
    names = []

    async def work() -> None:
        names.append(asyncio.current_task().get_name())

    async with Tasks() as tasks:
        task = tasks.spawn(work(), "by name")
        assert len(tasks) == 1
        await task
        await eventually(lambda: len(tasks) == 0)
    assert (names, tasks.deaths) == (["by name"], 0)


async def test_a_death_is_logged_with_its_trace_and_counted():
    async def die() -> None:
        raise ZeroDivisionError("the reason")

    with capture_logs() as logs:
        async with Tasks() as tasks:
            tasks.spawn(die(), "mortal")
            await eventually(lambda: tasks.deaths)
    [entry] = logs
    assert (entry["event"], entry["name"], entry["log_level"]) == ("task_died", "mortal", "error")
    assert str(entry["exc_info"]) == "the reason"
    assert repr(tasks) == "<Tasks running=0 deaths=1>"


async def test_leaving_cancels_and_waits_until_all_have_ended():
    ended = []

    async def work() -> None:
        try:
            await for_ever()
        finally:
            await asyncio.sleep(0.01)
            ended.append(1)

    async with Tasks() as tasks:
        running = [tasks.spawn(work(), "slow to end"), tasks.spawn(work(), "too")]
        await asyncio.sleep(0)
    assert len(ended) == 2
    assert all(task.cancelled() for task in running)
    assert (len(tasks), tasks.deaths) == (0, 0)


async def test_what_a_task_starts_while_it_ends_is_ended_too():
    last_words = []

    async def heir() -> None:
        try:
            await for_ever()
        finally:
            last_words.append("heir")

    async with Tasks() as tasks:

        async def work() -> None:
            try:
                await for_ever()
            finally:
                tasks.spawn(heir(), "heir")
                await asyncio.sleep(0)

        tasks.spawn(work(), "parent")
        await asyncio.sleep(0)
    assert last_words == ["heir"]
    assert len(tasks) == 0


async def test_an_error_in_the_block_ends_the_tasks_and_goes_on():
    tasks = Tasks()

    async def fail() -> None:
        async with tasks:
            tasks.spawn(for_ever(), "left alone")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fail()
    assert len(tasks) == 0
