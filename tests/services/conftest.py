"""What the tests of the services share: a migrated database with its stores, and a bus that can be looked at."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

import pytest

from events.bus import Bus
from gateway.core.workspaces import Status
from gateway.ports import NewWorkspace, TokenHash
from gateway.services.tasks import Tasks
from gateway.store import db
from gateway.store.activity import ActivityStore
from gateway.store.calls import CallStore
from gateway.store.changes import ChangeStore
from gateway.store.delegation import DelegationStore
from gateway.store.liveness import LivenessStore
from gateway.store.queue import QueueStore
from gateway.store.tokens import TokenStore
from gateway.store.workspaces import WorkspaceStore
from tests.harness.virtual import VirtualLoop
from tests.services.memory import Channel, Heard
from tests.services.switchboard import Switchboard


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """What waits for seconds, and on itself alone, is tested on time that is not real."""
    return {"virtual": VirtualLoop} if item.path.stem == "test_subscription" else {"asyncio": asyncio.new_event_loop}


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    """Tasks that end with the test, and of which none may have died."""
    async with Tasks() as tasks:
        yield tasks
    assert tasks.deaths == 0


@pytest.fixture
def channel() -> Channel:
    return Channel()


@pytest.fixture
async def bus(tasks: Tasks, channel: Channel) -> Bus:
    bus = Bus(channel, capacity=10_000, capacity_bytes=1_000_000)
    tasks.spawn(bus.run(), "bus")
    return bus


@pytest.fixture
def heard(bus: Bus, channel: Channel) -> Heard:
    return Heard(bus, channel)


class Stores:
    """The real ones, on one database."""

    def __init__(self, database: db.Database) -> None:
        self.database = database
        self.workspaces = WorkspaceStore(database)
        self.tokens = TokenStore(database)
        self.liveness = LivenessStore(database)
        self.activity = ActivityStore(database)
        self.calls = CallStore(database)
        self.queue = QueueStore(database)
        self.delegations = DelegationStore(database)
        self.changes = ChangeStore(database)

    async def make(self, status: Status = Status.ONLINE, token: bytes | None = None, **fields: Any) -> str:
        """Write a workspace in this state and return its id."""
        id_ = str(uuid4())
        first = None if token is None else TokenHash(hash=token, prefix="12345678")
        born = Status.ONLINE if status is Status.REMOVED else status
        await self.workspaces.create(NewWorkspace(id=id_, name="one", status=born, runtime="external", **fields), first)
        if status is Status.REMOVED:
            await self.remove(id_)
        return id_

    async def remove(self, workspace_id: str) -> None:
        query = "update workspaces set status = 'removed', removed_at = now() where id = %(id)s"
        await self.database.execute(query, id=workspace_id)

    async def ask(self, query: str, **params: Any) -> Any:
        """The only value of the only row."""
        row = await self.database.fetch_one(query, **params)
        assert row is not None
        [value] = row.values()
        return value


@dataclass(frozen=True)
class Replicas:
    """Opens one more replica's connections to the same database."""

    open: Callable[[], Awaitable[Stores]]


@pytest.fixture
async def replicas(tasks: Tasks, migrated_database_url: str) -> AsyncIterator[Replicas]:
    async with AsyncExitStack() as stack:

        async def open_one() -> Stores:
            opened = db.opened(migrated_database_url, pool_size=3, statement_timeout_s=10.0, spawn=tasks.spawn)
            return Stores(await stack.enter_async_context(opened))

        yield Replicas(open=open_one)


@pytest.fixture
async def stores(replicas: Replicas) -> Stores:
    return await replicas.open()


@pytest.fixture
def board(bus, channel, tasks) -> Switchboard:
    return Switchboard(bus, channel, tasks)
