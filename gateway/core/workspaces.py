"""What is true of a workspace: its states, the moves between them, and what a heartbeat does to them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final

from gateway.core.budget import Spend
from gateway.core.feeds import Feed

EXTERNAL: Final = "external"
"""The runtime of an agent that nobody of ours starts or stops."""

DEGRADED_FROM: Final = 0.5
"""Error rate (0..1) from which an online workspace counts as degraded."""
ONLINE_BELOW: Final = 0.1
"""Error rate (0..1) below which a degraded one counts as online again; the space between keeps it from flapping."""


class Status(StrEnum):
    """The ten states; the database's CHECK holds the same words (a test compares them)."""

    PROVISIONING = "provisioning"
    ONLINE = "online"
    DEGRADED = "degraded"
    OFFLINE = "offline"
    AWAITING_AGENT = "awaiting_agent"
    FAILED = "failed"
    PAUSED = "paused"
    HIBERNATING = "hibernating"
    HIBERNATED = "hibernated"
    REMOVED = "removed"


S = Status
_LIVING = frozenset(Status) - {S.REMOVED}

MOVES: Final[Mapping[Status, frozenset[Status]]] = {
    S.PROVISIONING: _LIVING,
    S.ONLINE: frozenset({S.PROVISIONING, S.OFFLINE, S.AWAITING_AGENT, S.FAILED, S.DEGRADED}),
    S.DEGRADED: frozenset({S.ONLINE}),
    S.OFFLINE: frozenset({S.ONLINE, S.DEGRADED}),
    S.AWAITING_AGENT: frozenset({S.ONLINE, S.DEGRADED, S.OFFLINE}),
    S.FAILED: frozenset({S.PROVISIONING}),
    S.PAUSED: _LIVING - {S.PAUSED},
    S.HIBERNATING: frozenset({S.ONLINE, S.DEGRADED}),
    S.HIBERNATED: frozenset({S.HIBERNATING}),
    S.REMOVED: _LIVING,
}
"""To each state, the states it may be entered from. Each move is one UPDATE that checks this, and one event."""

ATTENDED: Final = _LIVING - {S.PAUSED, S.HIBERNATING, S.HIBERNATED}
"""Where an agent may be there, so that its own events are worth listening for."""

MOVE_EVENTS: Final[Mapping[Status, str]] = {
    S.PROVISIONING: "WORKSPACE_PROVISIONING",
    S.ONLINE: "WORKSPACE_ONLINE",
    S.DEGRADED: "WORKSPACE_DEGRADED",
    S.OFFLINE: "WORKSPACE_OFFLINE",
    S.AWAITING_AGENT: "WORKSPACE_AWAITING_AGENT",
    S.FAILED: "WORKSPACE_PROVISION_FAILED",
    S.PAUSED: "WORKSPACE_PAUSED",
    S.HIBERNATING: "WORKSPACE_HIBERNATING",
    S.HIBERNATED: "WORKSPACE_HIBERNATED",
    S.REMOVED: "WORKSPACE_REMOVED",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class RuntimeMetadata:
    """What a runtime declared of itself in a heartbeat; the block is the whole truth each time it comes."""

    capabilities: frozenset[str] = frozenset()
    idle_timeout_s: float | None = None

    @classmethod
    def from_json(cls, block: Mapping[str, Any]) -> "RuntimeMetadata":
        """Read a declared or stored block; missing flags and a missing, odd or non-positive timeout mean "not set"."""
        flags = block.get("capabilities")
        idle = block.get("idle_timeout_seconds")
        usable = isinstance(idle, int | float) and not isinstance(idle, bool) and 0 < idle < 1e9
        return cls(
            capabilities=frozenset(k for k, on in flags.items() if on is True)
            if isinstance(flags, Mapping)
            else frozenset(),
            idle_timeout_s=float(idle) if usable and idle is not None else None,
        )

    def to_json(self) -> dict[str, Any]:
        """Return the block as it is stored."""
        block: dict[str, Any] = {"capabilities": dict.fromkeys(sorted(self.capabilities), True)}
        if self.idle_timeout_s is not None:
            block["idle_timeout_seconds"] = self.idle_timeout_s
        return block


@dataclass(frozen=True, kw_only=True, slots=True)
class Workspace:
    """One workspace as the directory holds it. Money is cents, times are PostgreSQL's."""

    id: str
    name: str
    status: Status
    runtime: str = ""
    role: str | None = None
    model: str | None = None
    tier: int = 1
    url: str | None = None
    agent_card: Any = None
    parent_id: str | None = None
    delivery_mode: str | None = None
    max_concurrent_tasks: int = 1
    budget_limit: int | None = None
    workspace_dir: str | None = None
    x: float = 0.0
    y: float = 0.0
    collapsed: bool = False
    metadata: RuntimeMetadata = field(default_factory=RuntimeMetadata)
    agent_auth: bytes | None = field(default=None, repr=False)
    removed_at: datetime | None = None
    last_heartbeat_at: datetime | None = None
    active_tasks: int = 0
    current_task: str | None = None
    error_rate: float = 0.0
    sample_error: str | None = None
    uptime_seconds: int = 0
    spend: Spend = field(default_factory=Spend)
    runtime_state: str | None = None
    events_url: str | None = None
    feed: Feed | None = None

    @property
    def external(self) -> bool:
        """Whether nobody of ours starts or stops this agent."""
        return self.runtime == EXTERNAL

    @property
    def removed(self) -> bool:
        """Whether it is gone: everything but its history is refused."""
        return self.status is Status.REMOVED


@dataclass(frozen=True, kw_only=True, slots=True)
class Beat:
    """What one heartbeat says; None where it says nothing (an odd value says nothing, and never fails the beat)."""

    active_tasks: int | None = None
    current_task: str | None = None
    error_rate: float | None = None
    sample_error: str | None = None
    uptime_seconds: int | None = None
    monthly_spend: int | None = None
    runtime_state: str | None = None
    metadata: RuntimeMetadata | None = None

    @property
    def wedged(self) -> bool:
        """Whether the agent's own loop is stuck; such a beat is no sign of life."""
        return self.runtime_state == "wedged"


def may_move(source: Status, to: Status) -> bool:
    """Return whether the table allows this move."""
    return source in MOVES[to]


def decide_register(status: Status) -> Status | None:
    """Return the state a register moves this one to, or None to stay (paused and hibernating ones stay)."""
    return Status.ONLINE if may_move(status, Status.ONLINE) else None


def decide_beat(status: Status, beat: Beat, metadata: RuntimeMetadata) -> Status | None:
    """Return the state a heartbeat moves this one to, or None to stay.

    A failed start is left to register: a beat of a half-started process proves nothing, and one that is wedged no life.
    """
    rate = beat.error_rate or 0.0
    match status:
        case Status.PROVISIONING | Status.OFFLINE | Status.AWAITING_AGENT:
            return None if beat.wedged else Status.ONLINE
        case Status.ONLINE:
            erring = rate >= DEGRADED_FROM and "status_mgmt" not in metadata.capabilities
            return Status.DEGRADED if beat.wedged or erring else None
        case Status.DEGRADED:
            return Status.ONLINE if rate < ONLINE_BELOW and not beat.wedged else None
        case _:
            return None
