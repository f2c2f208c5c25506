"""What the server's refusals are called, against the real server."""

import asyncio

import psycopg2
import pytest

from gateway.ports import StoreConflict, StoreError, StoreUnavailable
from gateway.store.failures import failure, translated


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("INSERT INTO things VALUES (1, 1, 1)", "things_pkey"),
        ("INSERT INTO things VALUES (2, -1, 1)", "positive"),
        ("INSERT INTO things VALUES (2, 1, 9)", "things_parent_fkey"),
        ("INSERT INTO things VALUES (NULL, 1, 1)", None),
    ],
)
async def test_a_violated_constraint_is_a_conflict_with_its_name(database, statement, constraint):
    await database.execute(
        "CREATE TABLE things "
        "(id int PRIMARY KEY, n int CONSTRAINT positive CHECK (n > 0), parent int REFERENCES things)"
    )
    await database.execute("INSERT INTO things VALUES (1, 1, 1)")
    with pytest.raises(StoreConflict) as refused:
        await database.execute(statement)
    assert refused.value.constraint == constraint


async def test_bad_sql_is_a_store_error_that_keeps_the_connection(database):
    with pytest.raises(StoreError, match="42P01 relation") as refused:
        await database.execute("SELECT * FROM nowhere")
    assert type(refused.value) is StoreError
    assert database.idle == 4


async def test_a_server_that_takes_no_writes_is_unavailable(open_database, database_url):
    read_only = database_url + "&options=-c%20default_transaction_read_only%3Don"
    async with open_database(read_only) as database:
        with pytest.raises(StoreUnavailable):
            await database.execute("CREATE TABLE things ()")
        assert await database.fetch_one("SELECT 1 AS one") == {"one": 1}


async def test_a_deadlock_is_worth_another_try(database):
    """One of the two is chosen by the server, which reports it after `deadlock_timeout`."""
    await database.execute("CREATE TABLE things AS SELECT id, 0 AS n FROM generate_series(1, 2) AS id")
    both_hold_one = asyncio.Barrier(2)

    async def lock(first: int, second: int) -> Exception | None:
        try:
            async with database.transaction() as transaction:
                await transaction.execute("UPDATE things SET n = 1 WHERE id = %(id)s", id=first)
                await both_hold_one.wait()
                await transaction.execute("UPDATE things SET n = 1 WHERE id = %(id)s", id=second)
        except StoreError as error:
            return error
        return None

    outcomes = await asyncio.gather(lock(1, 2), lock(2, 1))
    assert [type(outcome) for outcome in outcomes if outcome] == [StoreUnavailable]


@pytest.mark.parametrize("error", [psycopg2.OperationalError("gone\nmore"), psycopg2.InterfaceError("closed")])
def test_a_connection_that_broke_without_a_code_is_unavailable(error):
    assert type(failure(error)) is StoreUnavailable
    assert "more" not in str(failure(error))


def test_errors_of_the_operating_system_are_unavailable():
    with pytest.raises(StoreUnavailable) as refused, translated():
        raise ConnectionRefusedError(111, "Connection refused")
    assert isinstance(refused.value.__cause__, ConnectionRefusedError)
