"""What /openapi.json says is true: schemathesis sends what it allows and what it does not, and compares the answers."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from aiohttp import web

from gateway.web.routes import ROUTES
from tests.harness.agent import ScriptedAgent
from tests.harness.source import ROOT
from tests.harness.world import ADMIN_TOKEN, Workspace, World

pytestmark = pytest.mark.timeout(200)

EXAMPLES = 40
ANSWER_S = 10.0
"""The longest that any answer may take: nothing hangs."""
RUN_S = 160.0
CHECKS = (
    "nothing_breaks",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
"""Left out: those that expect a 4xx for every odd value, while a heartbeat forgives them, and a 2xx for whatever fits
the schema, while a parent has to exist."""


async def answer(request: web.Request) -> web.StreamResponse:
    return web.json_response({"jsonrpc": "2.0", "id": 1, "result": {}})


async def explore(world: World, target: Workspace, agent: ScriptedAgent, token: str | None, folder: Path) -> str:
    """Run schemathesis against the gateway with this token, and return its report; fails if it found something."""
    arguments = [
        f"{world.url}/openapi.json",
        "--checks", ",".join(CHECKS),
        "--phases", "coverage,fuzzing",
        "--max-examples", str(EXAMPLES),
        "--request-timeout", str(ANSWER_S),
        "--seed", "1",
        "--workers", "1",  # its threads trip over one another in Python 3.11 (gh-106905)
        "--continue-on-failure",
        "--generation-database", "none",
        "--no-color",
    ]  # fmt: skip
    if token is not None:
        arguments += ["--header", f"Authorization: Bearer {token}"]
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "SCHEMATHESIS_HOOKS": "tests.e2e.openapi_hooks",
        "TARGET_WORKSPACE": target.id,
        "TARGET_AGENT_URL": agent.url,
    }
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "schemathesis.cli", "run", *arguments,
        env=env, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    try:
        async with asyncio.timeout(RUN_S):
            said, _ = await run.communicate()
    finally:
        if run.returncode is None:
            run.kill()
            await run.wait()
    assert run.returncode == 0, said.decode()
    return said.decode()


@pytest.mark.parametrize("who", ["operator", "workspace", "nobody"])
async def test_the_gateway_answers_as_its_document_says(world: World, who: str, tmp_path: Path):
    gateway = await world.start(
        GATEWAY_MAX_READERS="1", GATEWAY_INBOX_WAIT_SECONDS="0.1", GATEWAY_PREFER_WAIT_SECONDS="0.1"
    )
    agent = await world.agent(answer)
    target = await world.workspace(agent.url)
    token = {"operator": ADMIN_TOKEN, "workspace": target.token, "nobody": None}[who]
    operator = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with world.session.get(
        f"{world.url}/events/stream", headers=operator
    ) as reader:  # the only one: all others are sent away
        assert await reader.content.readline()
        report = await explore(world, target, agent, token, tmp_path)
    assert f"{len(ROUTES) - 1} selected" in report  # all but the document itself
    assert bool(agent.bodies) == (who != "nobody")
    assert [line for line in gateway.log().splitlines() if '"level": "error"' in line] == []
