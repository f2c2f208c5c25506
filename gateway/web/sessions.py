"""A browser's session: opened, shown, ended."""

from html import escape
from typing import Final

from aiohttp import web

from gateway.core.refusals import Code, Refusal, bad_field
from gateway.web import answers, keys, models, parse, render

PAGE: Final = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>A2A gateway</title>
<form method="post" action="session"><input type="hidden" name="code" value="%s"><button>Log in</button></form>
"""
PAGE_POLICY: Final = "default-src 'none'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"


async def page(request: web.Request) -> web.Response:
    """Show the page that a one-time link leads to: the code is used by a click, and not by whoever looks ahead."""
    response = web.Response(text=PAGE % escape(request.query.get("code", "")), content_type="text/html")
    response.headers["Content-Security-Policy"] = PAGE_POLICY
    response.headers["Cache-Control"] = "no-store"
    return response


async def open_one(request: web.Request) -> web.Response:
    """Open a session; the answer sets its cookie, which no page can read."""
    origin = request.headers.get("Origin")
    known = origin is None or parse.is_own_origin(request, origin) or request.app[keys.CROSS_ORIGIN].allows(origin)
    if not known:
        raise Refusal(Code.CROSS_SITE, "a page of another site may not log you in")
    said = await parse.body(request, models.Login, form=True)
    if (said.token is None) == (said.code is None):
        raise bad_field("token", "a token or a code is needed, and not both")
    sessions = request.app[keys.SESSIONS]
    if said.token is not None:
        opened = await sessions.open_by_token(said.token)
    else:
        opened = await sessions.open_by_code(said.code or "")
    response = render.json(
        answers.Session(role="admin" if opened.admin else "member", expires_in_s=opened.lasts_s), status=201
    )
    response.headers["Cache-Control"] = "no-store"
    response.set_cookie(
        parse.SESSION_COOKIE,
        opened.text,
        max_age=int(opened.lasts_s),
        path="/",
        httponly=True,
        samesite="Strict",
        secure=request.secure or request.app[parse.PUBLIC_ORIGIN].startswith("https:"),
    )
    return response


async def show(request: web.Request) -> web.Response:
    """Show who asks."""
    shown = request.app[keys.SESSIONS].show(parse.principal(request))
    return render.json(answers.Session(role="admin" if shown.admin else "member", expires_in_s=shown.left_s))


async def end(request: web.Request) -> web.Response:
    """End the session that asks: its streams end, too."""
    await request.app[keys.SESSIONS].end(parse.principal(request))
    response = render.json(answers.Ended(status="ended"))
    response.del_cookie(parse.SESSION_COOKIE, path="/", httponly=True, samesite="Strict")
    return response
