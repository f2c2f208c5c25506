"""What operators do with workspaces: create them, look at them, remove them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from events.bus import Bus
from events.event import changed, event
from gateway import ports
from gateway.core import address, delivery
from gateway.core.ids import new_id
from gateway.core.refusals import Code, Refusal, bad_field, platform_unavailable, unknown_workspace
from gateway.core.tokens import mint
from gateway.core.workspaces import EXTERNAL, Status, Workspace
from gateway.services.directory import Directory, removed
from gateway.services.reach import safe_url

log = structlog.get_logger("gateway.workspaces")


@dataclass(frozen=True, kw_only=True, slots=True)
class Wanted:
    """A workspace as an operator asks for it. Money is cents."""

    name: str
    external: bool = False
    role: str | None = None
    template: str | None = None
    model: str | None = None
    tier: int = 1
    runtime: str | None = None
    url: str | None = None
    agent_auth: str | None = field(default=None, repr=False)
    workspace_dir: str | None = None
    workspace_access: str | None = None
    parent_id: str | None = None
    budget_limit: int | None = None
    max_concurrent_tasks: int = 1
    delivery_mode: str | None = None
    x: float = 0.0
    y: float = 0.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Created:
    """A workspace that has just been made. `token` is shown to who made it, once."""

    workspace_id: str
    name: str
    status: Status
    external: bool
    token: str = field(repr=False)


class WorkspaceService:
    """Creates, shows and removes workspaces."""

    def __init__(
        self,
        *,
        workspaces: ports.Workspaces,
        activity: ports.Activity,
        directory: Directory,
        bus: Bus,
        vault: ports.Vault | None,
        reach: address.Reach,
    ) -> None:
        self._workspaces = workspaces
        self._activity = activity
        self._directory = directory
        self._bus = bus
        self._vault = vault
        self._reach = reach

    async def create(self, wanted: Wanted) -> Created:
        """Write a workspace and its first token, together."""
        await self._check_parent(wanted.parent_id)
        url = safe_url(wanted.url, self._reach) if wanted.url else None
        status = self._first_status(external=wanted.external, url=url)
        token = mint()
        new = ports.NewWorkspace(
            id=new_id(),
            name=wanted.name,
            status=status,
            runtime=EXTERNAL if wanted.external else wanted.runtime or "",
            role=wanted.role,
            template=wanted.template,
            model=wanted.model,
            tier=wanted.tier,
            url=url,
            parent_id=wanted.parent_id,
            delivery_mode=self._first_mode(wanted),
            max_concurrent_tasks=wanted.max_concurrent_tasks,
            budget_limit=wanted.budget_limit,
            workspace_dir=wanted.workspace_dir,
            workspace_access=wanted.workspace_access,
            x=wanted.x,
            y=wanted.y,
            agent_auth=self._seal(wanted.agent_auth),
        )
        try:
            await self._workspaces.create(new, ports.TokenHash(hash=token.hash, prefix=token.prefix))
        except ports.StoreConflict as error:
            raise bad_field("parent_id", "no such workspace") from error
        except ports.StoreError as error:
            raise platform_unavailable() from error
        self._directory.forget(new.id)
        self._bus.publish(changed())
        events = {Status.ONLINE: "WORKSPACE_ONLINE", Status.AWAITING_AGENT: "WORKSPACE_AWAITING_AGENT"}
        self._bus.publish(
            event(events.get(status, "WORKSPACE_PROVISIONING"), new.id, {"name": new.name, "runtime": new.runtime})
        )
        log.info("workspace_created", workspace_id=new.id, status=status.value)
        return Created(workspace_id=new.id, name=new.name, status=status, external=wanted.external, token=token.text)

    def _first_mode(self, wanted: Wanted) -> str | None:
        """Who says where the agent listens wants it called there; without a word it is the agent's to say."""
        return wanted.delivery_mode or (delivery.Mode.PUSH.value if wanted.url else None)

    def _first_status(self, *, external: bool, url: str | None) -> Status:
        if not external:
            return Status.PROVISIONING
        return Status.ONLINE if url else Status.AWAITING_AGENT

    async def _check_parent(self, parent_id: str | None) -> None:
        if parent_id is not None:
            parent = await self._directory.find(parent_id)
            if parent is None or parent.removed:
                raise bad_field("parent_id", "no such workspace")

    def _seal(self, agent_auth: str | None) -> bytes | None:
        if agent_auth is None:
            return None
        if self._vault is None:
            raise bad_field("agent_auth", "cannot be kept: no GATEWAY_SECRETS_KEY_FILE is configured")
        return self._vault.seal(agent_auth)

    async def list_all(self) -> Sequence[Workspace]:
        """Return all that are not removed."""
        try:
            return await self._workspaces.list_all()
        except ports.StoreError as error:
            raise platform_unavailable() from error

    async def get(self, workspace_id: str) -> Workspace:
        """Return one, as the database has it now."""
        try:
            workspace = await self._workspaces.find(workspace_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if workspace is None:
            raise unknown_workspace()
        if workspace.removed:
            raise removed(workspace)
        return workspace

    async def remove(self, workspace_id: str, *, confirmed: bool) -> int:
        """Remove a workspace and all below it, with their tokens; return how many there were below it.

        Refuses with confirmation_required while there are some and nobody has confirmed. To remove what is removed
        already changes nothing.
        """
        workspace = await self._directory.find(workspace_id)
        if workspace is None:
            raise unknown_workspace()
        try:
            children = await self._workspaces.list_children(workspace_id)
            if children and not confirmed:
                shown = [{"id": one.id, "name": one.name} for one in children]
                raise Refusal(
                    Code.CONFIRMATION_REQUIRED,
                    "the workspace has others below it: confirm=true removes them as well",
                    status="confirmation_required",
                    children=shown,
                    children_count=len(shown),
                )
            removed_now = await self._workspaces.remove_tree(workspace_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        below = sum(one.id != workspace_id for one in removed_now)
        for one in removed_now:
            self._directory.forget(one.id)
            cascade = below if one.id == workspace_id else 0
            self._bus.publish(event("WORKSPACE_REMOVED", one.id, {"name": one.name, "cascade_deleted": cascade}))
            log.info("workspace_removed", workspace_id=one.id)
        self._bus.publish(changed())
        return below

    async def usage_today(self, workspace_id: str) -> ports.UsageOfDay:
        """Return what it has used today (UTC)."""
        await self._directory.get(workspace_id)
        try:
            return await self._activity.usage_today(workspace_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error
