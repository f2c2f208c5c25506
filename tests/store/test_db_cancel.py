"""Callers that go away in the middle: the server stops, the pool stays whole."""

import asyncio
import random

import pytest

from gateway.ports import StoreUnavailable
from gateway.store import db, pool


async def test_a_cancelled_statement_stops_on_the_server_and_its_connection_is_kept(database, watcher, eventually):
    before = watcher.pids()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.2):
            await database.execute("SELECT pg_sleep(30)")
    await eventually(lambda: not watcher.running())
    await eventually(lambda: database.idle == 4)
    assert before <= watcher.pids()
    assert len(watcher.pids()) == 5  # the fifth is the one that cancels


async def test_a_cancelled_statement_that_is_still_being_sent_stops_too(database, watcher, eventually, monkeypatch):
    monkeypatch.setattr(pool, "RECOVER_S", 8.0)  # so much is sent slowly where the machine is busy
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await database.execute("SELECT pg_sleep(30), length(%(text)s)", text="x" * 50_000_000)
    await eventually(lambda: database.idle == 4 and not watcher.running())


async def test_the_cancelled_caller_does_not_wait_for_the_server(open_database, network, eventually):
    slow, url = network
    async with open_database(url) as database:
        task = asyncio.get_running_loop().create_task(database.execute("SELECT pg_sleep(30)"))
        await eventually(lambda: database.idle == 3)
        slow.frozen = True
        task.cancel()
        done, _ = await asyncio.wait([task], timeout=1)
        assert done
        assert task.cancelled()
        slow.frozen = False
        await eventually(lambda: database.idle == 4)


async def test_a_connection_that_cannot_be_recovered_is_replaced(
    open_database, network, watcher, eventually, monkeypatch
):
    monkeypatch.setattr(pool, "RECOVER_S", 0.1)
    slow, url = network
    async with open_database(url, pool_size=1) as database:
        before = await database.fetch("SELECT pg_backend_pid() AS pid")
        task = asyncio.get_running_loop().create_task(database.execute("SELECT pg_sleep(30)"))
        await eventually(watcher.running)
        slow.frozen = True
        task.cancel()
        await asyncio.wait([task])
        await eventually(lambda: "open=0" in repr(database))
        slow.frozen = False
        assert await database.fetch("SELECT pg_backend_pid() AS pid") != before


async def test_a_storm_of_cancels_on_a_full_pool_leaves_it_whole(database, watcher, eventually):
    most = 0

    async def one_call(index: int) -> None:
        async with asyncio.timeout(random.Random(index).uniform(0, 0.4)):
            await database.execute("SELECT pg_sleep(30)")

    storm = asyncio.gather(*(one_call(index) for index in range(200)), return_exceptions=True)
    while not storm.done():
        most = max(most, len(watcher.pids()))
        await asyncio.sleep(0.01)
    assert {type(outcome) for outcome in storm.result()} == {TimeoutError}
    await eventually(lambda: database.idle == 4)
    assert not watcher.running()
    assert most <= 5
    watcher.ask("SELECT pg_advisory_lock(hashtext(current_schema()))")
    query = "SELECT pg_backend_pid() AS p, pg_advisory_xact_lock_shared(hashtext(current_schema()))"
    async with asyncio.TaskGroup() as group:
        users = [group.create_task(database.fetch_one(query)) for _ in range(4)]
        await eventually(lambda: len(watcher.running()) == 4)  # each holds its connection until all have one
        watcher.ask("SELECT pg_advisory_unlock(hashtext(current_schema()))")
    assert len({user.result()["p"] for user in users}) == 4


async def test_cancelled_waiters_take_nobody_elses_turn(open_database):
    """Waiters that are cancelled just as a connection comes free hand their turn on."""
    chance = random.Random(7)
    async with open_database(pool_size=2) as database, asyncio.timeout(30):

        async def one_call() -> None:
            await database.fetch("SELECT 1")

        for _ in range(20):
            calls = [asyncio.get_running_loop().create_task(one_call()) for _ in range(40)]
            while not all(call.done() for call in calls):
                chance.choice(calls).cancel()
                await asyncio.sleep(0)
        for _ in range(3):
            await database.fetch("SELECT 1")
        await asyncio.gather(*(one_call() for _ in range(50)))


async def test_whoever_finds_no_connection_in_time_is_told_so(open_database, eventually):
    async with open_database(pool_size=1, acquire_timeout_s=0.2) as database:
        async with database.transaction():
            with pytest.raises(StoreUnavailable, match=r"no connection within 0.2 s"):
                await database.fetch("SELECT 1")
        assert await database.fetch_one("SELECT 1 AS one") == {"one": 1}


async def test_many_callers_share_few_connections(database, watcher):
    pids = await asyncio.gather(*(database.fetch_one("SELECT pg_backend_pid() AS pid") for _ in range(200)))
    assert {row["pid"] for row in pids} <= watcher.pids()
    assert len(watcher.pids()) == 4


async def test_what_still_runs_when_the_pool_closes_stops_on_the_server(
    open_database, watcher, eventually, monkeypatch
):
    monkeypatch.setattr(pool, "RECOVER_S", 0.1)
    async with open_database(statement_timeout_s=60.0) as database:
        task = asyncio.get_running_loop().create_task(database.execute("SELECT pg_sleep(30)"))
        await eventually(watcher.running)
    (outcome,) = await asyncio.gather(task, return_exceptions=True)
    assert isinstance(outcome, StoreUnavailable)
    await eventually(lambda: not watcher.pids())
    with pytest.raises(StoreUnavailable, match="closed"):
        await database.fetch("SELECT 1")


async def test_a_network_that_goes_silent_ends_the_statement_in_the_end(open_database, network, monkeypatch):
    monkeypatch.setattr(db, "GRACE_S", 0.2)
    silent, url = network
    async with open_database(url, statement_timeout_s=0.1) as database:
        silent.frozen = True
        with pytest.raises(StoreUnavailable, match="no answer within"):
            await database.fetch("SELECT 1")
        silent.frozen = False
        assert await database.fetch_one("SELECT 1 AS one") == {"one": 1}
