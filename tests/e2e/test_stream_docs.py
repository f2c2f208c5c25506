"""docs/streams.md: what it shows does what it says."""

import asyncio
import os
import re
import shutil
from typing import Any, Final

import pytest
from aiohttp import web

from tests.e2e.test_resubscribe import error
from tests.e2e.test_streams import events, streaming, update
from tests.harness.source import ROOT
from tests.harness.world import World

EXAMPLES: Final = re.findall(r"```sh\n(.*?)```", (ROOT / "docs" / "streams.md").read_text(), re.DOTALL)
SHOWN_CALL, SHOWN_TASK, TASK = "5d0c...", "t-1", "task-1"

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")


async def run(command: str, **env: str) -> bytes:
    """What a shell prints."""
    shell = await asyncio.create_subprocess_exec(
        "bash", "-c", command, env={**os.environ, **env}, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    async with asyncio.timeout(30):
        said, complaints = await shell.communicate()
    assert shell.returncode == 0, complaints.decode()
    return said


def numbers(seen: list[tuple[str | None, Any]]) -> list[int]:
    return [one["result"]["metadata"]["n"] for _, one in seen]


async def test_the_examples_lose_a_stream_and_have_the_rest_of_it(world: World) -> None:
    one, other = await asyncio.gather(world.start(), world.start())

    async def script(response: web.StreamResponse, _: bytes) -> None:
        for n in range(1, 6):
            await response.write(update(n, final=n == 5))

    agent = await world.agent(streaming(script))
    target = await world.workspace(agent.url)
    env = {"GATEWAY": one.url, "OTHER": other.url, "AGENT": target.id, "CALLER": target.token}
    call, go_on, resubscribe, plain = EXAMPLES
    head, _, body = (await run(call, **env)).partition(b"\r\n\r\n")
    assert numbers(events(body)) == [1, 2, 3, 4, 5]
    found = re.search(rb"X-A2A-Call-ID: (\S+)", head)
    assert found is not None
    agent.behave = error(-32601)
    for example in (go_on, resubscribe):
        assert SHOWN_CALL in example
        said = await run(example.replace(SHOWN_CALL, found[1].decode()).replace(SHOWN_TASK, TASK), **env)
        assert numbers(events(said)) == [3, 4, 5]
    agent.behave = streaming(script)
    _, _, body = (await run(plain, **env)).partition(b"\r\n\r\n")
    assert numbers(events(body)) == [1, 2, 3, 4, 5]
