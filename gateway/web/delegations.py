"""Delegations over HTTP."""

from aiohttp import web

from gateway.core import delegation
from gateway.core.calls import State
from gateway.ports import PastDelegation
from gateway.services.delegation import Asked
from gateway.web import answers, keys, models, parse, render


async def delegate(request: web.Request) -> web.Response:
    """Take a task that a workspace leaves to another one."""
    source_id = parse.workspace_id(request)
    said = await parse.body(request, models.Delegate)
    asked = Asked(
        source_id=source_id,
        target_id=str(said.target_id),
        task=said.task,
        key=said.idempotency_key,
        request_id=request[keys.REQUEST_ID],
        toll=request[keys.TOLL],
        headers=request.headers,
    )
    done = await request.app[keys.DELEGATIONS].delegate(asked)
    shown: answers.Delegated = {
        "delegation_id": done.id,
        "status": done.same or "delegated",
        "target_id": done.target_id,
    }
    if done.same is not None:
        shown["idempotent_hit"] = True
    return render.json(shown, status=202)


async def show(request: web.Request) -> web.Response:
    """Show what a workspace has delegated lately."""
    rows = await request.app[keys.DELEGATIONS].list(parse.workspace_id(request))
    return render.json([_delegation(one) for one in rows])


async def record(request: web.Request) -> web.Response:
    """Take note of a task that a workspace has sent itself."""
    source_id = parse.workspace_id(request)
    said = await parse.body(request, models.RecordDelegation)
    id_, target_id = str(said.delegation_id), str(said.target_id)
    await request.app[keys.DELEGATIONS].record(source_id, target_id, said.task, id_)
    return render.json(answers.Recorded(delegation_id=id_, status="recorded", target_id=target_id), status=202)


async def update(request: web.Request) -> web.Response:
    """Take note of how a delegation stands."""
    source_id, id_ = parse.workspace_id(request), parse.delegation_id(request)
    said = await parse.body(request, models.UpdateDelegation)
    status = await request.app[keys.DELEGATIONS].update(
        parse.principal(request), source_id, id_, delegation.Report(said.status), said.text
    )
    return render.json(answers.Reported(delegation_id=id_, status=status))


def _delegation(one: PastDelegation) -> answers.Delegation:
    status = delegation.status(one.state, one.told)
    shown: answers.Delegation = {
        "id": one.id,
        "type": "delegation",
        "delegation_id": one.id,
        "source_id": one.source_id,
        "target_id": one.target_id,
        "summary": one.summary,
        "status": status,
        "created_at": one.created_at,
    }
    if one.state is State.COMPLETED:
        if one.preview:
            shown["response_preview"] = one.preview
    else:
        error = delegation.error(one.state, one.ending, one.error)
        if error is not None:
            shown["error"] = error
    return shown
