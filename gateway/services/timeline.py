"""A workspace's history as it is read, and what its agent writes into it itself."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

from events.bus import Bus
from events.event import event
from gateway import ports
from gateway.core import views
from gateway.core.callers import Holder, Principal
from gateway.core.refusals import Code, Refusal, not_allowed, platform_unavailable
from gateway.services.activity import ActivityLog, Line
from gateway.services.directory import Directory


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A line that an agent writes of itself; bodies are any JSON."""

    activity_type: str
    method: str | None = None
    summary: str | None = None
    target_id: str | None = None
    source_id: str | None = None
    status: str | None = None
    error_detail: str | None = None
    duration_ms: int | None = None
    request_body: Any = field(default=None, repr=False)
    response_body: Any = field(default=None, repr=False)
    metadata: Any = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Notice:
    """What an agent tells people unasked; each attachment has uri and name, and mimeType and size if it says them."""

    message: str
    attachments: Sequence[Mapping[str, Any]] = ()


class Timeline:
    """Shows and keeps what happens in workspaces. What an agent says itself is a sign of its life."""

    def __init__(self, *, history: ports.Activity, activity: ActivityLog, directory: Directory, bus: Bus) -> None:
        self._history = history
        self._activity = activity
        self._directory = directory
        self._bus = bus

    async def list(
        self, workspace_id: str, filters: ports.Filters, *, since_id: str | None
    ) -> Sequence[ports.PastLine]:
        """Return rows of a workspace's history: the newest first, or what came after a row, the oldest first.

        Rows appear in one order and none is passed over, whoever writes at the same time. Refuses with cursor_gone
        a cursor that is no row of this history, or is none any more: read without one, and go on from there.
        """
        await self._directory.get(workspace_id)
        try:
            if since_id is None:
                return await self._history.list_newest(workspace_id, filters)
            rows = await self._history.list_since(workspace_id, since_id, filters)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if rows is None:
            raise Refusal(Code.CURSOR_GONE, "since_id is no row of this workspace's history, or is none any more")
        return rows

    async def log(self, principal: Principal, workspace_id: str, entry: Entry) -> None:
        """Take a line; refuses one in another workspace's name."""
        await self._directory.get(workspace_id)
        if entry.source_id not in (None, workspace_id):
            raise not_allowed()
        self._activity.log(
            Line(
                workspace_id=workspace_id,
                activity_type=entry.activity_type,
                method=entry.method,
                summary=entry.summary,
                status=entry.status,
                source_id=entry.source_id,
                target_id=entry.target_id,
                duration_ms=entry.duration_ms,
                error_detail=entry.error_detail,
                request_body=_view(entry.request_body),
                response_body=_view(entry.response_body),
                metadata=_view(entry.metadata),
                sign=isinstance(principal, Holder),
            )
        )

    async def notify(self, principal: Principal, workspace_id: str, notice: Notice) -> None:
        """Tell people something, live and in the history."""
        workspace = await self._directory.get(workspace_id)
        sign = isinstance(principal, Holder)
        shown: dict[str, Any] = {"message": notice.message, "workspace_id": workspace_id, "name": workspace.name}
        response: dict[str, Any] = {"result": notice.message}
        if notice.attachments:
            shown["attachments"] = list(notice.attachments)
            response["parts"] = [{"kind": "file", "file": dict(one)} for one in notice.attachments]
        self._bus.publish(event("AGENT_MESSAGE", workspace_id, shown, sign=sign))
        self._activity.log(
            Line(
                workspace_id=workspace_id,
                activity_type="a2a_receive",
                method="notify",
                summary=notice.message[:200],
                status="ok",
                target_id=workspace_id,
                response_body=_view(response),
                sign=sign,
            )
        )


def _view(value: Any) -> Any:
    """Cut what is long, as every body in the history is."""
    return None if value is None else views.view(orjson.dumps(value), value)
