"""Lending and giving back, with sessions whose state the test sets."""

import asyncio

import pytest

from gateway.ports import StoreError, StoreUnavailable
from gateway.services.tasks import Tasks
from gateway.store.pool import Pool


class Book:
    """A session that is what the test says it is."""

    def __init__(self) -> None:
        self.closed = False
        self.clean = True
        self.recovery: Exception | None = None

    def is_alive(self) -> bool:
        return not self.closed

    def is_clean(self) -> bool:
        return self.clean and not self.closed

    def close(self) -> None:
        self.closed = True

    async def recover(self) -> None:
        await asyncio.sleep(0)
        if self.recovery:
            raise self.recovery
        self.clean = True


@pytest.fixture
async def tasks():
    async with Tasks() as tasks:
        yield tasks


@pytest.fixture
async def pool(tasks, monkeypatch):
    monkeypatch.setattr("gateway.store.pool.RECOVER_S", 0.05)

    async def connect() -> Book:
        return Book()

    pool = Pool(connect, size=2, wait_s=0.1, spawn=tasks.spawn)
    await pool.fill()
    yield pool
    await pool.close()


async def test_a_clean_session_is_lent_again(pool):
    session = await pool.take()
    assert repr(pool) == "<Pool size=2 open=2 idle=1 waiting=0>"
    pool.give(session)
    assert await pool.take() is session


async def test_a_dead_session_is_not_lent_again(pool):
    session = await pool.take()
    session.close()
    pool.give(session)
    assert repr(pool) == "<Pool size=2 open=1 idle=1 waiting=0>"
    taken = [await pool.take(), await pool.take()]
    assert session not in taken


async def test_a_session_that_is_not_clean_keeps_its_place_until_it_is(pool):
    first, second = await pool.take(), await pool.take()
    first.clean = False
    pool.give(first)
    assert pool.idle == 0
    assert await pool.take() is first
    assert first.is_clean()
    pool.give(second)


async def test_a_session_that_does_not_recover_is_closed(pool):
    session = await pool.take()
    session.clean, session.recovery = False, StoreError("no")
    pool.give(session)
    taken = [await pool.take(), await pool.take()]
    assert session.closed
    assert session not in taken


async def test_a_fresh_session_does_not_make_the_pool_larger(pool):
    session = await pool.take(fresh=True)
    assert repr(pool) == "<Pool size=2 open=2 idle=1 waiting=0>"
    pool.give(session)
    assert pool.idle == 2


async def test_a_connect_that_fails_gives_the_turn_on(tasks):
    failures = iter([StoreUnavailable("no"), None])

    async def connect() -> Book:
        failure = next(failures)
        if failure:
            raise failure
        return Book()

    pool = Pool(connect, size=1, wait_s=0.1, spawn=tasks.spawn)
    with pytest.raises(StoreUnavailable):
        await pool.take()
    pool.give(await pool.take())
    await pool.close()


async def test_a_spawn_that_refuses_costs_the_session_and_not_its_place():
    async def connect() -> Book:
        return Book()

    def refuse(work, name):
        raise RuntimeError(name)

    pool = Pool(connect, size=1, wait_s=0.1, spawn=refuse)
    session = await pool.take()
    session.clean = False
    with pytest.raises(RuntimeError, match=r"store\.recover"):
        pool.give(session)
    assert session.closed
    assert await pool.take() is not session


async def test_a_recovery_that_was_cancelled_before_it_began_gives_its_place_back(pool, tasks):
    session = await pool.take()
    session.clean = False
    pool.give(session)
    await tasks.__aexit__()
    assert session not in [await pool.take(), await pool.take()]
    assert session.closed


async def test_closing_waits_for_those_who_are_lent_and_lends_no_more(pool):
    session = await pool.take()
    closing = asyncio.get_running_loop().create_task(pool.close())
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable, match="closed"):
        await pool.take()
    assert not session.closed
    pool.give(session)
    await closing
    assert session.closed
