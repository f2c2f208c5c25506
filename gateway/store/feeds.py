"""How it is kept who reads which feed: a row each, taken, renewed and let go by one statement."""

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from gateway.core.workspaces import ATTENDED
from gateway.ports import DeclaredFeed, FeedReport, GrantedFeed
from gateway.store.db import Database, Json
from sql import load

_SQL: Final = load("feeds")
_ATTENDED: Final = sorted(status.value for status in ATTENDED)


class FeedStore:
    """`ports.Feeds` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def list_declared(self, workspace_ids: Collection[str] | None) -> Sequence[DeclaredFeed]:
        """Return the feeds of those of these workspaces (None: all) whose agent may be there."""
        ids = None if workspace_ids is None else list(workspace_ids)
        return [
            DeclaredFeed(
                workspace_id=row["id"],
                url=row["events_url"],
                declared=str(row["events_declared_at"]),
                pinned=row["pinned"],
                gave_up=row["gave_up"],
            )
            for row in await self._database.fetch(_SQL["list_declared"], idempotent=True, ids=ids, statuses=_ATTENDED)
        ]

    async def want(self, workspace_ids: Collection[str], *, linger_s: float) -> None:
        """Say that somebody wants these now; they are read for as long as this after it was said last, roughly."""
        await self._database.execute(_SQL["want"], idempotent=True, ids=list(workspace_ids), linger_s=linger_s)

    async def claim(
        self, holder: str, *, lease_s: float, besides: Collection[str], limit: int
    ) -> Sequence[GrantedFeed]:
        """Take feeds that somebody wants and nobody reads, but for these; each is given to one process only."""
        rows = await self._database.fetch(
            _SQL["claim"], holder=holder, lease_s=lease_s, besides=list(besides), limit=limit, statuses=_ATTENDED
        )
        return [
            GrantedFeed(
                workspace_id=row["workspace_id"],
                url=row["url"],
                declared=str(row["declared_at"]),
                last_id=row["last_event_id"] or "",
                inbound_secret=row["inbound_secret"],
            )
            for row in rows
        ]

    async def renew(self, holder: str, reports: Sequence[FeedReport], *, lease_s: float) -> Mapping[str, bool]:
        """Let leases begin anew; return those that are still this one's, and whether somebody wants each."""
        rows = await self._database.fetch(
            _SQL["renew"], holder=holder, reports=Json([_json(one) for one in reports]), lease_s=lease_s
        )
        return {row["workspace_id"]: row["wanted"] for row in rows}

    async def release(self, holder: str, reports: Sequence[FeedReport]) -> None:
        """Let others have them, those that are still this one's."""
        await self._database.execute(_SQL["release"], holder=holder, reports=Json([_json(one) for one in reports]))


def _json(report: FeedReport) -> Mapping[str, str | int | float | None]:
    return {
        "workspace_id": report.workspace_id,
        "state": report.state.value,
        "reason": report.reason,
        "last_event_id": report.last_id or None,
        "events": report.events,
        "rests_s": report.rests_s,
    }
