"""How the processes that are running are kept."""

from collections.abc import Collection, Sequence
from typing import Final

from gateway.ports import Dead
from gateway.store.db import Database
from sql import load

_SQL: Final = load("instances")


class InstanceStore:
    """`ports.Instances` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def renew(self, instance_id: str, *, lease_s: float, unpublished: bool, publisher: str, count: int) -> None:
        """Say that a process is alive, and whether events of it wait for Redis, up to which one."""
        await self._database.execute(
            _SQL["renew"],
            idempotent=True,
            id=instance_id,
            lease_s=lease_s,
            unpublished=unpublished,
            publisher=publisher,
            count=count,
        )

    async def leave(self, instance_id: str) -> None:
        """Say that a process has ended in good order."""
        await self._database.execute(_SQL["leave"], idempotent=True, id=instance_id)

    async def find_alive(self, publishers: Sequence[str]) -> Collection[str]:
        """Return which of these publish for a process whose lease has not run out."""
        rows = await self._database.fetch(_SQL["find_alive"], publishers=list(publishers))
        return {row["publisher"] for row in rows}

    async def bury(self) -> Sequence[Dead]:
        """Take away the processes whose lease has run out, and return them; each is returned to one caller only."""
        rows = await self._database.fetch(_SQL["bury"])
        return [
            Dead(id=row["id"], unpublished=row["unpublished"], publisher=row["publisher"], count=row["event_count"])
            for row in rows
        ]
