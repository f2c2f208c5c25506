"""Calls over HTTP: how they stand, and their end."""

from datetime import timedelta
from http import HTTPStatus

import orjson
from aiohttp import web

from gateway.core import jsontext
from gateway.core.calls import Call
from gateway.core.journey import Journey
from gateway.web import answers, keys, parse, render


async def show(request: web.Request) -> web.Response:
    """Explain a call."""
    call = await request.app[keys.CALLS].get(
        parse.principal(request), parse.workspace_id(request), parse.call_id(request)
    )
    return render.json(_call(call))


async def cancel(request: web.Request) -> web.Response:
    """Call off a call: 200 once it has ended so, 202 while it is about to."""
    call = await request.app[keys.CALLS].cancel(
        parse.principal(request), parse.workspace_id(request), parse.call_id(request)
    )
    if call.ended:
        return render.json(answers.Cancelled(status="cancelled", state=call.state))
    return render.json(answers.Cancelled(status="cancelling", state=call.state), status=HTTPStatus.ACCEPTED)


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
    if one.answer is not None:
        shown["response_body"] = orjson.Fragment(jsontext.decode(one.answer))
    if one.journey is not None:
        shown["journey"] = _journey(one, one.journey)
    return shown


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
