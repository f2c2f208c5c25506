"""How this process comes to its bus: what it waits for, warns of, and when it tries again."""

import asyncio
import contextlib
from random import random
from typing import Final

import structlog

from events import redis
from gateway.core.backoff import Backoff

log = structlog.get_logger("gateway.app")

RETRY: Final = Backoff(first_s=0.1, growth=1.6, most_s=2.0)
"""The waits between two attempts to connect to Redis."""
READY_S: Final = 5.0
"""How long the start waits for the bus; afterwards it goes on without, and /readyz says so."""

MEASURE_S: Final = 0.3
"""How long Redis may take to say how long the journal is: whoever reads the metrics waits for it."""


async def wait_until_up(up: asyncio.Event) -> None:
    """Wait for the bus for a while; go on without it if need be."""
    try:
        async with asyncio.timeout(READY_S):
            await up.wait()
    except TimeoutError:
        log.error("bus_not_up", consequence="events wait, silences are judged by the database alone")


async def journal_entries(link: redis.RedisBus) -> int | None:
    """Return how many entries the journal has, None if Redis does not say so at once."""
    with contextlib.suppress(redis.JournalUnavailable, TimeoutError):
        async with asyncio.timeout(MEASURE_S):
            return await link.length()
    return None


async def check_eviction(link: redis.RedisBus) -> None:
    """Say clearly when Redis may throw the journal away."""
    with contextlib.suppress(redis.JournalUnavailable):
        policy = await link.eviction()
        if policy not in (None, "noeviction"):
            log.error("redis_evicts", maxmemory_policy=policy, needed="noeviction", consequence="events may be lost")


def retry_s(attempts: int) -> float:
    """How long to wait before connecting to Redis again: longer each time, and never as long as the others wait."""
    return RETRY.after_s(attempts + 1, random())  # noqa: S311 - spreads, keeps no secret
