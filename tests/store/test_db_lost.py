"""Connections that break: what is noticed, what is tried again, who has to wait."""

import asyncio
import os
import shutil
import signal
from pathlib import Path

import pytest

from gateway.embedded import servers as embedded
from gateway.ports import StoreError, StoreUnavailable
from tests.harness import folders


async def test_connections_that_died_at_rest_are_replaced_before_they_are_used(database, watcher):
    before = watcher.pids()
    watcher.terminate(*before)
    await database.execute("CREATE TABLE things (id int)")
    await asyncio.gather(*(database.execute("INSERT INTO things VALUES (1)") for _ in range(8)))
    assert await database.fetch("SELECT count(*) AS n FROM things") == [{"n": 8}]
    assert not before & watcher.pids()
    assert len(watcher.pids()) <= 4


async def test_an_idempotent_statement_survives_the_loss_of_its_connection_once(database, watcher, eventually):
    await database.execute("CREATE SEQUENCE tries")
    query = "SELECT pg_backend_pid() AS pid, pg_sleep(CASE nextval('tries') WHEN 1 THEN 30 ELSE 0 END)"
    task = asyncio.get_running_loop().create_task(database.fetch_one(query, idempotent=True))
    await eventually(watcher.running)
    lost = watcher.running()
    watcher.terminate(*lost)
    assert (await task)["pid"] not in lost


async def test_an_idempotent_statement_is_not_tried_a_third_time(database, watcher, eventually):
    task = asyncio.get_running_loop().create_task(database.fetch_one("SELECT pg_sleep(30)", idempotent=True))
    terminated: set[int] = set()
    for _ in range(2):
        await eventually(lambda: not watcher.running() <= terminated)
        terminated.update(watcher.running())
        watcher.terminate(*terminated)
    with pytest.raises(StoreUnavailable):
        await task


async def test_other_statements_are_not_repeated(database, watcher, eventually):
    await database.execute("CREATE TABLE things (id int)")
    await database.execute("CREATE SEQUENCE tries")
    task = asyncio.get_running_loop().create_task(
        database.execute("INSERT INTO things SELECT nextval('tries') FROM pg_sleep(30)")
    )
    await eventually(watcher.running)
    watcher.terminate(*watcher.running())
    with pytest.raises(StoreUnavailable):
        await task
    assert await database.fetch("SELECT * FROM things") == []
    assert await database.fetch("SELECT is_called FROM tries") == [{"is_called": False}]


async def test_a_transaction_whose_connection_is_lost_is_unavailable_and_leaves_nothing(database, watcher):
    async def interrupted() -> None:
        async with database.transaction() as transaction:
            row = await transaction.fetch_one("SELECT pg_backend_pid() AS pid")
            await transaction.execute("CREATE TABLE things (id int)")
            watcher.terminate(row["pid"])
            await transaction.execute("INSERT INTO things VALUES (1)")

    with pytest.raises(StoreUnavailable):
        await interrupted()
    assert await database.fetch_one("SELECT to_regclass('things')::text AS found") == {"found": None}


async def test_a_slow_connect_keeps_nobody_else_waiting(open_database, network, watcher, eventually):
    slow, url = network
    async with open_database(url, pool_size=2, acquire_timeout_s=1.0) as database:
        async with database.transaction() as transaction:
            mine = await transaction.fetch_one("SELECT pg_backend_pid() AS pid")
            watcher.terminate(*(watcher.pids() - {mine["pid"]}))
            await eventually(lambda: database.idle == 0)
            slow.deaf = True
            connecting = asyncio.get_running_loop().create_task(_outcome(database.fetch("SELECT 1")))
            await eventually(lambda: slow.connections == 3)
            third = asyncio.get_running_loop().create_task(database.fetch("SELECT 1 AS one"))
        assert await third == [{"one": 1}]
        assert not connecting.done()
        assert isinstance(await connecting, StoreUnavailable)


async def test_a_server_that_restarts_costs_nobody_more_than_the_restart(open_database, eventually):
    """The embedded servers' wrapper starts a PostgreSQL that died again."""
    data_dir = folders.fresh("a2a-tests-")
    try:
        with embedded.running(data_dir, durable=False) as urls:
            async with open_database(urls.database_url) as database:
                await database.execute("CREATE TABLE things (id int)")
                running = asyncio.get_running_loop().create_task(_outcome(database.execute("SELECT pg_sleep(30)")))
                await eventually(lambda: database.idle == 3)
                postmaster = _postmaster(data_dir)
                os.kill(postmaster, signal.SIGQUIT)  # what `pg_ctl stop -m immediate` sends
                assert isinstance(await running, StoreUnavailable)
                await eventually(lambda: _postmaster(data_dir) not in (postmaster, None))
                outcome: object = None
                async with asyncio.timeout(20):
                    while outcome != [{"one": 1}]:
                        outcome = await _outcome(database.fetch("SELECT 1 AS one", idempotent=True))
                        assert outcome == [{"one": 1}] or isinstance(outcome, StoreUnavailable)
                await asyncio.gather(*(database.execute("INSERT INTO things VALUES (1)") for _ in range(20)))
                assert await database.fetch("SELECT count(*) AS n FROM things") == [{"n": 20}]
    finally:
        shutil.rmtree(data_dir)


def _postmaster(data_dir: Path) -> int | None:
    """The process id of the server, None while there is none."""
    words = [word for file in data_dir.rglob("postmaster.pid") for word in file.read_text().split()]
    return int(words[0]) if words else None


async def _outcome(work) -> object:
    try:
        return await work
    except StoreError as error:
        return error
