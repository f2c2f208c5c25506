"""How history and usage are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from gateway.ports import Filters, PastLine, UsageOfDay
from gateway.store.db import Database, Json, Row
from sql import load

_SQL: Final = load("activity")
_USAGE: Final = load("usage")


def from_row(row: Row) -> PastLine:
    """Return the row of history in a row of `list_newest` or `list_since`."""
    return PastLine(
        id=row["id"],
        workspace_id=row["workspace_id"],
        activity_type=row["activity_type"],
        source_id=row["source_id"],
        target_id=row["target_id"],
        peer_name=row["peer_name"],
        method=row["method"],
        summary=row["summary"],
        status=row["status"],
        duration_ms=row["duration_ms"],
        error_detail=row["error_detail"],
        created_at=row["created_at"],
        request_body=row["request_body"],
        response_body=row["response_body"],
        metadata=row["metadata"],
    )


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

    async def list_newest(self, workspace_id: str, filters: Filters) -> Sequence[PastLine]:
        """Return the newest rows of a workspace's history, the newest first."""
        rows = await self._database.fetch(
            _SQL["list_newest"], idempotent=True, workspace_id=workspace_id, **asdict(filters)
        )
        return [from_row(row) for row in rows]

    async def list_since(self, workspace_id: str, cursor: str, filters: Filters) -> Sequence[PastLine] | None:
        """Return what came after a row, the oldest first; None if it is no row of this history (any more)."""
        place = await self._database.fetch_one(
            _SQL["find_cursor"], idempotent=True, id=cursor, workspace_id=workspace_id
        )
        if place is None:
            return None
        rows = await self._database.fetch(
            _SQL["list_since"], idempotent=True, workspace_id=workspace_id, **place, **asdict(filters)
        )
        return [from_row(row) for row in rows]
