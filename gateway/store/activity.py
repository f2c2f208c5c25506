"""How history and usage are kept."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.ports import UsageOfDay
from gateway.store.db import Database, Json
from sql import load

_SQL: Final = load("activity")
_USAGE: Final = load("usage")


class ActivityStore:
    """`ports.Activity` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def record(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a batch of activity rows with their usage, all or nothing; repeating it changes nothing."""
        await self._database.execute(_SQL["record"], idempotent=True, rows=Json(list(rows)))

    async def usage_today(self, workspace_id: str) -> UsageOfDay:
        """Return what a workspace has used today (UTC)."""
        row = await self._database.fetch_one(_USAGE["today"], idempotent=True, workspace_id=workspace_id)
        if row is None:
            return UsageOfDay()
        return UsageOfDay(calls=row["calls"], input_tokens=row["input_tokens"], output_tokens=row["output_tokens"])
