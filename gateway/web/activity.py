"""A workspace's history over HTTP, and the notices of its agent."""

from aiohttp import web

from gateway.core import activity
from gateway.ports import PastLine
from gateway.web import answers, keys, models, parse, query, render


async def show(request: web.Request) -> web.Response:
    """Show what has happened in a workspace."""
    workspace_id = parse.workspace_id(request)
    rows = await request.app[keys.TIMELINE].list(workspace_id, query.filters(request), since_id=query.since_id(request))
    return render.json([_line(one) for one in rows])


async def log(request: web.Request) -> web.Response:
    """Take a line that an agent writes of itself."""
    workspace_id = parse.workspace_id(request)
    said = await parse.body(request, models.LogActivity)
    await request.app[keys.TIMELINE].log(parse.principal(request), workspace_id, said.to_core())
    return render.json(answers.Logged(status="logged"))


async def notify(request: web.Request) -> web.Response:
    """Tell people something that nobody has asked for."""
    workspace_id = parse.workspace_id(request)
    said = await parse.body(request, models.Notify)
    await request.app[keys.TIMELINE].notify(parse.principal(request), workspace_id, said.to_core())
    return render.json(answers.Sent(status="sent"))


def _line(one: PastLine) -> answers.Activity:
    line: answers.Activity = {
        "id": one.id,
        "workspace_id": one.workspace_id,
        "activity_type": one.activity_type,
        "source_id": one.source_id,
        "target_id": one.target_id,
        "method": one.method,
        "summary": one.summary,
        "status": one.status,
        "duration_ms": one.duration_ms,
        "error_detail": one.error_detail,
        "created_at": one.created_at,
        "data": {
            "source": activity.source(one.source_id),
            "text": activity.text(one.request_body),
            "peer_id": activity.peer_id(one.workspace_id, one.source_id, one.target_id),
            "peer_name": one.peer_name,
        },
    }
    if one.request_body is not None:
        line["request_body"] = one.request_body
    if one.response_body is not None:
        line["response_body"] = one.response_body
    if isinstance(one.metadata, dict) and one.metadata.get("tool_trace") is not None:
        line["tool_trace"] = one.metadata["tool_trace"]
    if one.metadata is not None:
        line["metadata"] = one.metadata
    return line
