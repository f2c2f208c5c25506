"""Browsers' sessions: how they are opened, what their cookie may, and what a page of another site may not."""

import re
from collections.abc import Mapping
from typing import Any

import pytest

from tests.harness import process
from tests.harness.world import ADMIN_TOKEN, World

NO_BEARER = {"Authorization": None}


async def opened(world: World, **said: str) -> tuple[dict[str, str | None], Mapping[str, str]]:
    """Open a session; return what its pages send, and the answer's headers."""
    status, body, headers = await world.request("POST", "/session", json=said, headers=NO_BEARER)
    assert status == 201, body
    return {**NO_BEARER, "Cookie": headers["Set-Cookie"].split(";")[0], "Origin": world.url}, headers


async def org_token(world: World) -> dict[str, Any]:
    _, body, _ = await world.request("POST", "/org/tokens", json={})
    shown: dict[str, Any] = body
    return shown


async def test_a_session_is_a_cookie_that_no_page_can_read_and_ends_by_logout(world: World):
    await world.start(GATEWAY_SESSION_SECONDS="100")
    mine, headers = await opened(world, token=ADMIN_TOKEN)
    cookie = headers["Set-Cookie"]
    for part in ("HttpOnly", "SameSite=Strict", "Path=/", "Max-Age=100"):
        assert part in cookie
    assert "Secure" not in cookie
    assert headers["Cache-Control"] == "no-store"
    status, body, _ = await world.request("GET", "/session", headers=mine)
    assert (status, body["role"]) == (200, "admin")
    assert 90 < body["expires_in_s"] <= 100
    assert (await world.request("GET", "/org/tokens", headers=mine))[0] == 200
    status, body, headers = await world.request("DELETE", "/session", headers=mine)
    assert (status, body) == (200, {"status": "ended"})
    assert "Max-Age=0" in headers["Set-Cookie"]
    assert (await world.request("GET", "/session", headers=mine))[0] == 401


async def test_behind_tls_the_cookie_is_for_tls_alone(world: World):
    await world.start(GATEWAY_PUBLIC_URL="https://gateway.example")
    _, headers = await opened(world, token=ADMIN_TOKEN)
    assert "Secure" in headers["Set-Cookie"]


async def test_a_member_is_no_operator_and_ends_with_the_token(world: World):
    first = await world.start()
    second = await world.start()
    ours = await org_token(world)
    mine, _ = await opened(world, token=ours["auth_token"])
    assert (await world.request("GET", "/session", headers=mine))[1]["role"] == "member"
    assert (await world.request("GET", "/workspaces", headers=mine, gateway=second))[0] == 200
    assert (await world.request("GET", "/org/tokens", headers=mine))[0] == 403
    url = f"{second.url}/events/stream"
    async with world.session.get(url, headers={"Cookie": str(mine["Cookie"])}) as stream:
        assert stream.status == 200
        assert (await world.request("DELETE", f"/org/tokens/{ours['id']}", gateway=first))[0] == 200
        while await stream.content.readline():
            pass
    assert (await world.request("GET", "/workspaces", headers=mine, gateway=second))[0] == 401


async def test_a_stream_ends_when_its_session_is_over(world: World):
    gateway = await world.start(GATEWAY_SESSION_SECONDS="2")
    mine, _ = await opened(world, token=ADMIN_TOKEN)
    async with world.session.get(f"{gateway.url}/events/stream", headers={"Cookie": str(mine["Cookie"])}) as stream:
        assert stream.status == 200
        while await stream.content.readline():
            pass
    assert (await world.request("GET", "/session", headers=mine))[0] == 401


@pytest.mark.parametrize(
    ("origin", "site", "lets"),
    [
        ("own", None, True),
        ("http://localhost:3000", None, True),
        (None, "same-origin", True),
        (None, "none", True),
        ("https://evil.example", None, False),
        ("https://evil.example", "same-origin", False),
        ("null", None, False),
        ("", None, False),
        ("http://[", None, False),
        (None, "cross-site", False),
        (None, "same-site", False),
        (None, None, False),
    ],
)
async def test_what_changes_something_by_cookie_must_come_from_a_page_of_ours(
    world: World, origin: str | None, site: str | None, lets: bool
):
    gateway = await world.start()
    mine, _ = await opened(world, token=ADMIN_TOKEN)
    mine["Origin"] = gateway.url if origin == "own" else origin
    mine["Sec-Fetch-Site"] = site
    status, body, _ = await world.request("POST", "/workspaces", json={"name": "x"}, headers=mine)
    assert (status == 201) is lets
    if not lets:
        assert (status, body["code"]) == (403, "cross_site")
    assert (await world.request("GET", "/workspaces", headers=mine))[0] == 200  # a page cannot read this, says CORS
    agent = await world.agent()
    target = await world.workspace(agent.url)
    got = (await world.request("GET", f"/workspaces/{target.id}/a2a/tasks/1", headers=mine))[0]
    assert (got, len(agent.bodies)) == ((200, 1) if lets else (403, 0)), "it calls an agent"


@pytest.mark.parametrize(("origin", "status"), [("own", 101), ("https://evil.example", 403), (None, 403)])
async def test_a_socket_by_cookie_must_come_from_a_page_of_ours(world: World, origin: str | None, status: int):
    gateway = await world.start()
    mine, _ = await opened(world, token=ADMIN_TOKEN)
    headers = {"Cookie": str(mine["Cookie"]), "Connection": "upgrade", "Upgrade": "websocket",
               "Sec-WebSocket-Version": "13", "Sec-WebSocket-Key": "x" * 22 + "=="}  # fmt: skip
    if origin is not None:
        headers["Origin"] = gateway.url if origin == "own" else origin
    async with world.session.get(f"{gateway.url}/ws", headers=headers) as response:
        assert response.status == status


@pytest.mark.parametrize(
    ("said", "status", "code"),
    [
        ({"token": "x" * 43}, 401, "invalid_credential"),
        ({"code": "x" * 43}, 401, "invalid_credential"),
        ({"token": ADMIN_TOKEN, "code": "x"}, 400, "invalid_request"),
        ({}, 400, "invalid_request"),
        ({"token": ""}, 400, "invalid_request"),
        ({"token": 5}, 400, "invalid_request"),
    ],
)
async def test_a_session_is_not_opened_by(world: World, said: dict[str, Any], status: int, code: str):
    await world.start()
    told, body, headers = await world.request("POST", "/session", json=said, headers=NO_BEARER)
    assert (told, body["code"]) == (status, code)
    assert "Set-Cookie" not in headers


async def test_a_workspaces_token_opens_no_session_and_another_site_none_at_all(world: World):
    await world.start()
    mine = await world.workspace()
    assert (await world.request("POST", "/session", json={"token": mine.token}, headers=NO_BEARER))[0] == 403
    there = {**NO_BEARER, "Origin": "https://evil.example"}
    status, body, _ = await world.request("POST", "/session", json={"token": ADMIN_TOKEN}, headers=there)
    assert (status, body["code"]) == (403, "cross_site")


async def test_the_link_of_login_opens_one_session_with_one_click(world: World):
    gateway = await world.start()
    link = (await process.run("login", "--url", gateway.url, env=world.env)).strip()
    assert link.startswith(f"{gateway.url}/login?code=")
    async with world.session.get(link) as page:
        assert page.status == 200
        assert page.headers["Cache-Control"] == "no-store"
        assert "form-action 'self'" in page.headers["Content-Security-Policy"]
        [code] = re.findall(r'name="code" value="([^"]+)"', await page.text())
    async with world.session.post(f"{gateway.url}/session", data={"code": code}) as clicked:
        assert clicked.status == 201
        assert (await clicked.json())["role"] == "admin"
    world.session.cookie_jar.clear()
    async with world.session.post(f"{gateway.url}/session", data={"code": code}) as again:
        assert again.status == 401


async def test_the_page_shows_what_it_is_given_as_text(world: World):
    await world.start()
    _, body, _ = await world.request("GET", '/login?code="><script>alert(1)</script>')
    assert b"<script>" not in body
