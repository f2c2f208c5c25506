"""Where a gateway that is hosted for others goes, seen from outside: nowhere near itself, and it does not say why."""

import asyncio
import time
from typing import Any

import pytest

from tests.harness import agent
from tests.harness.agent import ScriptedAgent
from tests.harness.world import Workspace, World

HOSTED = {"GATEWAY_ALLOW_PRIVATE_AGENTS": "0"}
NOT_ROUTABLE = {"error": "workspace URL is not publicly routable", "code": "unsafe_url"}
INSIDE = (
    "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::1]:{port}/", "http://[::ffff:127.0.0.1]:{port}/",
    "http://10.0.0.1:{port}/", "http://169.254.169.254/latest/meta-data/", "http://metadata.google.internal/",
    "http://2130706433:{port}/", "http://0x7f.1:{port}/", "http://u:p@127.0.0.1:{port}/", "http://agent.example:22/",
    "http://printer.local/",
)  # fmt: skip


def port_of(one: ScriptedAgent) -> str:
    return one.url.rsplit(":", 1)[1].strip("/")


async def stored(world: World, url: str) -> Workspace:
    """A workspace whose url got into the database before it was refused."""
    one = await world.workspace("https://agent.example/")
    await world.sql("update workspaces set url = %s where id = %s", url, one.id)
    return one


@pytest.mark.parametrize("allowed", [False, True], ids=["hosted", "same-network"])
async def test_a_url_of_the_inside_is_refused_with_its_reason_wherever_it_is_named(world: World, allowed: bool):
    await world.start(GATEWAY_ALLOW_PRIVATE_AGENTS=str(int(allowed)))
    named = INSIDE[5:] if allowed else INSIDE
    safe = await world.workspace()
    for pattern in named:
        url = pattern.format(port=8000)
        if allowed and url == "http://printer.local/":
            continue
        for path, said in (
            ("/workspaces", {"name": "x", "external": True, "url": url}),
            ("/registry/register", {"id": safe.id, "url": url, "agent_card": {}}),
        ):
            status, body, _ = await world.request("POST", path, json=said)
            assert (status, body["code"], body["field"]) == (400, "invalid_request", "url"), (path, url)
            assert body["error"].startswith("url: ")


async def test_a_stored_url_of_the_inside_is_neither_called_nor_handed_on_nor_explained(world: World):
    gateway = await world.start(**HOSTED)
    inside = await world.agent()
    parent = await world.workspace()
    for pattern in INSIDE:
        url = pattern.format(port=port_of(inside))
        one = await stored(world, url)
        await world.sql("update workspaces set parent_id = %s where id = %s", parent.id, one.id)
        status, body, _ = await world.call(one)
        assert (status, body) == (502, NOT_ROUTABLE), url
        status, body, _ = await world.request("GET", f"/registry/discover/{one.id}", headers=one.bearer)
        assert (status, body) == (502, NOT_ROUTABLE), url
    status, near, _ = await world.request("GET", f"/registry/{parent.id}/peers", headers=parent.bearer)
    assert (status, len(near)) == (200, len(INSIDE))
    assert {one["url"] for one in near} == {None}
    assert inside.bodies == []
    assert gateway.log().count("unsafe_url") == 2 * len(INSIDE)


async def test_a_redirect_leads_nowhere(world: World):
    inside = await world.agent()
    await world.start()
    for to in (inside.url, "http://169.254.169.254/"):
        led = await world.agent(agent.redirecting(to))
        status, _, headers = await world.call(await world.workspace(led.url))
        assert (status, "Location" in headers) == (307, False)
        assert len(led.bodies) == 1
    assert inside.bodies == []


async def test_a_proxy_of_the_environment_is_not_used(world: World):
    target, proxy = await world.agent(), await world.agent()
    names = ("HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy")
    await world.start(**dict.fromkeys(names, proxy.url))
    status, _, _ = await world.call(await world.workspace(target.url))
    assert (status, len(target.bodies), proxy.bodies) == (200, 1, [])


async def test_ports_are_kept_to(world: World):
    good, bad = await world.agent(), await world.agent()
    await world.start(GATEWAY_AGENT_PORTS=port_of(good))
    one = await world.workspace(good.url)
    assert (await world.call(one))[0] == 200
    status, body, _ = await world.request("POST", "/workspaces", json={"name": "x", "url": bad.url})
    assert (status, body["error"]) == (400, "url: the port is not one for agents")
    await world.sql("update workspaces set url = %s where id = %s", bad.url, one.id)
    await told_of(world, one)
    status, body, _ = await world.call(one)
    assert (status, body) == (502, NOT_ROUTABLE)
    assert bad.bodies == []


async def told_of(world: World, one: Workspace) -> None:
    """Wait until the gateway has heard of what was changed behind its back: a call is refused then."""
    deadline = time.monotonic() + 10
    while True:
        status, _, _ = await world.call(one)
        if status != 200:
            return
        assert time.monotonic() < deadline, "the gateway never heard of it"
        await asyncio.sleep(0.05)


async def test_agents_find_one_another(world: World):
    await world.start()
    called = await world.agent()
    root = await world.workspace(called.url, name="the root", role="lead")
    child = await world.workspace(called.url, name="a child", parent_id=root.id)
    stranger = await world.workspace(parent_id=(await world.workspace()).id)

    async def ask(method: str, path: str, who: Workspace, **options: Any) -> tuple[int, Any]:
        status, body, _ = await world.request(method, path, headers=who.bearer, **options)
        return status, body

    assert await ask("GET", f"/registry/discover/{root.id}", child) == (
        200, {"id": root.id, "name": "the root", "url": called.url}
    )  # fmt: skip
    status, near = await ask("GET", f"/registry/{child.id}/peers?q=LEAD", child)
    assert (status, [one["id"] for one in near]) == (200, [root.id])
    assert set(near[0]) == {
        "id", "name", "role", "tier", "status", "url", "parent_id", "active_tasks", "agent_card"
    }  # fmt: skip
    assert await ask("GET", f"/registry/{child.id}/peers?q=nobody", child) == (200, [])
    for target, allowed in ((root, True), (stranger, False)):
        asked = {"caller_id": child.id, "target_id": target.id}
        assert await ask("POST", "/registry/check-access", child, json=asked) == (200, {"allowed": allowed})
