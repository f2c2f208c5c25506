"""Histories and usage as they are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class UsageOfDay:
    """What one workspace has used today (UTC)."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """Which rows of a history somebody wants; None: whatever it is. `by_people`: those of browsers, or the others.

    `since_s`: no older than so many seconds. `before`: older than this.
    """

    activity_type: str | None = None
    by_people: bool | None = None
    peer_id: str | None = None
    since_s: float | None = None
    before: datetime | None = None
    limit: int = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class PastLine:
    """A row of a workspace's history as it is read. Bodies are views for people."""

    id: str
    workspace_id: str
    activity_type: str
    source_id: str | None
    target_id: str | None
    peer_name: str | None
    method: str | None
    summary: str | None
    status: str | None
    duration_ms: int | None
    error_detail: str | None
    created_at: datetime
    request_body: Any = field(repr=False)
    response_body: Any = field(repr=False)
    metadata: Any = field(repr=False)


class Activity(Protocol):
    """`store/activity.py`. Every method may raise StoreError."""

    async def record(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a batch of activity rows with their usage, all or nothing; repeating it changes nothing."""

    async def usage_today(self, workspace_id: str) -> UsageOfDay:
        """Return what a workspace has used today (UTC)."""

    async def list_newest(self, workspace_id: str, filters: Filters) -> Sequence[PastLine]:
        """Return the newest rows of a workspace's history, the newest first."""

    async def list_since(self, workspace_id: str, cursor: str, filters: Filters) -> Sequence[PastLine] | None:
        """Return what came after a row, the oldest first; None if it is no row of this history (any more)."""
