"""runtime.spawn: tasks have a name, an owner and an awaited end."""

import asyncio
import logging

from runtime.spawn import Tasks


async def test_leaving_the_block_cancels_and_awaits_what_still_runs():
    ended = []

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            ended.append(True)

    async with Tasks() as tasks:
        task = tasks.spawn(work(), name="w")
        await asyncio.sleep(0)
        assert "'w'" in repr(tasks)
    assert ended == [True]
    assert task.cancelled()


async def test_a_death_is_logged_with_the_name_of_the_task(caplog, wait_until):
    async def fall():
        raise ValueError("over")

    async with Tasks() as tasks:
        task = tasks.spawn(fall(), name="faller")
        await wait_until(task.done)
        await wait_until(lambda: caplog.records)
    assert "task_died name=faller" in caplog.text
    assert "ValueError: over" in caplog.text


async def test_a_task_that_ignores_cancellation_is_named_and_does_not_hang_the_end(caplog):
    release = asyncio.Event()

    async def stubborn():
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    tasks = Tasks()
    task = tasks.spawn(stubborn(), name="mule")
    await asyncio.sleep(0)
    with caplog.at_level(logging.ERROR):
        await tasks.close(limit_s=0.02)
    assert "task_ignores_cancellation name=mule" in caplog.text
    release.set()
    await task
