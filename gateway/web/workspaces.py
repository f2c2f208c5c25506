"""What operators ask for: workspaces, and their usage."""

import shlex

import orjson
from aiohttp import web

from gateway.core import budget
from gateway.core.workspaces import Status, Workspace
from gateway.services.workspaces import Created
from gateway.web import answers, keys, models, parse, render


async def create(request: web.Request) -> web.Response:
    """Make a workspace; its first token is in the answer, and nowhere else."""
    wanted = await parse.body(request, models.CreateWorkspace)
    base_url = request.app[keys.PUBLIC_URL] or parse.base_url(request)
    created = await request.app[keys.WORKSPACES].create(wanted.to_core())
    return render.json(_created(created, base_url), status=201)


async def list_all(request: web.Request) -> web.Response:
    """Show all workspaces that are not removed."""
    return render.json([render.workspace(one) for one in await request.app[keys.WORKSPACES].list_all()])


async def get(request: web.Request) -> web.Response:
    """Show one workspace."""
    return render.json(render.workspace(await request.app[keys.WORKSPACES].get(parse.workspace_id(request))))


async def edit(request: web.Request) -> web.Response:
    """Change a workspace."""
    workspace_id = parse.workspace_id(request)
    wanted = await parse.body(request, models.EditWorkspace)
    answer = answers.Edited(status="updated")
    if await request.app[keys.EDITS].edit(workspace_id, wanted.to_core()):
        answer["needs_restart"] = True
    return render.json(answer)


async def remove(request: web.Request) -> web.Response:
    """Remove a workspace, with all below it if that is confirmed."""
    confirmed = parse.flag(request, "confirm")
    below = await request.app[keys.WORKSPACES].remove(parse.workspace_id(request), confirmed=confirmed)
    return render.json(answers.Removed(status=Status.REMOVED, cascade_deleted=below))


async def usage(request: web.Request) -> web.Response:
    """Show what a workspace has used today (UTC)."""
    used = await request.app[keys.WORKSPACES].usage_today(parse.workspace_id(request))
    return render.json(
        answers.Usage(calls=used.calls, input_tokens=used.input_tokens, output_tokens=used.output_tokens)
    )


async def budget_of(request: web.Request) -> web.Response:
    """Show what a workspace may spend in a month, and what it has spent."""
    return render.json(_budget(await request.app[keys.WORKSPACES].get(parse.workspace_id(request))))


async def set_budget(request: web.Request) -> web.Response:
    """Change what a workspace may spend in a month."""
    workspace_id = parse.workspace_id(request)
    wanted = await parse.body(request, models.SetBudget)
    await request.app[keys.EDITS].edit(workspace_id, {"budget_limit": wanted.budget_limit})
    return render.json(_budget(await request.app[keys.WORKSPACES].get(workspace_id)))


def _budget(workspace: Workspace) -> answers.Budget:
    limit, spend = workspace.budget_limit, workspace.spend
    return {
        "budget_limit": limit,
        "monthly_spend": spend.cents,
        "budget_remaining": budget.remaining(limit, spend),
    }


def _created(created: Created, base: str) -> answers.Created:
    shown: answers.Created = {
        "id": created.workspace_id,
        "status": created.status,
        "connection": _connection(created, base),
    }
    if created.external:
        shown["external"] = True
    return shown


def _connection(created: Created, base: str) -> answers.Connection:
    register, heartbeat = f"{base}/registry/register", f"{base}/registry/heartbeat"
    card = {"name": created.name}
    said = {"id": created.workspace_id, "url": "http://AGENT_HOST:PORT/", "agent_card": card}
    body = orjson.dumps(said).decode()  # strings alone, which Python reads as JSON writes them
    return {
        "workspace_id": created.workspace_id,
        "platform_url": base,
        "auth_token": created.token,
        "registry_endpoint": register,
        "heartbeat_endpoint": heartbeat,
        "curl_register_template": (
            f"curl -X POST {register} -H 'Authorization: Bearer {created.token}' "
            f"-H 'Content-Type: application/json' -d {shlex.quote(body)}"
        ),
        "python_snippet": (
            "import httpx\n"
            f'headers = {{"Authorization": "Bearer {created.token}"}}\n'
            f'httpx.post("{register}", headers=headers, json={body})\n'
            f'httpx.post("{heartbeat}", headers=headers, json={{"workspace_id": "{created.workspace_id}"}})\n'
        ),
    }
