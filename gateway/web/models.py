"""The bodies that clients send: one model each, and the one door through which they come in."""

import math
from collections.abc import Iterable
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
)

from gateway.core.activity import ActivityType
from gateway.core.delegation import Report
from gateway.core.inbox import is_response
from gateway.core.workspaces import Beat, RuntimeMetadata
from gateway.services.registry import Registration
from gateway.services.timeline import Entry, Notice
from gateway.services.workspaces import Wanted

MAX_CENTS: Final = 2**53
Cents = Annotated[int, Field(ge=0, le=MAX_CENTS)]
MAX_LEVELS: Final = 100
"""Objects and arrays inside each other in a card; everybody who reads it has such a limit."""


def _printable(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return _one_line(text)


def _one_line(text: str) -> str:
    if any(ord(c) < 32 or ord(c) == 127 for c in text):
        raise ValueError("must not contain control characters")
    return _storable(text)


def _storable(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError("must be valid Unicode") from None
    return text


def _shallow(block: dict[str, Any]) -> dict[str, Any]:
    layer: list[Any] = [block]
    for _ in range(MAX_LEVELS):
        layer = [below for one in layer for below in _children(one)]
    if any(isinstance(one, dict | list) for one in layer):
        raise ValueError(f"must not be nested deeper than {MAX_LEVELS} levels")
    return block


def _children(value: Any) -> Iterable[Any]:
    match value:
        case dict():
            return value.values()
        case list():
            return value
        case _:
            return ()


def _clean_path(text: str) -> str:
    parts = text.split("/")
    if not text.startswith("/") or ".." in parts or "." in parts or "//" in text:
        raise ValueError("must be an absolute, clean path")
    if len(parts) < 3 or parts[1] in {"bin", "boot", "dev", "etc", "lib", "proc", "root", "sbin", "sys", "usr", "var"}:
        raise ValueError("must be outside system folders")
    return _one_line(text)


def _no_secrets(given: dict[str, Any] | None) -> dict[str, Any] | None:
    """Refused rather than dropped: who hands over a secret counts on it."""
    if given:
        raise ValueError("cannot be kept yet; configure the agent with them")
    return given


Line = Annotated[str, Field(max_length=200), AfterValidator(_one_line)]
Url = Annotated[str, Field(max_length=2048), AfterValidator(_one_line)]
EVENTS: Final = "Where the agent tells of its own events, as a stream of server-sent events; not said: as before."
Card = Annotated[dict[str, Any], AfterValidator(_shallow)]
Coordinate = Annotated[float, Field(allow_inf_nan=False)]
Tasks = Annotated[int, Field(ge=1, le=1000, description="Of the calls that waited for it, how many it gets at once.")]


class Model(BaseModel):
    """A body: unknown fields are ignored, wrong types are refused."""

    model_config = ConfigDict(extra="ignore", strict=True, frozen=True)


Uuid = Annotated[UUID, Field(strict=False)]


class Canvas(Model):
    """Where a workspace is drawn."""

    x: Coordinate = 0.0
    y: Coordinate = 0.0


class CreateWorkspace(Model):
    """`POST /workspaces`."""

    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)]
    role: Line | None = None
    template: Line | None = None
    model: Line | None = None
    tier: Annotated[int, Field(ge=0, le=100)] = 1
    runtime: Annotated[str, Field(max_length=64), AfterValidator(_one_line)] | None = None
    external: bool = False
    url: Url | None = None
    agent_auth: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_one_line)] | None = Field(
        default=None, description="The Authorization header that the agent expects, as a whole."
    )
    workspace_dir: Annotated[str, Field(max_length=1024), AfterValidator(_clean_path)] | None = None
    workspace_access: Line | None = None
    parent_id: Uuid | None = None
    budget_limit: Cents | None = Field(default=None, description="Cents a month.")
    max_concurrent_tasks: Tasks = 1
    delivery_mode: Literal["push", "poll"] | None = None
    canvas: Canvas = Canvas()
    secrets: Annotated[dict[str, Any] | None, AfterValidator(_no_secrets)] = Field(
        default=None, description="Must be absent or empty: secrets of workspaces are not kept yet."
    )

    def to_core(self) -> Wanted:
        """Return what the service takes."""
        return Wanted(
            name=self.name,
            external=self.external or self.runtime == "external",
            role=self.role,
            template=self.template,
            model=self.model,
            tier=self.tier,
            runtime=self.runtime,
            url=self.url,
            agent_auth=self.agent_auth,
            workspace_dir=self.workspace_dir,
            workspace_access=self.workspace_access,
            parent_id=None if self.parent_id is None else str(self.parent_id),
            budget_limit=self.budget_limit,
            max_concurrent_tasks=self.max_concurrent_tasks,
            delivery_mode=self.delivery_mode,
            x=self.canvas.x,
            y=self.canvas.y,
        )


class MintToken(Model):
    """`POST /org/tokens`."""

    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)] | None = None


class Login(Model):
    """`POST /session`: a token, or the code of a one-time link."""

    token: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_one_line)] | None = None
    code: Annotated[str, Field(min_length=1, max_length=4096), AfterValidator(_one_line)] | None = None


class EditWorkspace(Model):
    """`PATCH /workspaces/{id}`: what is not said stays as it is; null takes away what a workspace can do without."""

    name: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)] = ""
    role: Line | None = None
    tier: Annotated[int, Field(ge=0, le=100)] = 1
    parent_id: Uuid | None = None
    collapsed: bool = False
    runtime: Annotated[str, Field(max_length=64), AfterValidator(_one_line)] = ""
    workspace_dir: Annotated[str, Field(max_length=1024), AfterValidator(_clean_path)] | None = None
    x: Coordinate = 0.0
    y: Coordinate = 0.0
    url: Annotated[Url, Field(min_length=1)] | None = None
    delivery_mode: Literal["push", "poll"] | None = None
    max_concurrent_tasks: Tasks = 1
    events_url: Annotated[Url, Field(min_length=1)] | None = Field(default=None, description=EVENTS)

    def to_core(self) -> dict[str, Any]:
        """Return what was said, by name."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        if self.parent_id is not None:
            said["parent_id"] = str(self.parent_id)
        return said


class SetBudget(Model):
    """`PATCH /workspaces/{id}/budget`: null takes the limit away."""

    budget_limit: Cents | None = Field(description="Cents a month.")


class Register(Model):
    """`POST /registry/register`."""

    id: Uuid
    url: Url | None = None
    agent_card: Card
    delivery_mode: Literal["push", "poll"] | None = None
    events_url: Annotated[Url, Field(min_length=1)] | None = Field(default=None, description=EVENTS)

    def to_core(self) -> Registration:
        """Return what the service takes."""
        return Registration(
            workspace_id=str(self.id),
            url=self.url,
            agent_card=self.agent_card,
            delivery_mode=self.delivery_mode,
            events_url=self.events_url,
        )


class UpdateCard(Model):
    """`POST /registry/update-card`."""

    workspace_id: Uuid
    agent_card: Card


class CheckAccess(Model):
    """`POST /registry/check-access`."""

    caller_id: Uuid
    target_id: Uuid


def _response(said: dict[str, Any]) -> dict[str, Any]:
    """What an agent answers with: it reaches its caller as it is, under the caller's id."""
    if not is_response(said):
        raise ValueError("must be a JSON-RPC response, with either a result or an error")
    return _shallow(said)


class Reply(Model):
    """`POST /workspaces/{id}/inbox/{call_id}/reply`."""

    body: Annotated[dict[str, Any], AfterValidator(_response)] = Field(
        description="A JSON-RPC response; its id does not matter."
    )


class Progress(Model):
    """`POST /workspaces/{id}/inbox/{call_id}/events`: the final event is the answer, a JSON-RPC response."""

    final: bool = False
    event: Card

    @field_validator("event")
    @classmethod
    def _answers_at_the_end(cls, event: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
        return _response(event) if info.data.get("final") else event


Text = Annotated[str, Field(max_length=4096), AfterValidator(_storable)]


class LogActivity(Model):
    """`POST /workspaces/{id}/activity`."""

    activity_type: ActivityType
    method: Line | None = None
    summary: Text | None = None
    target_id: Uuid | None = None
    source_id: Uuid | None = None
    status: Line | None = None
    error_detail: Text | None = None
    duration_ms: Annotated[int, Field(ge=0, le=MAX_CENTS)] | None = None
    request_body: Card | None = None
    response_body: Card | None = None
    metadata: Card | None = None

    def to_core(self) -> Entry:
        """Return what the service takes."""
        said = {name: getattr(self, name) for name in self.model_fields_set}
        for name in ("target_id", "source_id"):
            if said.get(name) is not None:
                said[name] = str(said[name])
        return Entry(**said)


class Attachment(Model):
    """A file that goes with a notice."""

    uri: Annotated[str, Field(min_length=1, max_length=2048), AfterValidator(_one_line)]
    name: Annotated[str, Field(min_length=1, max_length=1024), AfterValidator(_one_line)]
    mime_type: Line | None = Field(default=None, alias="mimeType")
    size: Annotated[int, Field(ge=0, le=MAX_CENTS)] | None = None


def _attachments(given: Any) -> Any:
    """Say which one is wrong, as clients of old expect it."""
    if isinstance(given, list):
        for number, one in enumerate(given):
            if not (isinstance(one, dict) and all(isinstance(one.get(k), str) and one[k] for k in ("uri", "name"))):
                raise ValueError(f"attachment[{number}]: uri and name are required")
    return given


class Notify(Model):
    """`POST /workspaces/{id}/notify`; a notice of type `delegation_complete` may do without a message."""

    type: Line | None = None
    message: Annotated[str, Field(max_length=512 * 1024, validate_default=True), AfterValidator(_storable)] = ""
    attachments: Annotated[list[Attachment], Field(max_length=100), BeforeValidator(_attachments)] = []

    @field_validator("message", mode="before")
    @classmethod
    def _is_said(cls, message: Any, info: ValidationInfo) -> Any:
        if message in (None, "") and info.data.get("type") != "delegation_complete":
            raise ValueError("message is required")
        return "" if message is None else message

    def to_core(self) -> Notice:
        """Return what the service takes."""
        return Notice(
            message=self.message,
            attachments=[one.model_dump(by_alias=True, exclude_none=True) for one in self.attachments],
        )


def _said(text: str) -> str:
    if not text.strip():
        raise ValueError("must not be blank")
    return _storable(text)


Task = Annotated[str, Field(min_length=1, max_length=512 * 1024), AfterValidator(_said)]


class Delegate(Model):
    """`POST /workspaces/{id}/delegate`: with a key the same one is made once, however often it is asked for."""

    target_id: Uuid
    task: Task
    idempotency_key: Annotated[str, Field(min_length=1, max_length=200), AfterValidator(_printable)] | None = None


class RecordDelegation(Model):
    """`POST /workspaces/{id}/delegations/record`."""

    target_id: Uuid
    task: Task
    delegation_id: Uuid


class UpdateDelegation(Model):
    """`POST /workspaces/{id}/delegations/{delegation_id}/update`."""

    status: Annotated[Report, Field(strict=False)]
    error: Text | None = None
    response_preview: Text | None = None

    @property
    def text(self) -> str | None:
        """What is said beside the status."""
        return self.response_preview if self.status is Report.COMPLETED else self.error


def _whole(value: Any) -> int | None:
    """A count, or None for what is none: an odd optional field never fails a beat."""
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not math.isfinite(value)
        or not 0 <= value < MAX_CENTS
    ):
        return None
    return int(value)


def _active(value: Any) -> int | None:
    count = _whole(value)
    return None if count is None else min(count, 2**31 - 1)


def _rate(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e6:
        return None
    return float(value)


def _note(value: Any) -> str | None:
    if not isinstance(value, str):
        return None
    return value[:4096].encode("utf-8", "replace").decode()


def _block(value: Any) -> dict[str, Any] | None:
    return value if isinstance(value, dict) else None


class Heartbeat(Model):
    """`POST /registry/heartbeat`; everything but the id is optional, and an odd value counts as not said."""

    workspace_id: Uuid
    active_tasks: Annotated[int | None, BeforeValidator(_active)] = None
    current_task: Annotated[str | None, BeforeValidator(_note)] = None
    error_rate: Annotated[float | None, BeforeValidator(_rate)] = None
    sample_error: Annotated[str | None, BeforeValidator(_note)] = None
    uptime_seconds: Annotated[int | None, BeforeValidator(_whole)] = None
    monthly_spend: Annotated[int | None, BeforeValidator(_whole)] = Field(default=None, description="Cents.")
    runtime_state: Annotated[str | None, BeforeValidator(_note)] = None
    runtime_metadata: Annotated[dict[str, Any] | None, BeforeValidator(_block)] = None

    def to_core(self) -> Beat:
        """Return what the service takes."""
        return Beat(
            active_tasks=self.active_tasks,
            current_task=self.current_task,
            error_rate=self.error_rate,
            sample_error=self.sample_error,
            uptime_seconds=self.uptime_seconds,
            monthly_spend=self.monthly_spend,
            runtime_state=self.runtime_state,
            metadata=None if self.runtime_metadata is None else RuntimeMetadata.from_json(self.runtime_metadata),
        )
