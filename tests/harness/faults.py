"""PostgreSQL and Valkey of a test's own, either of which may be killed or stopped for a while."""

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from enum import Enum
from typing import Final

import psutil
import psycopg2
from redis.asyncio import Redis
from redis.exceptions import RedisError

from gateway.embedded import servers as embedded
from tests.harness import folders
from tests.harness.world import until

BACK_S: Final = 20.0


class Fault(Enum):
    """What befalls a datastore, and which."""

    POSTGRES_KILLED = "PostgreSQL is gone"
    POSTGRES_STALLED = "PostgreSQL hangs"
    REDIS_KILLED = "Redis is gone"
    REDIS_STALLED = "Redis hangs"

    @property
    def of_redis(self) -> bool:
        return self in (Fault.REDIS_KILLED, Fault.REDIS_STALLED)

    @property
    def kills(self) -> bool:
        return self in (Fault.POSTGRES_KILLED, Fault.REDIS_KILLED)


class Datastores:
    """Both servers, and the process that would start one again."""

    def __init__(self, urls: embedded.Urls, wrapper: psutil.Process) -> None:
        self.urls = urls
        self._wrapper = wrapper

    def _processes(self, name: str) -> list[psutil.Process]:
        found = []
        for one in self._wrapper.children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if one.name().startswith(name):
                    found.append(one)
        return found

    @asynccontextmanager
    async def without(self, fault: Fault) -> AsyncIterator[None]:
        """Do this to one of them for as long as the block lasts; afterwards it answers again."""
        name = "valkey" if fault.of_redis else "postgres"
        self._wrapper.send_signal(signal.SIGSTOP)
        hit = self._processes(name)
        assert hit, f"no process {name}"
        self._send(hit, signal.SIGKILL if fault.kills else signal.SIGSTOP)
        try:
            yield
        finally:
            self._send([] if fault.kills else self._processes(name), signal.SIGCONT)
            self._wrapper.send_signal(signal.SIGCONT)
            await until(self._redis_answers if fault.of_redis else self._postgres_answers, bool, BACK_S)

    @staticmethod
    def _send(to: list[psutil.Process], number: signal.Signals) -> None:
        for one in to:
            with suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    async def _redis_answers(self) -> bool:
        async with Redis.from_url(self.urls.redis_url) as one:
            try:
                return bool(await one.ping())
            except (OSError, RedisError):
                return False

    async def _postgres_answers(self) -> bool:
        def ask() -> bool:
            try:
                psycopg2.connect(self.urls.database_url, connect_timeout=2).close()
            except psycopg2.OperationalError:
                return False
            return True

        return await asyncio.to_thread(ask)


@contextmanager
def own_datastores() -> Iterator[Datastores]:
    """Both, on a folder that goes with the block."""
    data_dir = folders.fresh("a2a-tests-")
    before = {one.pid for one in psutil.Process().children()}
    try:
        with embedded.running(data_dir, durable=False) as urls:
            [wrapper] = [one for one in psutil.Process().children() if one.pid not in before]
            yield Datastores(urls, wrapper)
    finally:
        shutil.rmtree(data_dir)
