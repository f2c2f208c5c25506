"""Clients of a2a-sdk, as published, get the same streams through the gateway, and an end that they can read."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from aiohttp import web

from tests.e2e.test_streams import HEADERS, asked, open_stream
from tests.harness import agent as agents
from tests.harness import sdk
from tests.harness.agent import Behaviour
from tests.harness.world import ADMIN_TOKEN, World

pytestmark = pytest.mark.timeout(600)  # the first time, four environments are built

VERSIONS: Final = ("0.3.8", "0.3.22", "0.3.26", "1.3.0")
CLIENT: Final = Path(__file__).with_name("sdk_stream.py")
CLIENT_S: Final = 60.0
KEEPALIVE_S: Final = 0.05
PAUSE_S: Final = 0.3
"""How long the agent says nothing, so that the gateway does."""
PLAIN: Final = "HTTP+JSON"
STREAMING: Final = ("message/stream", "SendStreamingMessage")


@pytest.fixture(scope="module", params=VERSIONS)
def sdk_python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with a2a-sdk; without a package index the tests are skipped, but not in CI."""
    try:
        return sdk.python_with(request.param)
    except sdk.SdkUnavailable as error:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"a2a-sdk {request.param}: {error}")
        pytest.skip(f"a2a-sdk {request.param} cannot be installed here: {error}")


async def run_client(
    python: Path, url: str, texts: str, *bearer: str, binding: str = "JSONRPC"
) -> list[dict[str, Any]]:
    """What the client gets at this address, a stream for each text."""
    client = await asyncio.create_subprocess_exec(
        python, CLIENT, binding, url, texts, *bearer, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(CLIENT_S):
            said, complaints = await client.communicate()
    except TimeoutError:
        client.kill()
        raise
    assert client.returncode == 0, complaints.decode()
    results: list[dict[str, Any]] = json.loads(said)
    return results


def results_of(method: str) -> list[dict[str, Any]]:
    """A task from its beginning to its end, in the words of the version of this method."""
    names = {"taskId": "task-1", "contextId": "c"}
    if "/" not in method:
        artifact = {"artifactId": "a", "parts": [{"text": "half a line\nand more"}]}
        return [
            {"task": {"id": "task-1", "contextId": "c", "status": {"state": "TASK_STATE_SUBMITTED"}}},
            {"statusUpdate": {**names, "status": {"state": "TASK_STATE_WORKING"}}},
            {"artifactUpdate": {**names, "artifact": artifact}},
            {"statusUpdate": {**names, "status": {"state": "TASK_STATE_COMPLETED"}}},
        ]
    artifact = {"artifactId": "a", "parts": [{"kind": "text", "text": "half a line\nand more"}]}
    return [
        {"kind": "task", "id": "task-1", "contextId": "c", "status": {"state": "submitted"}},
        {"kind": "status-update", **names, "status": {"state": "working"}, "final": False},
        {"kind": "artifact-update", **names, "artifact": artifact},
        {"kind": "status-update", **names, "status": {"state": "completed"}, "final": True},
    ]


def telling(*, comments: bool) -> Behaviour:
    """An agent that streams a task: all of it, or `cut`, half of it; it does not know how to go on with one."""

    async def behave(request: web.Request) -> web.StreamResponse:
        call = orjson.loads(await request.read())
        if call["method"] not in STREAMING:
            error = {"code": -32601, "message": "no"}
            return web.json_response({"jsonrpc": "2.0", "id": call["id"], "error": error})
        results = results_of(call["method"])
        if call["params"]["message"]["parts"][0]["text"] == "cut":
            del results[2:]
        response = web.StreamResponse(headers=HEADERS)
        await response.prepare(request)
        for number, result in enumerate(results):
            if comments:
                await response.write(b": still here\n\n")
                await asyncio.sleep(PAUSE_S)
            event = {"jsonrpc": "2.0", "id": call["id"], "result": result}
            await response.write(b"id: theirs-%d\r\ndata: %b\r\n\r\n" % (number, orjson.dumps(event)))
        return response

    return behave


async def telling_plainly(request: web.Request) -> web.StreamResponse:
    """The same by HTTP+JSON, which has the words of A2A 1.0 in 0.3, too."""
    body = await request.read()
    if not request.path.endswith("message:stream"):
        error = {"code": 404, "message": "no", "details": [{"reason": "TASK_NOT_FOUND"}]}
        return web.json_response({"error": error}, status=404)
    message = orjson.loads(body)["message"]
    [part] = message.get("parts") or message["content"]
    results = results_of("SendStreamingMessage")
    if part["text"] == "cut":
        del results[2:]
    response = web.StreamResponse(headers=HEADERS)
    await response.prepare(request)
    for result in results:
        await asyncio.sleep(PAUSE_S)
        await response.write(b"data: %b\r\n\r\n" % orjson.dumps(result))
    return response


async def test_the_sdk_yields_the_same_and_reads_how_a_stream_has_ended(world: World, sdk_python: Path) -> None:
    await world.start(GATEWAY_SSE_KEEPALIVE_SECONDS=str(KEEPALIVE_S))
    quiet, noisy = await world.agent(telling(comments=False)), await world.agent(telling(comments=True))
    target = await world.workspace(noisy.url)
    url = f"{world.url}/workspaces/{target.id}/a2a"
    directly = await run_client(sdk_python, quiet.url, "whole,cut")
    through = await run_client(sdk_python, url, "whole,cut,whole,again", ADMIN_TOKEN)
    (whole, cut), (got, ended, _, again) = directly, through
    assert (len(whole["events"]), whole["error"]) == (4, None)
    assert len(cut["events"]) == 2
    assert got == whole
    assert ended["events"] == cut["events"]
    _check(ended["error"], "agent ended its stream without a last event", "truncated")
    assert again["error"] is None
    assert again["events"] == whole["events"], "though its agent cannot"
    async with open_stream(world, target, body=asked("whole")) as response:
        raw = await response.read()
    assert b":\nid: " in raw, "the gateway has said that it is still there"
    assert b": still here\n" in raw


async def test_the_sdk_reads_that_an_agent_is_not_there(world: World, sdk_python: Path) -> None:
    await world.start()
    async with agents.running() as agent:
        target = await world.workspace(agent.url)
    url = f"{world.url}/workspaces/{target.id}/a2a"
    [result] = await run_client(sdk_python, url, "hi", ADMIN_TOKEN)
    assert result["events"] == []
    _check(result["error"], "failed to reach workspace agent", "agent_unreachable")


async def test_so_it_does_by_http_json(world: World, sdk_python: Path) -> None:
    await world.start(GATEWAY_SSE_KEEPALIVE_SECONDS=str(KEEPALIVE_S))
    agent = await world.agent(telling_plainly)
    target = await world.workspace(agent.url)
    async with agents.running() as gone:
        lost = await world.workspace(gone.url)
    url = f"{world.url}/workspaces/{target.id}/a2a"
    [whole] = await run_client(sdk_python, agent.url, "whole", binding=PLAIN)
    got, ended, _, again = await run_client(sdk_python, url, "whole,cut,whole,again", ADMIN_TOKEN, binding=PLAIN)
    assert (len(whole["events"]), whole["error"]) == (4, None)
    assert got == whole
    assert ended["events"] == whole["events"][:2]
    assert ended["error"] is not None, "clients of 0.3 know no errors in a stream, and say that they could not read it"
    assert not ended["error"]["words_alone"] or "agent ended its stream without a last event" in ended["error"]["words"]
    assert again == whole, "though its agent cannot"
    [refused] = await run_client(sdk_python, f"{world.url}/workspaces/{lost.id}/a2a", "hi", ADMIN_TOKEN, binding=PLAIN)
    assert refused["events"] == []
    assert any(said in refused["error"]["words"] for said in ("502", "got 'application/json'"))  # so 0.3.8 has it


def _check(error: dict[str, Any], sentence: str, code: str) -> None:
    """The error says what has happened; those of 1.x keep the sentence alone."""
    assert "-32000" in error["words"] or error["code"] == -32000
    assert sentence in error["words"]
    assert error["words_alone"] or error["data"]["code"] == code
