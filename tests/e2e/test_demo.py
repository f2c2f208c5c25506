"""The demo agent streams: directly, through the gateway, out of its inbox, and to a published client."""

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_sdk_streams import run_client
from tests.e2e.test_streams import asked, events, open_stream
from tests.harness import demo, sdk
from tests.harness.world import ADMIN_TOKEN, World

pytestmark = pytest.mark.timeout(300)  # the first time, an environment is built

VERSION = "0.3.26"
PIECES = ["1 of 3\n", "2 of 3\n", "3 of 3\n"]


def results(raw: bytes) -> list[dict[str, Any]]:
    return [data["result"] for _, data in events(raw)]


def said(results: list[dict[str, Any]]) -> list[str]:
    """The pieces of the answer."""
    return [one["artifact"]["parts"][0]["text"] for one in results if one["kind"] == "artifact-update"]


def resubscription(task_id: str) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": 2, "method": "tasks/resubscribe", "params": {"id": task_id}}


async def test_a_caller_that_leaves_has_the_rest_from_the_agent_and_all_of_it_from_the_gateway(
    world: World, tmp_path: Path
) -> None:
    await world.start()
    target = await world.workspace()
    async with demo.running(target, world.url, tmp_path), asyncio.timeout(30):
        async with open_stream(world, target, body=asked("stream 3", message_id="m-1")) as response:
            head = await response.content.readuntil(b"\n\n")
        [(first, begun)] = events(head)
        task = begun["result"]
        assert (task["kind"], task["status"]["state"], task["artifacts"]) == ("task", "working", [])
        async with open_stream(world, target, body=resubscription(task["id"])) as response:
            shown, *rest = results(await response.read())
        assert shown["kind"] == "task", "the agent itself has answered"
        before = "".join(part["text"] for artifact in shown["artifacts"] for part in artifact["parts"])
        assert before + "".join(said(rest)) == "".join(PIECES)
        assert (rest[-1]["status"]["state"], rest[-1]["final"]) == ("completed", True)
        async with open_stream(world, target, body=resubscription(task["id"])) as response:
            again = results(await response.read())
        assert again[0] == task, "the agent's task has ended, and the gateway has kept its stream"
        assert said(again) == PIECES
        assert again[-1] == rest[-1]
        async with open_stream(world, target, body=asked("hello", message_id="m-2")) as response:
            [message] = results(await response.read())
        assert (message["kind"], message["parts"][0]["text"]) == ("message", "echo: hello")
        url = f"{world.url}/workspaces/{target.id}/a2a/calls/{first[: first.rindex('-')]}/stream"
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Last-Event-ID": first}
        async with world.session.get(url, headers=headers) as response:
            assert said(results(await response.read())) == PIECES


async def test_a_caller_of_an_agent_that_polls_is_told_what_it_says(world: World, tmp_path: Path) -> None:
    await world.start()
    target = await world.workspace(delivery_mode="poll")
    async with (
        demo.running(target, world.url, tmp_path, mode="poll"),
        asyncio.timeout(30),
        open_stream(world, target, body=asked("stream 3", message_id="m-1")) as response,
    ):
        call_id = response.headers["X-A2A-Call-ID"]
        got = results(await response.read())
    assert said(got) == PIECES
    assert [one["kind"] for one in got] == ["status-update", *["artifact-update"] * 3, "status-update"]
    assert (got[-1]["status"]["state"], got[-1]["final"]) == ("completed", True)
    _, call, _ = await world.request("GET", f"/workspaces/{target.id}/a2a/calls/{call_id}")
    assert call["response_body"]["result"]["status"]["message"]["parts"][0]["text"] == "".join(PIECES)


@pytest.fixture(scope="module")
def sdk_python() -> Path:
    """The interpreter of an environment with a2a-sdk; without a package index the test is skipped, but not in CI."""
    try:
        return sdk.python_with(VERSION)
    except sdk.SdkUnavailable as error:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"a2a-sdk {VERSION}: {error}")
        pytest.skip(f"a2a-sdk {VERSION} cannot be installed here: {error}")


async def test_a_published_client_streams_from_it_directly_through_the_gateway_and_out_of_its_inbox(
    world: World, tmp_path: Path, sdk_python: Path
) -> None:
    await world.start()
    target, polled = await world.workspace(), await world.workspace(delivery_mode="poll")
    async with (
        demo.running(target, world.url, tmp_path / "a") as agent_url,
        demo.running(polled, world.url, tmp_path / "b", mode="poll"),
    ):
        urls = [f"{world.url}/workspaces/{one.id}/a2a" for one in (target, polled)]
        directly = await run_client(sdk_python, f"{agent_url}/", "stream 3,hi")
        through = await run_client(sdk_python, urls[0], "stream 3,hi", ADMIN_TOKEN)
        fetched = await run_client(sdk_python, urls[1], "stream 3,hi", ADMIN_TOKEN)
    assert [one["error"] for one in directly + fetched] == [None] * 4
    assert through == directly
    for got in (directly, fetched):
        told, message = got
        assert [text for event in told["events"] for text in event["texts"]] == PIECES
        assert told["events"][-1]["state"] == "completed"
        assert message["events"] == [{"kind": "message", "state": None, "texts": ["echo: hi"]}]
