"""gateway.web.workspaces: what who makes a workspace is given for its agent."""

import json
import shlex

from tests.harness.world import World

NAME = """Anna's "$(id)" \\ agent"""


async def test_the_templates_for_an_agent_have_the_name_of_its_workspace_whatever_that_is(world: World):
    await world.start()
    _, made, _ = await world.request("POST", "/workspaces", json={"name": NAME, "external": True})
    said = {"id": made["id"], "url": "http://AGENT_HOST:PORT/", "agent_card": {"name": NAME}}
    connection = made["connection"]
    words = shlex.split(connection["curl_register_template"])
    assert json.loads(words[-1]) == said
    assert f"Authorization: Bearer {connection['auth_token']}" in words
    posted = {}

    class Client:
        @staticmethod
        def post(url, *, headers, json):
            posted[url] = json

    lines = connection["python_snippet"].removeprefix("import httpx\n")
    exec(lines, {"httpx": Client})
    assert posted == {
        connection["registry_endpoint"]: said,
        connection["heartbeat_endpoint"]: {"workspace_id": made["id"]},
    }


async def test_who_calls_a_workspace_without_a_url_is_asked_to_come_back(world: World):
    await world.start()
    target = await world.workspace(delivery_mode="push")
    status, body, headers = await world.call(target)
    assert (status, body["code"], body["status"], headers["Retry-After"]) == (503, "no_url", "awaiting_agent", "15")
