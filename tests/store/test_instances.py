"""Leases of processes in PostgreSQL: renewed, given back, and taken away from the dead, once."""

import asyncio
from uuid import uuid4

import pytest

from gateway.ports import Dead
from gateway.store.db import Database
from gateway.store.instances import InstanceStore

LONG_S = 60.0
OVER_S = -1.0
"""A lease that has run out."""


@pytest.fixture
def store(migrated: Database) -> InstanceStore:
    return InstanceStore(migrated)


async def test_a_lease_that_is_renewed_in_time_stays(store: InstanceStore):
    one = str(uuid4())
    await store.renew(one, lease_s=OVER_S, unpublished=True, publisher="p", count=7)
    await store.renew(one, lease_s=LONG_S, unpublished=False, publisher="p", count=7)
    assert await store.bury() == []


async def test_the_dead_are_told_of_as_they_last_were(store: InstanceStore):
    poor, rich = str(uuid4()), str(uuid4())
    await store.renew(poor, lease_s=OVER_S, unpublished=True, publisher="p", count=7)
    await store.renew(rich, lease_s=LONG_S, unpublished=False, publisher="p", count=7)
    await store.renew(rich, lease_s=OVER_S, unpublished=True, publisher="p", count=7)
    await store.renew(poor, lease_s=OVER_S, unpublished=False, publisher="p", count=7)
    assert {one.id: one for one in await store.bury()} == {
        poor: Dead(id=poor, unpublished=False, publisher="p", count=7),
        rich: Dead(id=rich, unpublished=True, publisher="p", count=7),
    }
    assert await store.bury() == []


async def test_who_leaves_in_good_order_is_not_buried(store: InstanceStore):
    one = str(uuid4())
    await store.renew(one, lease_s=OVER_S, unpublished=True, publisher="p", count=7)
    await store.leave(one)
    assert await store.bury() == []


async def test_two_survivors_bury_each_of_the_dead_once(store: InstanceStore):
    dead = {str(uuid4()) for _ in range(50)}
    for one in dead:
        await store.renew(one, lease_s=OVER_S, unpublished=True, publisher="p", count=7)
    buried = [one.id for batch in await asyncio.gather(*(store.bury() for _ in range(4))) for one in batch]
    assert len(buried) == len(dead)
    assert set(buried) == dead


async def test_one_who_comes_back_after_its_burial_is_among_the_living_again(store: InstanceStore):
    one = str(uuid4())
    await store.renew(one, lease_s=OVER_S, unpublished=True, publisher="p", count=7)
    assert [dead.id for dead in await store.bury()] == [one]
    await store.renew(one, lease_s=LONG_S, unpublished=False, publisher="p", count=7)
    assert await store.bury() == []


async def test_the_release_before_does_not_say_which_events_waited(store: InstanceStore, migrated: Database):
    one = str(uuid4())
    await migrated.execute(
        "insert into instances (id, lease_until, unpublished) values (%(id)s, now() - interval '1 second', true)",
        idempotent=True,
        id=one,
    )
    assert await store.bury() == [Dead(id=one, unpublished=True, publisher="", count=0)]
