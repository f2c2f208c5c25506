"""What a session is like, against the real server."""

import asyncio
import os
import resource

import pytest

from gateway.ports import StoreError, StoreTimeout, StoreUnavailable


async def test_the_servers_own_timeout_is_an_error_and_no_cancellation(open_database, watcher):
    async with open_database(statement_timeout_s=0.1) as database:
        before = watcher.pids()
        with pytest.raises(StoreTimeout):
            await database.execute("SELECT pg_sleep(30)")
        assert asyncio.current_task().cancelling() == 0
        assert database.idle == 4
        assert watcher.pids() == before


async def test_a_statement_that_an_operator_stops_is_an_error_and_no_cancellation(database, watcher, eventually):
    async with asyncio.TaskGroup() as group:
        sleeper = group.create_task(_outcome(database.execute("SELECT pg_sleep(30)")))
        await eventually(watcher.running)
        watcher.ask("SELECT pg_cancel_backend(%s)", *watcher.running())
    assert isinstance(sleeper.result(), StoreTimeout)


async def test_sessions_carry_a_name_and_limits(database, name):
    names = "application_name statement_timeout idle_in_transaction_session_timeout client_connection_check_interval"
    query = "SELECT name, setting FROM pg_settings WHERE name = ANY(%(names)s)"
    rows = await database.fetch(query, names=names.split())
    assert {row["name"]: row["setting"] for row in rows} == {
        "application_name": name,
        "statement_timeout": "10000",
        "idle_in_transaction_session_timeout": "60000",
        "client_connection_check_interval": "1000",
    }


@pytest.mark.parametrize("statement", ["SET work_mem = '7MB'", "SET LOCAL work_mem = '7MB'"])
async def test_a_setting_does_not_reach_the_next_user(open_database, statement, eventually):
    async with open_database(pool_size=1) as database:
        usual = await database.fetch_one("SELECT current_setting('work_mem') AS size")
        async with database.transaction() as transaction:
            await transaction.execute(statement)
            assert await transaction.fetch_one("SELECT current_setting('work_mem') AS size") == {"size": "7MB"}
        assert await database.fetch_one("SELECT current_setting('work_mem') AS size") == usual
        await database.execute("SET work_mem = '7MB'")
        assert await database.fetch_one("SELECT current_setting('work_mem') AS size") == usual
        assert (await database.fetch_one("SHOW statement_timeout"))["statement_timeout"] == "10s"


async def _outcome(work) -> object:
    try:
        return await work
    except StoreError as error:
        return error


async def test_sql_errors_are_heard_beyond_file_descriptor_1024(open_database):
    """`select` cannot watch these, and a connection that waits with it would hang on its first error."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, 2048), hard))
    held = [os.open(os.devnull, os.O_RDONLY) for _ in range(1100)]
    try:
        async with asyncio.timeout(10), open_database() as database:
            with pytest.raises(StoreError, match="division by zero"):
                await database.fetch("SELECT 1/0")
            assert await database.fetch_one("SELECT 1 AS one") == {"one": 1}
            assert held[-1] > 1024
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_a_server_that_is_not_there_is_unavailable_and_the_sentence_keeps_the_password(open_database, tmp_path):
    async def use(url: str) -> None:
        async with open_database(url):
            pass

    for url in (f"postgresql://u:secret@/x?host={tmp_path}", "postgresql://u:secret@127.0.0.1:1/x"):
        with pytest.raises(StoreUnavailable) as refused:
            await use(url)
        assert "secret" not in str(refused.value)


async def test_the_socket_may_change_while_connecting(open_database, network):
    """A server that breaks off the TLS handshake is dialled again without TLS, by libpq, on another socket."""
    plain, url = network
    plain.refuses_tls = True
    async with asyncio.timeout(5), open_database(f"{url}&sslmode=prefer&gssencmode=disable") as database:
        assert await database.fetch_one("SELECT 1 AS one") == {"one": 1}
    assert plain.connections >= 8


@pytest.mark.parametrize("addresses", ["127.0.0.2,127.0.0.1", "127.0.0.1,127.0.0.2"])
async def test_the_address_that_answers_is_found(open_database, network, addresses):
    _, url = network
    async with open_database(f"{url}&host=one,two&hostaddr={addresses}", pool_size=1) as database:
        assert await database.fetch_one("SELECT 1 AS one") == {"one": 1}
