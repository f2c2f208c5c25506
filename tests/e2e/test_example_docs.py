"""examples/README.md: what it has an agent without the kit write is taken."""

import re
import shutil
from typing import Any, Final

import orjson
import pytest

from tests.e2e.test_stream_docs import run
from tests.harness.source import ROOT
from tests.harness.world import World, until

REGISTER, HEARTBEAT = re.findall(r"```sh\n(.*?)```", (ROOT / "examples" / "README.md").read_text(), re.DOTALL)
URL: Final = "http://127.0.0.1:9000/"

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


async def said(command: str, **env: str) -> Any:
    """What curl prints, and fails with if it is refused."""
    return orjson.loads(await run(command.replace("curl", "curl --fail-with-body"), **env))


async def test_an_agent_without_the_kit_registers_beats_and_is_called(world: World) -> None:
    await world.start()
    agent, target = await world.agent(), await world.workspace()
    env = {"GATEWAY": world.url, "ID": target.id, "TOKEN": target.token}
    assert URL in REGISTER
    registered = await said(REGISTER.replace(URL, agent.url), **env)
    assert (registered["status"], registered["delivery_mode"]) == ("registered", "push")
    assert await said(HEARTBEAT, **env) == {"status": "ok"}
    await until(
        lambda: world.request("GET", f"/workspaces/{target.id}"),
        lambda got: (got[1]["current_task"], got[1]["active_tasks"]) == ("counting", 1),
    )
    status, _, _ = await world.call(target)
    assert status == 200
