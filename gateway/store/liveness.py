"""How signs of life are kept: one narrow row a workspace, written in batches."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from gateway.ports import Wait
from gateway.store.db import Database, Json
from sql import load

_SQL: Final = load("liveness")


class LivenessStore:
    """`ports.Liveness` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, beats: Sequence[Mapping[str, Any]]) -> None:
        """Write a batch of heartbeats, at most one a workspace."""
        await self._database.execute(_SQL["record"], idempotent=True, beats=Json(list(beats)))

    async def touch(self, workspace_id: str) -> None:
        """Write a sign of life that is no heartbeat."""
        await self._database.execute(_SQL["touch"], idempotent=True, workspace_id=workspace_id)

    async def wait(self, waits: Sequence[Wait]) -> None:
        """Write that these wait, and with it the signs of life of those they wait for."""
        await self._database.execute(_SQL["wait"], idempotent=True, waits=Json([asdict(wait) for wait in waits]))

    async def sign(self, workspace_ids: Sequence[str]) -> None:
        """Write that these have shown life just now, each by an event of its own."""
        await self._database.execute(_SQL["sign"], idempotent=True, ids=list(workspace_ids))

    async def silence(self, workspace_ids: Sequence[str]) -> Mapping[str, float]:
        """Return how many seconds each has been silent; one that was never heard is left out."""
        rows = await self._database.fetch(_SQL["silence"], idempotent=True, ids=list(workspace_ids))
        return {row["workspace_id"]: row["silent_s"] for row in rows}
