"""How workspaces are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final

from gateway.core.access import Place, check_place
from gateway.core.budget import Spend
from gateway.core.feeds import Feed, State
from gateway.core.workspaces import MOVES, RuntimeMetadata, Status, Workspace
from gateway.ports import EDITABLE, Misplaced, Named, NewWorkspace, TokenHash
from gateway.store.db import Database, Json, Row
from sql import load

_SQL: Final = load("workspaces")
_TOKENS: Final = load("tokens")


def from_row(row: Row) -> Workspace:
    """Return the workspace in a row of `find` or `list`."""
    return Workspace(
        id=row["id"],
        name=row["name"],
        status=Status(row["status"]),
        runtime=row["runtime"],
        role=row["role"],
        model=row["model"],
        tier=row["tier"],
        url=row["url"],
        agent_card=row["agent_card"],
        parent_id=row["parent_id"],
        delivery_mode=row["delivery_mode"],
        max_concurrent_tasks=row["max_concurrent_tasks"],
        budget_limit=row["budget_limit"],
        workspace_dir=row["workspace_dir"],
        x=row["x"],
        y=row["y"],
        collapsed=row["collapsed"],
        metadata=RuntimeMetadata.from_json(row["runtime_metadata"]),
        agent_auth=row["agent_auth"],
        removed_at=row["removed_at"],
        last_heartbeat_at=row["last_heartbeat_at"],
        active_tasks=row["active_tasks"] or 0,
        current_task=row["current_task"],
        error_rate=row["error_rate"] or 0.0,
        sample_error=row["sample_error"],
        uptime_seconds=row["uptime_seconds"] or 0,
        spend=Spend(month=row["spend_month"], priced=row["priced_spend"], reported_cents=row["monthly_spend"] or 0),
        runtime_state=row["runtime_state"],
        events_url=row["events_url"],
        feed=_feed(row),
    )


def _feed(row: Row) -> Feed | None:
    if row["events_url"] is None:
        return None
    if row["feed_state"] is None:  # nobody has ever wanted it
        return Feed()
    return Feed(
        state=State(row["feed_state"]), reason=row["feed_reason"], since=row["feed_since"], events=row["feed_events"]
    )


class WorkspaceStore:
    """`ports.Workspaces` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find(self, workspace_id: str) -> Workspace | None:
        """Return one workspace, removed ones too."""
        row = await self._database.fetch_one(_SQL["find"], idempotent=True, id=workspace_id)
        return None if row is None else from_row(row)

    async def list_all(self) -> Sequence[Workspace]:
        """Return all that are not removed, oldest first."""
        return [from_row(row) for row in await self._database.fetch(_SQL["list"], idempotent=True)]

    async def list_parents(self) -> Mapping[str, str | None]:
        """Return the parent of each that is not removed."""
        return {
            row["id"]: row["parent_id"] for row in await self._database.fetch(_SQL["list_parents"], idempotent=True)
        }

    async def create(self, workspace: NewWorkspace, first_token: TokenHash | None) -> bool:
        """Write a workspace with its first token, in one transaction; False if the id is taken."""
        async with self._database.transaction() as transaction:
            if not await transaction.execute(_SQL["create"], **asdict(workspace)):
                return False
            if first_token is not None:
                await transaction.execute(
                    _TOKENS["create"],
                    workspace_id=workspace.id,
                    hash=first_token.hash,
                    prefix=first_token.prefix,
                    name=None,
                )
        return True

    async def list_children(self, workspace_id: str) -> Sequence[Named]:
        """Return those directly below a workspace that are not removed, oldest first."""
        rows = await self._database.fetch(_SQL["list_children"], idempotent=True, id=workspace_id)
        return [Named(id=row["id"], name=row["name"]) for row in rows]

    async def list_near(self, workspace_id: str, *, search: str, limit: int) -> Sequence[Workspace]:
        """Return the parent, children and siblings of a workspace in whose name or role this stands, oldest first."""
        rows = await self._database.fetch(
            _SQL["list_near"], idempotent=True, id=workspace_id, search=search, limit=limit
        )
        return [from_row(row) for row in rows]

    async def remove_tree(self, workspace_id: str) -> Sequence[Named]:
        """Mark a workspace and all below it as removed, with their tokens; return those that were not so before."""
        async with self._database.transaction() as transaction:
            await transaction.execute(_SQL["lock_hierarchy"])
            rows = await transaction.fetch(_SQL["remove_tree"], id=workspace_id)
            await transaction.execute(_SQL["revoke_all"], ids=[row["id"] for row in rows])
        return [Named(id=row["id"], name=row["name"]) for row in rows]

    async def edit(self, workspace_id: str, wanted: Mapping[str, Any]) -> bool:
        """Change these of EDITABLE, all or none; False if the workspace is removed or unknown. Raises Misplaced."""
        parent_id = wanted.get("parent_id")
        async with self._database.transaction() as transaction:
            if parent_id is not None:
                await transaction.execute(_SQL["lock_hierarchy"])
                row = await transaction.fetch_one(_SQL["find_place"], id=workspace_id, parent_id=parent_id)
                refused = "no such workspace" if row is None else check_place(Place(**row))
                if refused is not None:
                    raise Misplaced(refused)
            values = {name: wanted.get(name) for name in EDITABLE}
            edited = await transaction.fetch_one(_SQL["edit"], id=workspace_id, given=list(wanted), **values)
        return edited is not None

    async def move(self, workspace_id: str, to: Status) -> bool:
        """Make one checked move of the status table; False if it may not or somebody else moved it first."""
        sources = [source.value for source in MOVES[to]]
        moved = await self._database.fetch_one(_SQL["move"], id=workspace_id, to=to.value, sources=sources)
        return moved is not None

    async def register(
        self,
        workspace_id: str,
        *,
        url: str | None,
        agent_card: Any,
        delivery_mode: str,
        inbound_secret: bytes | None,
        events_url: str | None = None,
    ) -> bytes | None:
        """Write what a register says and return the sealed inbound secret; one that is stored already stays."""
        row = await self._database.fetch_one(
            _SQL["register"],
            id=workspace_id,
            url=url,
            agent_card=Json(agent_card),
            delivery_mode=delivery_mode,
            inbound_secret=inbound_secret,
            events_url=events_url,
        )
        if row is None:
            raise KeyError(workspace_id)
        sealed: bytes | None = row["inbound_secret"]
        return sealed

    async def update_card(self, workspace_id: str, agent_card: Any) -> bool:
        """Write a new card; False if the workspace is removed or unknown."""
        return (
            await self._database.fetch_one(_SQL["update_card"], id=workspace_id, agent_card=Json(agent_card))
            is not None
        )

    async def update_runtime_metadata(self, workspace_id: str, block: Mapping[str, Any]) -> None:
        """Write what a runtime declared of itself."""
        await self._database.execute(
            _SQL["update_runtime_metadata"], idempotent=True, id=workspace_id, runtime_metadata=Json(dict(block))
        )
