"""What people change of a workspace that is there."""

from collections.abc import Mapping
from typing import Any, Final

import structlog

from events.bus import Bus
from events.event import changed
from gateway import ports
from gateway.core import address
from gateway.core.refusals import bad_field, platform_unavailable, unknown_workspace
from gateway.core.workspaces import EXTERNAL, Workspace
from gateway.services.directory import Directory
from gateway.services.reach import safe_url

log = structlog.get_logger("gateway.edits")

RESTARTED_FOR: Final = ("runtime", "workspace_dir")
"""What a running agent of ours has been started with."""


class Edits:
    """Changes workspaces, all that is asked for or nothing."""

    def __init__(self, *, workspaces: ports.Workspaces, directory: Directory, bus: Bus, reach: address.Reach) -> None:
        self._workspaces = workspaces
        self._directory = directory
        self._bus = bus
        self._reach = reach

    async def edit(self, workspace_id: str, wanted: Mapping[str, Any]) -> bool:
        """Change these fields (`ports.EDITABLE`); return whether the agent has to be restarted to know of it.

        Refuses an unsafe url, a parent that is not there, is below, or makes the hierarchy too deep, and that an agent
        of ours becomes external or the other way round.
        """
        workspace = await self._directory.get(workspace_id)
        if wanted.get("url"):
            safe_url(wanted["url"], self._reach)
        if wanted.get("events_url"):
            safe_url(wanted["events_url"], self._reach, field="events_url")
        if "runtime" in wanted and (wanted["runtime"] == EXTERNAL) != workspace.external:
            raise bad_field("runtime", "cannot become or cease to be external")
        try:
            if not await self._workspaces.edit(workspace_id, wanted):
                raise unknown_workspace()
        except ports.Misplaced as error:
            raise bad_field("parent_id", str(error)) from None
        except ports.StoreError as error:
            raise platform_unavailable() from error
        self._directory.forget(workspace_id)
        self._bus.publish(changed())
        log.info("workspace_edited", workspace_id=workspace_id, fields=sorted(wanted))
        return not workspace.external and any(_differs(workspace, wanted, name) for name in RESTARTED_FOR)


def _differs(workspace: Workspace, wanted: Mapping[str, Any], name: str) -> bool:
    return name in wanted and wanted[name] != getattr(workspace, name)
