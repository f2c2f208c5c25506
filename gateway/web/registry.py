"""What runtimes ask for: to be known, and to know of one another."""

from aiohttp import web

from gateway.web import answers, keys, models, parse, render


async def register(request: web.Request) -> web.Response:
    """Say where an agent listens and what it can do."""
    said = await parse.body(request, models.Register)
    registered = await request.app[keys.REGISTRY].register(parse.principal(request), said.to_core())
    answer: answers.Registered = {"status": "registered", "delivery_mode": registered.delivery_mode}
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


async def discover(request: web.Request) -> web.Response:
    """Tell where a workspace's agent is called."""
    found = await request.app[keys.PEERS].discover(parse.workspace_id(request))
    return render.json(answers.Discovered(id=found.id, url=found.url, name=found.name))


async def peers(request: web.Request) -> web.Response:
    """Show who is near a workspace."""
    near = await request.app[keys.PEERS].list_near(
        parse.principal(request), parse.workspace_id(request), search=parse.search(request)
    )
    return render.json([render.peer(one) for one in near])


async def check_access(request: web.Request) -> web.Response:
    """Tell whether one workspace may talk to another."""
    asked = await parse.body(request, models.CheckAccess)
    allowed = await request.app[keys.PEERS].may_talk(
        parse.principal(request), str(asked.caller_id), str(asked.target_id)
    )
    return render.json(answers.Access(allowed=allowed))
