"""What this process knows of all workspaces, so that a call need not ask the database."""

from collections.abc import Callable
from time import monotonic

from gateway import ports
from gateway.core.access import MAX_DEPTH, Lineage
from gateway.core.refusals import Code, Refusal, platform_unavailable, unknown_workspace
from gateway.core.workspaces import Workspace
from gateway.services.cache import Cache

CAPACITY = 200_000
"""Workspaces held at once."""


class Directory:
    """Workspaces by id, right within a second of any change (`services/changes.py`) and never older than `ttl_s`."""

    def __init__(self, workspaces: ports.Workspaces, *, ttl_s: float, now: Callable[[], float] = monotonic) -> None:
        self.generation = 0
        """Grows whenever a workspace may have changed."""
        self._cache: Cache[str, Workspace] = Cache(workspaces.find, ttl_s=ttl_s, capacity=CAPACITY, now=now)

    async def find(self, workspace_id: str, *, stale_s: float = 0.0) -> Workspace | None:
        """Return a workspace, removed ones too; refuses with platform_unavailable when nobody can say.

        stale_s: how old an answer may be while the database is away.
        """
        known = self._cache.peek(workspace_id)
        if known is not None:
            return known
        try:
            return await self._cache.find(workspace_id, stale_s=stale_s)
        except ports.StoreError as error:
            raise platform_unavailable() from error

    async def get(self, workspace_id: str) -> Workspace:
        """Return a workspace that is there; refuses with not_found or removed."""
        workspace = await self.find(workspace_id)
        if workspace is None:
            raise unknown_workspace()
        if workspace.removed:
            raise removed(workspace)
        return workspace

    async def lineage(self, workspace_id: str, *, removed_too: bool = False) -> Lineage:
        """Return a workspace's id and those above it; empty when one is unknown or removed, or they go in a circle.

        removed_too: where it stood, though it and those above it be removed.
        """
        line: list[str] = []
        at: str | None = workspace_id
        while at is not None:
            workspace = await self.find(at)
            if workspace is None or at in line or len(line) >= MAX_DEPTH:
                return ()
            if workspace.removed and not removed_too:
                return ()
            line.append(at)
            at = workspace.parent_id
        return line

    def forget(self, workspace_id: str) -> None:
        """Ask again at the next turn."""
        self.generation += 1
        self._cache.forget(workspace_id)


def removed(workspace: Workspace) -> Refusal:
    """Refuse because the workspace is gone."""
    at = workspace.removed_at.isoformat() if workspace.removed_at else None
    return Refusal(Code.REMOVED, "workspace has been removed", id=workspace.id, removed_at=at)
