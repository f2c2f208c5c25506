"""Workspaces as they are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from gateway.core.workspaces import Status, Workspace
from gateway.ports.identity import TokenHash


class Misplaced(Exception):
    """A workspace must not move there in the hierarchy; the text says why, for anybody."""


@dataclass(frozen=True, kw_only=True, slots=True)
class NewWorkspace:
    """A workspace as it is first written. Money is cents; `agent_auth` is sealed."""

    id: str
    name: str
    status: Status
    runtime: str
    role: str | None = None
    template: str | None = None
    model: str | None = None
    tier: int = 1
    url: str | None = None
    parent_id: str | None = None
    delivery_mode: str | None = None
    max_concurrent_tasks: int = 1
    budget_limit: int | None = None
    workspace_dir: str | None = None
    workspace_access: str | None = None
    x: float = 0.0
    y: float = 0.0
    agent_auth: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """A workspace by id and name."""

    id: str
    name: str


EDITABLE: Final = (
    "name", "role", "tier", "parent_id", "collapsed", "runtime", "workspace_dir", "x", "y", "url", "delivery_mode",
    "budget_limit", "max_concurrent_tasks", "events_url",
)  # fmt: skip
"""What may be changed of a workspace after it was made."""


class Workspaces(Protocol):
    """`store/workspaces.py`. Every method may raise StoreError."""

    async def find(self, workspace_id: str) -> Workspace | None:
        """Return one workspace, removed ones too."""

    async def list_all(self) -> Sequence[Workspace]:
        """Return all that are not removed, oldest first."""

    async def list_parents(self) -> Mapping[str, str | None]:
        """Return the parent of each that is not removed."""

    async def create(self, workspace: NewWorkspace, first_token: TokenHash | None) -> bool:
        """Write a workspace with its first token, in one transaction; False if the id is taken."""

    async def list_children(self, workspace_id: str) -> Sequence[Named]:
        """Return those directly below a workspace that are not removed, oldest first."""

    async def list_near(self, workspace_id: str, *, search: str, limit: int) -> Sequence[Workspace]:
        """Return the parent, children and siblings of a workspace in whose name or role this stands, oldest first."""

    async def remove_tree(self, workspace_id: str) -> Sequence[Named]:
        """Mark a workspace and all below it as removed, with their tokens; return those that were not so before."""

    async def edit(self, workspace_id: str, wanted: Mapping[str, Any]) -> bool:
        """Change these of EDITABLE, all or none; False if the workspace is removed or unknown. Raises Misplaced."""

    async def move(self, workspace_id: str, to: Status) -> bool:
        """Make one checked move of the status table; False if it may not or somebody else moved it first."""

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

    async def update_card(self, workspace_id: str, agent_card: Any) -> bool:
        """Write a new card; False if the workspace is removed or unknown."""

    async def update_runtime_metadata(self, workspace_id: str, block: Mapping[str, Any]) -> None:
        """Write what a runtime declared of itself."""
