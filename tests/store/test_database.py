"""The verbs and the transaction, against the real server."""

import asyncio

import pytest

from gateway.ports import StoreError


async def test_the_verbs_give_rows_by_name_the_first_row_or_the_number_of_rows(database):
    await database.execute("CREATE TABLE things (id int, name text)")
    assert await database.execute("INSERT INTO things VALUES (1, 'a'), (2, 'b')") == 2
    assert await database.fetch("SELECT * FROM things ORDER BY id") == [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}]
    assert await database.fetch_one("SELECT name FROM things WHERE id = %(id)s", id=2) == {"name": "b"}
    assert await database.fetch_one("SELECT name FROM things WHERE id = %(id)s", id=3) is None
    assert await database.fetch("DELETE FROM things") == []


async def test_a_transaction_commits_at_its_end(database):
    async with database.transaction() as transaction:
        await transaction.execute("CREATE TABLE things (id int)")
        assert await transaction.execute("INSERT INTO things VALUES (1)") == 1
        assert await transaction.fetch_one("SELECT id FROM things") == {"id": 1}
    assert await database.fetch("SELECT id FROM things") == [{"id": 1}]
    assert database.idle == 4


async def test_a_transaction_that_raises_has_rolled_back_when_it_is_left(database, watcher):
    async def broken() -> None:
        async with database.transaction() as transaction:
            await transaction.execute("CREATE TABLE things (id int)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await broken()
    assert watcher.ask("SELECT to_regclass('things')") == [(None,)]
    assert database.idle == 4


async def test_a_cancelled_transaction_rolls_back(database, watcher, eventually):
    async def endless() -> None:
        async with asyncio.timeout(0.2), database.transaction() as transaction:
            await transaction.execute("CREATE TABLE things (id int)")
            await asyncio.Event().wait()

    with pytest.raises(TimeoutError):
        await endless()
    await eventually(lambda: database.idle == 4)
    assert watcher.ask("SELECT to_regclass('things')") == [(None,)]


async def test_a_transaction_that_swallows_an_error_does_not_pretend_to_commit(database):
    async def careless() -> None:
        async with database.transaction() as transaction:
            await transaction.execute("CREATE TABLE things (id int)")
            with pytest.raises(StoreError):
                await transaction.execute("SELECT 1/0")

    with pytest.raises(StoreError, match="nothing was committed"):
        await careless()
    assert await database.fetch_one("SELECT to_regclass('things')::text AS found") == {"found": None}


async def test_a_transaction_that_is_over_runs_nothing(database):
    async with database.transaction() as transaction:
        pass
    with pytest.raises(RuntimeError):
        await transaction.fetch("SELECT 1")
