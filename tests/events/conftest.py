"""What the tests of the bus share: keys of their own on the real server, and loops that end with the test."""

from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
from redis.asyncio import Redis

from events import redis
from gateway.embedded.servers import Urls
from gateway.services.tasks import Tasks

JOURNAL_LENGTH = 1000


@pytest.fixture
def prefix() -> str:
    return f"test:{{{uuid4().hex}}}"


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    """Tasks that end with the test, and of which none may have died."""
    async with Tasks() as tasks:
        yield tasks
    assert tasks.deaths == 0


@pytest.fixture
async def link(servers: Urls, prefix: str) -> AsyncIterator[redis.RedisBus]:
    async with redis.opened(servers.redis_url, prefix=prefix, journal_length=JOURNAL_LENGTH) as link:
        yield link


@pytest.fixture
async def other_link(servers: Urls, prefix: str) -> AsyncIterator[redis.RedisBus]:
    """The same journal, as another replica sees it."""
    async with redis.opened(servers.redis_url, prefix=prefix, journal_length=JOURNAL_LENGTH) as link:
        yield link


@pytest.fixture
async def client(servers: Urls) -> AsyncIterator["Redis[bytes]"]:
    """Somebody who looks at the server, and does to it what operators do."""
    async with Redis.from_url(servers.redis_url, protocol=2) as client:
        yield client
