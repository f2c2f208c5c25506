"""The queue of a busy agent over HTTP, all of it."""

from aiohttp import web

from gateway.core.queue import FRONT
from gateway.ports import InLine
from gateway.web import answers, keys, parse, query, render


async def list_after(request: web.Request) -> web.Response:
    """List what waits for a workspace, and what is out of its queue."""
    page = await request.app[keys.BACKLOG].list_after(
        parse.workspace_id(request), query.after(request) or FRONT, limit=query.calls(request)
    )
    calls = [_in_line(one) for one in page.calls]
    return render.json(answers.Backlog(calls=calls, next=None if page.next is None else str(page.next)))


async def drop_stale(request: web.Request) -> web.Response:
    """Drop what has waited for a workspace for too long."""
    dropped = await request.app[keys.BACKLOG].drop_stale(query.stale_s(request), parse.workspace_id(request))
    return render.json(answers.Dropped(status="dropped", calls=dropped))


async def drop_all_stale(request: web.Request) -> web.Response:
    """Drop what has waited for whichever workspace for too long."""
    dropped = await request.app[keys.BACKLOG].drop_stale(query.stale_s(request))
    return render.json(answers.Dropped(status="dropped", calls=dropped))


def _in_line(one: InLine) -> answers.InLine:
    return {
        "queue_id": one.id,
        "kind": one.kind,
        "status": one.state,
        "caller_id": one.caller_id,
        "method": one.method,
        "priority": one.place.priority,
        "position": one.position,
        "attempts": one.attempts,
        "busy": one.busy,
        "last_error": one.last_error,
        "created_at": one.created_at,
        "age_seconds": round(one.age_s, 3),
        "dispatched_at": one.dispatched_at,
        "expires_at": one.expires_at,
    }
