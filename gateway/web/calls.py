"""Calls over HTTP: how they stand, and their end."""

import asyncio
from datetime import timedelta
from http import HTTPStatus
from typing import Any, Final

import orjson
from aiohttp import web

from gateway.core import views
from gateway.core.calls import Call, State
from gateway.core.journey import Journey
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
    """Call off a call: 200 once it has ended so, 202 while it is about to."""
    call = await request.app[keys.CALLS].cancel(
        parse.principal(request), parse.workspace_id(request), parse.call_id(request)
    )
    if call.ended:
        return render.json(answers.Cancelled(status="cancelled", state=call.state))
    return render.json(answers.Cancelled(status="cancelling", state=call.state), status=HTTPStatus.ACCEPTED)


def _has_answered(one: Call) -> bool:
    return one.answer is not None and one.state is State.COMPLETED


async def _response_body(one: Call) -> Any:
    """What the agent has answered: its own text, or a string of it where that is no JSON."""
    assert one.answer is not None
    if len(one.answer) <= LONG_BYTES:
        return orjson.Fragment(views.whole(one.answer))
    return orjson.Fragment(await asyncio.to_thread(views.whole, one.answer))


def _call(one: Call) -> answers.Call:
    shown: answers.Call = {
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
    if one.journey is not None:
        shown["journey"] = _journey(one, one.journey)
    return shown


def _queued(one: Call, position: int | None) -> answers.Queued:
    assert one.expires_at is not None, "only a pushed call may last as long as it likes"
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


def _journey(one: Call, journey: Journey) -> answers.Journey:
    reset_at = None if journey.reset_ms is None else one.created_at + timedelta(milliseconds=journey.reset_ms)
    return {
        "status": journey.status,
        "replica": journey.replica,
        "clocks": {
            "idle_seconds": journey.idle_s,
            "limit_seconds": journey.limit_s,
            "limit": None if journey.limit_s is None else "deadline" if journey.by_deadline else "ceiling",
            "reset_by": journey.reset_by,
            "reset_at": reset_at,
        },
        "bytes": {"sent": journey.sent_bytes, "received": journey.received_bytes},
        "first_byte_ms": journey.first_byte_ms,
    }
