"""A gate on the bundled Valkey, or on one of the test's own."""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from uuid import uuid4

import pytest

from gateway.embedded.servers import Urls
from gateway.live import gate
from gateway.live.gate import Gate
from gateway.services.tasks import Tasks
from tests.harness.world import eventually

MAX_DEPTH = 4
RENEW_S = 5.0

Opened = Callable[..., AbstractAsyncContextManager[Gate]]


@pytest.fixture
def prefix() -> str:
    return f"test:{{{uuid4().hex}}}"


@pytest.fixture
def opened(servers: Urls, prefix: str) -> Opened:
    """`opened(url=..., answer_s=...)` is one replica's gate; those of one test share what they decide."""

    @asynccontextmanager
    async def open_one(
        url: str = servers.redis_url, answer_s: float = 5.0, renew_s: float = RENEW_S, kept_s: float = 60.0
    ) -> AsyncIterator[Gate]:
        async with (
            Tasks() as tasks,
            gate.opened(
                url,
                replica=uuid4().hex,
                prefix=prefix,
                max_depth=MAX_DEPTH,
                answer_s=answer_s,
                renew_s=renew_s,
                kept_s=kept_s,
            ) as one,
        ):
            tasks.spawn(one.run(), "gate:connect")
            await eventually(lambda: one.is_up)
            yield one
            assert tasks.deaths == 0

    return open_one


@pytest.fixture
async def one(opened: Opened) -> AsyncIterator[Gate]:
    async with opened() as gate_:
        yield gate_


@pytest.fixture
async def other(opened: Opened) -> AsyncIterator[Gate]:
    """Another replica's."""
    async with opened() as gate_:
        yield gate_
