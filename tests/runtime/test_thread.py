"""runtime.thread: work goes on while the loop that waits for it is stuck, and ends with its block."""

import asyncio
import threading
import time

import pytest

from runtime.thread import Thread


async def test_its_result_is_there_for_who_started_it():
    async def work():
        return threading.current_thread().name

    async with Thread(work, name="apart") as thread:
        assert await thread.start() == "apart"


async def test_what_it_raises_is_raised_where_it_was_started():
    async def work():
        raise ZeroDivisionError

    async with Thread(work, name="apart") as thread:
        with pytest.raises(ZeroDivisionError):
            await thread.start()


async def test_it_goes_on_while_the_other_loop_is_stuck():
    turns = []

    async def work():
        while True:
            turns.append(1)
            await asyncio.sleep(0.001)

    async with Thread(work, name="apart") as thread:
        thread.start()
        until = time.monotonic() + 10
        while len(turns) < 5 and time.monotonic() < until:  # on purpose: this loop does not turn meanwhile
            time.sleep(0.001)  # noqa: ASYNC251
        assert len(turns) >= 5
    assert repr(thread) == "<Thread apart alive=False>"


async def test_leaving_ends_it_and_waits_until_it_has_ended():
    ended = []

    async def work():
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.01)
            ended.append(1)

    async with Thread(work, name="apart") as thread:
        result = thread.start()
    assert ended == [1]
    with pytest.raises(asyncio.CancelledError):
        await result


async def test_what_is_called_runs_in_its_loop_and_nowhere_when_there_is_none():
    called = []
    changed = asyncio.Event()

    async def work():
        await changed.wait()
        called.append(threading.current_thread().name)

    async with Thread(work, name="apart") as thread:
        thread.call(changed.set)
        assert not changed.is_set()
        result = thread.start()
        thread.call(changed.set)
        await result
        thread.call(called.clear)
    assert called == ["apart"]


async def test_a_block_that_never_started_it_ends_at_once():
    async with Thread(asyncio.Event().wait, name="apart") as thread:
        pass
    assert repr(thread) == "<Thread apart alive=False>"
