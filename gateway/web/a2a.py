"""The A2A endpoint of every workspace: JSON-RPC at its address, HTTP+JSON at the paths below it."""

from typing import Final

from aiohttp import web

from gateway.core import http_json
from gateway.core.refusals import Code, Refusal
from gateway.services.requests import Asked
from gateway.services.streams import Opened
from gateway.services.vigils import Awaited
from gateway.web import keys, parse, relayed, render

SEGMENTS: Final = 4
"""What stands before the path of HTTP+JSON: nothing, `workspaces`, the workspace, `a2a`."""


async def call(request: web.Request) -> web.StreamResponse:
    """Forward one JSON-RPC call to a workspace's agent and answer as the agent did."""
    return await _forward(request, None)


async def operate(request: web.Request) -> web.StreamResponse:
    """Forward one request of HTTP+JSON, its path as it was written."""
    url = request.rel_url
    path = url.raw_path.split("/", SEGMENTS)[SEGMENTS]
    found = http_json.find(request.method, path, url.raw_query_string, a2a_version=request.headers.get("A2A-Version"))
    match found:
        case http_json.Operation():
            return await _forward(request, found)
        case http_json.OtherVerbs(verbs=verbs):
            await request.app[keys.TOLLS].take(request[keys.TOLL])  # as what is refused otherwise
            raise web.HTTPMethodNotAllowed(request.method, verbs)
        case None:
            raise Refusal(Code.NOT_FOUND, "no such route")


async def _forward(request: web.Request, operation: http_json.Operation | None) -> web.StreamResponse:
    call_off = relayed.wants_call_off(request)
    body = await parse.raw(request)
    asked = Asked(
        call_id=request[keys.CALL_ID],
        request_id=request[keys.REQUEST_ID],
        target_id=parse.workspace_id(request),
        principal=parse.principal(request),
        claimed=parse.claimed(request),
        peer=parse.peer(request),
        toll=request[keys.TOLL],
        gone=lambda: request.transport is None,
        headers=request.headers,
        body=body,
        hold=request[parse.HOLD],
        call_off=call_off,
        operation=operation,
    )
    answer = await request.app[keys.PROXY].call(asked)
    if isinstance(answer, Opened):
        made_here = answer.head.call_id == asked.call_id  # who has joined a call does not end it
        if not made_here:
            return await relayed.join(request, answer)
        return await relayed.serve(request, answer, call_off=call_off)
    if isinstance(answer, Awaited):
        made_here = answer.call_id == asked.call_id
        return await relayed.stay(request, answer, call_off=call_off and made_here)
    request[keys.CALL_ID] = answer.call_id or asked.call_id
    return render.answer(answer)
