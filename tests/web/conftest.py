"""One gateway for all the refusals of a module."""

from collections.abc import AsyncIterator

import pytest_asyncio

from tests.harness.cast import Cast, assembled
from tests.harness.world import World


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cast(shared_world: World) -> AsyncIterator[Cast]:
    async with assembled(shared_world) as cast:
        yield cast
