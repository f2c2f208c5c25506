"""Stored calls over HTTP."""

import asyncio
from typing import Any, Final

import orjson
from aiohttp import web

from gateway.core import views
from gateway.core.calls import Call, State
from gateway.web import answers, keys, parse, render

LONG_BYTES: Final = 64 * 1024
"""An answer that takes more than a millisecond to look at."""


async def show(request: web.Request) -> web.Response:
    """Explain a call."""
    call = await request.app[keys.CALLS].get(
        parse.principal(request), parse.workspace_id(request), parse.call_id(request)
    )
    shown = _call(call)
    if _has_answered(call):
        shown["response_body"] = await _response_body(call)
    return render.json(shown)


async def show_queued(request: web.Request) -> web.Response:
    """Explain a call that waits for a busy agent."""
    call, position = await request.app[keys.CALLS].get_queued(
        parse.principal(request), parse.workspace_id(request), parse.call_id(request)
    )
    shown = _queued(call, position)
    if _has_answered(call):
        shown["response_body"] = await _response_body(call)
    return render.json(shown)


async def cancel(request: web.Request) -> web.Response:
    """Call off a call that waits."""
    call = await request.app[keys.CALLS].cancel(
        parse.principal(request), parse.workspace_id(request), parse.call_id(request)
    )
    return render.json(answers.Cancelled(status="cancelled", state=call.state))


def _has_answered(one: Call) -> bool:
    return one.answer is not None and one.state is State.COMPLETED


async def _response_body(one: Call) -> Any:
    """What the agent has answered: its own text, or a string of it where that is no JSON."""
    assert one.answer is not None
    if len(one.answer) <= LONG_BYTES:
        return orjson.Fragment(views.whole(one.answer))
    return orjson.Fragment(await asyncio.to_thread(views.whole, one.answer))


def _call(one: Call) -> answers.Call:
    return {
        "id": one.id,
        "kind": one.kind,
        "state": one.state,
        "ending": one.ending,
        "workspace_id": one.workspace_id,
        "caller_id": one.caller_id,
        "method": one.method,
        "attempts": one.attempts,
        "created_at": one.created_at,
        "dispatched_at": one.dispatched_at,
        "lease_until": one.lease_until,
        "expires_at": one.expires_at,
        "ended_at": one.ended_at,
        "duration_ms": one.duration_ms if one.ended else None,
    }


def _queued(one: Call, position: int | None) -> answers.Queued:
    return {
        "queue_id": one.id,
        "status": one.state,
        "ending": one.ending,
        "workspace_id": one.workspace_id,
        "caller_id": one.caller_id,
        "method": one.method,
        "priority": one.priority,
        "position": position,
        "attempts": one.attempts,
        "busy": one.busy,
        "last_error": one.last_error,
        "created_at": one.created_at,
        "dispatched_at": one.dispatched_at,
        "expires_at": one.expires_at,
        "ended_at": one.ended_at,
    }
