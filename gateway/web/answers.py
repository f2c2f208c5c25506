"""The bodies that the gateway answers with: the shapes that handlers fill and that /openapi.json shows."""

from datetime import datetime
from typing import Any, Final, Literal, NotRequired

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict  # pydantic needs this one before Python 3.12

from gateway.core.calls import Kind, State
from gateway.core.delegation import Status as DelegationStatus
from gateway.core.delivery import Mode
from gateway.core.endings import Ending
from gateway.core.feeds import State as FeedState
from gateway.core.journey import Sign
from gateway.core.workspaces import Status
from gateway.services.loops import State as LoopState

EXACT: Final = ConfigDict(extra="forbid")
"""What is not described here is not answered."""


@with_config(EXACT)
class Alive(TypedDict):
    """`GET /healthz` and an accepted heartbeat."""

    status: Literal["ok"]


@with_config(EXACT)
class Ready(TypedDict):
    """`GET /readyz`."""

    ready: bool
    database: Literal["up", "down"]
    bus: Literal["up", "blind", "repairing"]
    loops: LoopState
    draining: bool


@with_config(EXACT)
class Loop(TypedDict):
    """One loop of a process. `does`: what it is there for. `last_error`: the type of what it ended with last."""

    name: str
    does: str
    state: LoopState
    restarts: int
    last_error: str | None
    seconds_since_turn: float
    hangs_after_seconds: float
    shared: bool


@with_config(EXACT)
class Liveness(TypedDict):
    """`GET /admin/liveness`: the loops of the process that answers.

    `tasks_died`: how often, since it has begun, one of them or of the tasks beside them has ended by an error that
    nobody expected.
    """

    loops: list[Loop]
    tasks_died: int


@with_config(EXACT)
class Registered(TypedDict):
    """`POST /registry/register`; the token only when one had to be minted, the secret only where they are kept."""

    status: Literal["registered"]
    delivery_mode: Mode
    auth_token: NotRequired[str]
    platform_inbound_secret: NotRequired[str]


@with_config(EXACT)
class Updated(TypedDict):
    """`POST /registry/update-card`."""

    status: Literal["updated"]


@with_config(EXACT)
class Discovered(TypedDict):
    """`GET /registry/discover/{id}`."""

    id: str
    url: str
    name: str


@with_config(EXACT)
class Peer(TypedDict):
    """A workspace near another one; without a url if it has none that may be called."""

    id: str
    name: str
    role: str | None
    tier: int
    status: Status
    url: str | None
    parent_id: str | None
    active_tasks: int
    agent_card: Any


@with_config(EXACT)
class Access(TypedDict):
    """`POST /registry/check-access`."""

    allowed: bool


@with_config(EXACT)
class Connection(TypedDict):
    """How the agent of a new workspace gets in touch; the token is shown here and never again."""

    workspace_id: str
    platform_url: str
    auth_token: str
    registry_endpoint: str
    heartbeat_endpoint: str
    curl_register_template: str
    python_snippet: str


@with_config(EXACT)
class Created(TypedDict):
    """`POST /workspaces`."""

    id: str
    status: Status
    external: NotRequired[Literal[True]]
    connection: Connection


@with_config(EXACT)
class Feed(TypedDict):
    """How the one subscription to an agent's events stands, since when and why; `events`: how many were told on."""

    state: FeedState
    reason: str | None
    since: datetime | None
    events: int


@with_config(EXACT)
class Workspace(TypedDict):
    """A workspace as everybody may see it who may see it. Money is cents."""

    id: str
    name: str
    role: str | None
    tier: int
    status: Status
    agent_card: Any
    url: str | None
    parent_id: str | None
    active_tasks: int
    max_concurrent_tasks: int
    last_error_rate: float
    last_sample_error: str | None
    uptime_seconds: int
    runtime_state: str | None
    current_task: str | None
    runtime: str
    workspace_dir: str | None
    delivery_mode: str
    x: float
    y: float
    collapsed: bool
    budget_limit: int | None
    monthly_spend: int
    last_heartbeat_at: datetime | None
    runtime_metadata: dict[str, Any]
    events_url: str | None
    feed: Feed | None


@with_config(EXACT)
class Token(TypedDict):
    """`POST /workspaces/{id}/tokens`."""

    auth_token: str
    id: str
    workspace_id: str
    message: str


@with_config(EXACT)
class OrgToken(TypedDict):
    """`POST /org/tokens`."""

    auth_token: str
    id: str
    message: str


@with_config(EXACT)
class LiveToken(TypedDict):
    """A token that may be used, without its text. `last_used_at` is about a minute late."""

    id: str
    prefix: str
    name: str | None
    created_at: datetime
    last_used_at: datetime | None


@with_config(EXACT)
class Revoked(TypedDict):
    """`DELETE` of a token."""

    status: Literal["revoked"]


@with_config(EXACT)
class Session(TypedDict):
    """Who a browser is, and for how many seconds still; null for whoever is not here by a session."""

    role: Literal["admin", "member"]
    expires_in_s: float | None


@with_config(EXACT)
class Ended(TypedDict):
    """`DELETE /session`."""

    status: Literal["ended"]


@with_config(EXACT)
class Edited(TypedDict):
    """`PATCH /workspaces/{id}`."""

    status: Literal["updated"]
    needs_restart: NotRequired[Literal[True]]


@with_config(EXACT)
class Removed(TypedDict):
    """`DELETE /workspaces/{id}`."""

    status: Literal[Status.REMOVED]
    cascade_deleted: int


@with_config(EXACT)
class Budget(TypedDict):
    """`/workspaces/{id}/budget`: whole cents of this month (UTC); null where there is no limit."""

    budget_limit: int | None
    monthly_spend: int
    budget_remaining: int | None


@with_config(EXACT)
class Usage(TypedDict):
    """`GET /workspaces/{id}/metrics`."""

    calls: int
    input_tokens: int
    output_tokens: int


@with_config(EXACT)
class Message(TypedDict):
    """A call in an inbox: `request` is what its caller sent, `source_id` the calling workspace."""

    id: str
    method: str
    source_id: str | None
    attempts: int
    created_at: datetime
    expires_at: datetime
    lease_until: datetime | None
    request: Any


@with_config(EXACT)
class Messages(TypedDict):
    """`GET /workspaces/{id}/inbox`: nobody else gets these for so many seconds."""

    messages: list[Message]
    lease_seconds: float


@with_config(EXACT)
class Settled(TypedDict):
    """What was done with a message, and how its call stands now."""

    status: Literal["acknowledged", "replied", "kept"]
    state: State


@with_config(EXACT)
class Clocks(TypedDict):
    """What may end a call. `limit`: which clock `limit_seconds` is, its caller's deadline or the ceiling.

    `reset_by`: what set the idle clock back last; null where another replica alone knows.
    """

    idle_seconds: float
    limit_seconds: float | None
    limit: Literal["deadline", "ceiling"] | None
    reset_by: Sign | None
    reset_at: datetime | None


@with_config(EXACT)
class Bytes(TypedDict):
    """What has gone to an agent, and come back; null where another replica alone knows."""

    sent: int
    received: int | None


@with_config(EXACT)
class Journey(TypedDict):
    """How a call is sent to its agent. `status`: what its caller was answered. `replica`: who has or had it."""

    status: int | None
    replica: str
    clocks: Clocks
    bytes: Bytes
    first_byte_ms: int | None


@with_config(EXACT)
class Call(TypedDict):
    """A call; `journey` if it is sent to its agent, `response_body` once the answer of one that polls is there."""

    id: str
    kind: Kind
    state: State
    ending: Ending | None
    workspace_id: str
    caller_id: str | None
    method: str
    attempts: int
    created_at: datetime
    dispatched_at: datetime | None
    lease_until: datetime | None
    expires_at: datetime | None
    ended_at: datetime | None
    duration_ms: int | None
    journey: NotRequired[Journey]
    response_body: NotRequired[Any]


@with_config(EXACT)
class Queued(TypedDict):
    """A call that waits or waited for a busy agent: `position` 1 is the next, null once it does not wait any more."""

    queue_id: str
    status: State
    ending: Ending | None
    workspace_id: str
    caller_id: str | None
    method: str
    priority: int
    position: int | None
    attempts: int
    busy: int
    last_error: str | None
    created_at: datetime
    dispatched_at: datetime | None
    expires_at: datetime
    ended_at: datetime | None
    response_body: NotRequired[Any]


@with_config(EXACT)
class InLine(TypedDict):
    """A call of a queue: `position` 1 is the next, null where it is out. `age_seconds`: since it came."""

    queue_id: str
    kind: Kind
    status: State
    caller_id: str | None
    method: str
    priority: int
    position: int | None
    attempts: int
    busy: int
    last_error: str | None
    created_at: datetime
    age_seconds: float
    dispatched_at: datetime | None
    expires_at: datetime


@with_config(EXACT)
class Backlog(TypedDict):
    """`GET /workspaces/{id}/a2a/queue`: `next` goes on, as `?after=`; null where this is the end."""

    calls: list[InLine]
    next: str | None


@with_config(EXACT)
class Dropped(TypedDict):
    """How many calls have ended as expired because they had waited for too long."""

    status: Literal["dropped"]
    calls: int


@with_config(EXACT)
class Cancelled(TypedDict):
    """`POST .../cancel`: it has ended so, or its replica was told and has not said so yet."""

    status: Literal["cancelled", "cancelling"]
    state: State


@with_config(EXACT)
class Seen(TypedDict):
    """What people want to see of a row at once."""

    source: str
    text: str | None
    peer_id: str | None
    peer_name: str | None


@with_config(EXACT)
class Activity(TypedDict):
    """A row of a workspace's history."""

    id: str
    workspace_id: str
    activity_type: str
    source_id: str | None
    target_id: str | None
    method: str | None
    summary: str | None
    status: str | None
    duration_ms: int | None
    error_detail: str | None
    created_at: datetime
    request_body: NotRequired[Any]
    response_body: NotRequired[Any]
    tool_trace: NotRequired[Any]
    metadata: NotRequired[Any]
    data: Seen


@with_config(EXACT)
class Logged(TypedDict):
    """`POST /workspaces/{id}/activity`."""

    status: Literal["logged"]


@with_config(EXACT)
class Sent(TypedDict):
    """`POST /workspaces/{id}/notify`."""

    status: Literal["sent"]


@with_config(EXACT)
class Delegated(TypedDict):
    """`POST /workspaces/{id}/delegate`: `status` is that of an earlier one if its key was used before."""

    delegation_id: str
    status: DelegationStatus | Literal["delegated"]
    target_id: str
    idempotent_hit: NotRequired[Literal[True]]


@with_config(EXACT)
class Delegation(TypedDict):
    """A task that a workspace has left to another one, or has sent itself."""

    id: str
    type: Literal["delegation"]
    delegation_id: str
    source_id: str
    target_id: str
    summary: str
    status: DelegationStatus
    error: NotRequired[str]
    response_preview: NotRequired[str]
    created_at: datetime


@with_config(EXACT)
class Recorded(TypedDict):
    """`POST /workspaces/{id}/delegations/record`."""

    delegation_id: str
    status: Literal["recorded"]
    target_id: str


@with_config(EXACT)
class Reported(TypedDict):
    """How a delegation stands after somebody has said so."""

    delegation_id: str
    status: DelegationStatus
