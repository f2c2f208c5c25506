"""What runtimes ask for: register, heartbeat, update-card."""

from aiohttp import web

from gateway.web import answers, keys, models, parse, render


async def register(request: web.Request) -> web.Response:
    """Say where an agent listens and what it can do."""
    said = await parse.body(request, models.Register)
    registered = await request.app[keys.REGISTRY].register(parse.principal(request), said.to_core())
    answer: answers.Registered = {"status": "registered", "delivery_mode": "push"}
    if registered.auth_token is not None:
        answer["auth_token"] = registered.auth_token
    if registered.inbound_secret is not None:
        answer["platform_inbound_secret"] = registered.inbound_secret
    return render.json(answer)


async def heartbeat(request: web.Request) -> web.Response:
    """Take a sign of life."""
    beat = await parse.body(request, models.Heartbeat)
    await request.app[keys.REGISTRY].heartbeat(parse.principal(request), str(beat.workspace_id), beat.to_core())
    return render.json(answers.Alive(status="ok"))


async def update_card(request: web.Request) -> web.Response:
    """Take a new card."""
    said = await parse.body(request, models.UpdateCard)
    await request.app[keys.REGISTRY].update_card(parse.principal(request), str(said.workspace_id), said.agent_card)
    return render.json(answers.Updated(status="updated"))
