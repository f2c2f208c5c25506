"""Clients of a2a-sdk, as published, cannot tell the gateway from the agent behind it."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from tests.harness import demo, sdk
from tests.harness.world import ADMIN_TOKEN, World

pytestmark = pytest.mark.timeout(300)  # the first time, the environment is built

VERSIONS = ("0.3.26",)
CLIENT = Path(__file__).with_name("sdk_client.py")
CLIENT_S = 60.0


@pytest.fixture(scope="module", params=VERSIONS)
def sdk_python(request: pytest.FixtureRequest) -> Path:
    """The interpreter of an environment with a2a-sdk; without a package index the tests are skipped, but not in CI."""
    try:
        return sdk.python_with(request.param)
    except sdk.SdkUnavailable as error:
        if os.environ.get("CI", "").lower() == "true":
            pytest.fail(f"a2a-sdk {request.param}: {error}")
        pytest.skip(f"a2a-sdk {request.param} cannot be installed here: {error}")


async def run_client(python: Path, url: str, *bearer: str) -> dict[str, Any]:
    """Return what the client sees at this address."""
    client = await asyncio.create_subprocess_exec(
        python, CLIENT, url, *bearer, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    try:
        async with asyncio.timeout(CLIENT_S):
            said, complaints = await client.communicate()
    except TimeoutError:
        client.kill()
        raise
    assert client.returncode == 0, complaints.decode()
    results: dict[str, Any] = json.loads(said)
    return results


async def test_the_sdk_sees_the_same_through_the_gateway_as_at_the_agent(
    world: World, sdk_python: Path, tmp_path: Path
):
    await world.start()
    target = await world.workspace()
    async with demo.running(target, world.url, tmp_path) as agent_url:
        directly = await run_client(sdk_python, f"{agent_url}/")
        through = await run_client(sdk_python, f"{world.url}/workspaces/{target.id}/a2a", ADMIN_TOKEN)
    assert through == directly
    assert directly["send"] == {"kind": "message", "role": "agent", "parts": ["echo: hi"]}
    assert directly["slow"]["state"] == "completed"
    assert directly["slow"]["artifacts"] == [["echo: slow 0.2"]]
    assert directly["get"] == directly["slow"]
    assert directly["get without history"] == {**directly["slow"], "history": []}
    assert directly["get unknown"]["code"] == -32001
    assert directly["begin"]["state"] in ("submitted", "working")
    assert directly["cancel"]["state"] == directly["get cancelled"]["state"] == "canceled"
    assert directly["cancel again"]["code"] == -32002
    assert directly["stream"] == directly["send"]


async def test_the_sdk_reads_the_refusals_of_the_gateway(world: World, sdk_python: Path):
    await world.start()
    agent = await world.agent()
    target = await world.workspace(agent.url)
    unknown = f"{world.url}/workspaces/{uuid4()}/a2a"
    assert await run_client(sdk_python, unknown, ADMIN_TOKEN) == {
        "send": {"error": "A2AClientHTTPError", "status": 404}
    }
    known = f"{world.url}/workspaces/{target.id}/a2a"
    assert await run_client(sdk_python, known) == {"send": {"error": "A2AClientHTTPError", "status": 401}}
    assert agent.bodies == []
