"""The inbox of an agent that polls, over HTTP."""

import orjson
from aiohttp import web

from gateway.core import inbox
from gateway.ports import Message
from gateway.web import answers, keys, models, parse, query, render


async def take(request: web.Request) -> web.Response:
    """Hand out the oldest messages under a lease, or wait for one."""
    taken = await request.app[keys.INBOX].take(
        parse.workspace_id(request),
        wait_s=query.wait_s(request),
        limit=query.messages(request),
        gone=lambda: request.transport is None,
        check=lambda: parse.check_still_good(request),
    )
    messages = [_message(one) for one in taken.messages]
    return render.json(answers.Messages(messages=messages, lease_seconds=taken.lease_s))


async def acknowledge(request: web.Request) -> web.Response:
    """Take note that the agent has a message for good."""
    state = await request.app[keys.INBOX].acknowledge(parse.workspace_id(request), parse.call_id(request))
    return render.json(answers.Settled(status="acknowledged", state=state))


async def reply(request: web.Request) -> web.Response:
    """Take the answer to a call."""
    workspace_id, call_id = parse.workspace_id(request), parse.call_id(request)
    received = await parse.raw(request)
    parse.read(received, models.Reply)
    answer = inbox.member(received, "body")
    state = await request.app[keys.INBOX].reply(workspace_id, call_id, answer)
    return render.json(answers.Settled(status="replied", state=state))


async def progress(request: web.Request) -> web.Response:
    """Take an event of a call: the last one is its answer, any other keeps the message with its agent."""
    workspace_id, call_id = parse.workspace_id(request), parse.call_id(request)
    received = await parse.raw(request)
    progress = parse.read(received, models.Progress)
    event = inbox.member(received, "event")
    if progress.final:
        state = await request.app[keys.INBOX].reply(workspace_id, call_id, event)
        return render.json(answers.Settled(status="replied", state=state))
    state = await request.app[keys.INBOX].keep(workspace_id, call_id, event if progress.event else None)
    return render.json(answers.Settled(status="kept", state=state))


def _message(one: Message) -> answers.Message:
    call = one.call
    assert call.expires_at is not None, "what lies in an inbox has its time"
    return {
        "id": call.id,
        "method": call.method,
        "source_id": call.caller_id,
        "attempts": call.attempts,
        "created_at": call.created_at,
        "expires_at": call.expires_at,
        "lease_until": call.lease_until,
        "request": orjson.Fragment(one.body.removeprefix(b"\xef\xbb\xbf")),
    }
