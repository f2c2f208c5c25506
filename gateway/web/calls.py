"""Stored calls over HTTP."""

import orjson
from aiohttp import web

from gateway.core import jsontext
from gateway.core.calls import Call
from gateway.web import answers, keys, parse, render


async def show(request: web.Request) -> web.Response:
    """Explain a call."""
    call = await request.app[keys.CALLS].get(
        parse.principal(request), parse.workspace_id(request), parse.call_id(request)
    )
    return render.json(_call(call))


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
    return shown
