"""What /openapi.json says is true: schemathesis sends what it allows and what it does not, and compares the answers."""

import asyncio
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import pytest
from aiohttp import web

from gateway.web.routes import ROUTES
from tests.harness.agent import ScriptedAgent
from tests.harness.source import ROOT
from tests.harness.world import ADMIN_TOKEN, Workspace, World

EXAMPLES, MANY_EXAMPLES = 8, 100
"""Of each operation, and with --long."""
PHASES: Final[Mapping[str, str]] = {"operator": "examples,coverage,fuzzing", "workspace": "examples,coverage,fuzzing"}
"""What is done as whom; as others all of it with --long, and else no more than ..."""
OTHERS: Final = "examples,fuzzing"
OTHERS_EXAMPLES: Final = 3
"""... so many: they differ by who may do what, which tests/web/test_access.py walks."""
ANSWER_S = 10.0
"""The longest that any answer may take: nothing hangs."""
RUN_S = 240.0
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


async def shows(who: str, world: World, target: Workspace) -> dict[str, str]:
    """The headers by which somebody is known."""
    match who:
        case "operator":
            return {"Authorization": f"Bearer {ADMIN_TOKEN}"}
        case "workspace":
            return target.bearer
        case "nobody":
            return {}
    _, made, _ = await world.request("POST", "/org/tokens", json={"name": "schemathesis"})
    if who == "member":
        return {"Authorization": f"Bearer {made['auth_token']}"}
    body = {"token": made["auth_token"]}
    _, _, headers = await world.request("POST", "/session", json=body, headers={"Authorization": None})
    return {"Cookie": headers["Set-Cookie"].split(";")[0], "Origin": world.url}


async def explore(
    world: World,
    target: Workspace,
    agent: ScriptedAgent,
    shown: Mapping[str, str],
    options: Sequence[str],
    folder: Path,
) -> str:
    """Run schemathesis against the gateway with these headers, and return its report; fails if it found something."""
    arguments = [
        f"{world.url}/openapi.json",
        "--checks", ",".join(CHECKS),
        "--request-timeout", str(ANSWER_S),
        "--seed", "1",
        "--workers", "1",  # its threads trip over one another in Python 3.11 (gh-106905)
        "--continue-on-failure",
        "--generation-database", "none",
        "--no-color",
        *options,
    ]  # fmt: skip
    for name, value in shown.items():
        arguments += ["--header", f"{name}: {value}"]
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


@pytest.mark.timeout(RUN_S + 60)
@pytest.mark.parametrize("who", ["operator", "member", "browser", "workspace", "nobody"])
async def test_the_gateway_answers_as_its_document_says(
    world: World, who: str, tmp_path: Path, pytestconfig: pytest.Config
):
    gateway = await world.start(
        GATEWAY_MAX_READERS="1", GATEWAY_INBOX_WAIT_SECONDS="0.1", GATEWAY_PREFER_WAIT_SECONDS="0.1"
    )
    agent = await world.agent(answer)
    target = await world.workspace(agent.url)
    shown = await shows(who, world, target)
    stays = ("--exclude-operation-id", "delete /session") if who == "browser" else ()  # its session is to last
    operator = {"Authorization": f"Bearer {ADMIN_TOKEN}"}
    async with world.session.get(
        f"{world.url}/events/stream", headers=operator
    ) as reader:  # the only one: all others are sent away
        assert await reader.content.readline()
        phases, count = PHASES.get(who, OTHERS), EXAMPLES if who in PHASES else OTHERS_EXAMPLES
        if pytestconfig.getoption("--long"):
            phases, count = PHASES["operator"], MANY_EXAMPLES
        options = (*stays, "--phases", phases, "--max-examples", str(count))
        report = await explore(world, target, agent, shown=shown, options=options, folder=tmp_path)
    assert f"{len(ROUTES) - 1 - len(stays) // 2} selected" in report  # all but the document itself
    assert bool(agent.bodies) == (who != "nobody")
    assert [line for line in gateway.log().splitlines() if '"level": "error"' in line] == []
    status, _, _ = await world.request("GET", "/session", headers={"Authorization": None, **shown})
    assert status == {"workspace": 403, "nobody": 401}.get(who, 200), "who it was at first it still is"
