"""Who is near a workspace in the hierarchy, whether two may talk, and where one is found."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from gateway import ports
from gateway.core import address
from gateway.core.access import lineage_beside, may_talk
from gateway.core.callers import Holder, Principal
from gateway.core.refusals import not_allowed, platform_unavailable
from gateway.core.workspaces import Workspace
from gateway.services.directory import Directory
from gateway.services.reach import get_url

MAX_PEERS: Final = 1000
"""Peers in one answer, the oldest first; a search narrows them down."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A workspace, and where its agent is called."""

    id: str
    name: str
    url: str


class Peers:
    """Answers what agents ask about one another; nobody is told of a workspace that it may not talk to."""

    def __init__(self, *, workspaces: ports.Workspaces, directory: Directory, reach: address.Reach) -> None:
        self._workspaces = workspaces
        self._directory = directory
        self._reach = reach

    async def discover(self, workspace_id: str) -> Found:
        """Return where a workspace is called; refuses with not_found, removed, no_url or unsafe_url."""
        workspace = await self._directory.get(workspace_id)
        return Found(id=workspace.id, name=workspace.name, url=get_url(workspace, self._reach))

    async def list_near(self, principal: Principal, workspace_id: str, *, search: str) -> Sequence[Workspace]:
        """Return the parent, the children and the siblings of a workspace, at most MAX_PEERS, oldest first.

        search: what has to stand in the name or role, in any case. A url that may not be called is left out.
        """
        await self._directory.get(workspace_id)
        line = await self._directory.lineage(workspace_id)
        asks = principal.workspace_id if isinstance(principal, Holder) else workspace_id
        mine = await self._directory.lineage(asks)
        try:
            near = await self._workspaces.list_near(workspace_id, search=search, limit=MAX_PEERS)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        return [self._shown(one) for one in near if may_talk(mine, lineage_beside(line, one.id, one.parent_id))]

    def _shown(self, one: Workspace) -> Workspace:
        if one.url and isinstance(address.check_url(one.url, self._reach), address.Unsafe):
            return replace(one, url=None)
        return one

    async def may_talk(self, principal: Principal, caller_id: str, target_id: str) -> bool:
        """Return whether one workspace may talk to another; no if either is unknown or removed.

        A workspace may ask this about itself, and about two others that it may talk to.
        """
        caller, target = await self._directory.lineage(caller_id), await self._directory.lineage(target_id)
        if isinstance(principal, Holder) and principal.workspace_id not in (caller_id, target_id):
            mine = await self._directory.lineage(principal.workspace_id)
            if not (may_talk(mine, caller) and may_talk(mine, target)):
                raise not_allowed()
        return may_talk(caller, target)
