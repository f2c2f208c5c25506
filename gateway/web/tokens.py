"""Tokens of workspaces and of the organisation: made, listed, revoked."""

from collections.abc import Sequence
from typing import Final

from aiohttp import web

from gateway.ports import LiveToken
from gateway.web import answers, keys, models, parse, render

ONCE: Final = "Keep this token: it is not shown again."


async def mint(request: web.Request) -> web.Response:
    """Make a new token of a workspace."""
    workspace_id = parse.workspace_id(request)
    given = await request.app[keys.TOKENS].mint(workspace_id)
    return render.json(
        answers.Token(auth_token=given.text, id=given.id, workspace_id=workspace_id, message=ONCE), status=201
    )


async def list_live(request: web.Request) -> web.Response:
    """Show a workspace's tokens."""
    return render.json(_shown(await request.app[keys.TOKENS].list_live(parse.workspace_id(request))))


async def revoke(request: web.Request) -> web.Response:
    """Take a workspace's token back."""
    await request.app[keys.TOKENS].revoke(parse.workspace_id(request), parse.token_id(request))
    return render.json(answers.Revoked(status="revoked"))


async def mint_for_tests(request: web.Request) -> web.Response:
    """Make a token of a workspace, for whoever tests the gateway from outside."""
    workspace_id = parse.workspace_id(request)
    given = await request.app[keys.TOKENS].mint(workspace_id, name="test")
    return render.json(answers.Token(auth_token=given.text, id=given.id, workspace_id=workspace_id, message=ONCE))


async def mint_for_organisation(request: web.Request) -> web.Response:
    """Make a new token of the organisation."""
    wanted = await parse.body(request, models.MintToken)
    given = await request.app[keys.TOKENS].mint(None, name=wanted.name)
    return render.json(answers.OrgToken(auth_token=given.text, id=given.id, message=ONCE), status=201)


async def list_of_organisation(request: web.Request) -> web.Response:
    """Show the organisation's tokens."""
    return render.json(_shown(await request.app[keys.TOKENS].list_live(None)))


async def revoke_of_organisation(request: web.Request) -> web.Response:
    """Take a token of the organisation back."""
    await request.app[keys.TOKENS].revoke(None, parse.token_id(request))
    return render.json(answers.Revoked(status="revoked"))


def _shown(tokens: Sequence[LiveToken]) -> list[answers.LiveToken]:
    return [
        answers.LiveToken(
            id=one.id,
            prefix=one.prefix,
            name=one.name,
            created_at=one.created_at,
            last_used_at=one.last_used_at,
        )
        for one in tokens
    ]
