"""Every message shape of the corpus, sent through a running gateway to an agent that writes down what it gets."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest
import pytest_asyncio
from aiohttp import web

from gateway.core.jsontext import MAX_DEPTH
from tests.harness import corpus
from tests.harness.agent import ScriptedAgent
from tests.harness.corpus import Entry
from tests.harness.world import ADMIN_TOKEN, Workspace, World

pytestmark = pytest.mark.asyncio(loop_scope="module")

WRITTEN_S = 10.0
ANSWER = b'{"jsonrpc": "2.0", "id": 7, "result": {"odd": 1e400, "text": "\\ud800"}}'
"""Not even JSON that every parser takes; the caller gets these very bytes."""


async def answer(request: web.Request) -> web.StreamResponse:
    return web.Response(body=ANSWER, content_type="application/json")


@dataclass
class Line:
    """The way from a client through the gateway to the agent, and the calls that must not have got there."""

    world: World
    agent: ScriptedAgent
    target: Workspace
    refused: list[str] = field(default_factory=list)

    async def send(self, raw: bytes, a2a_version: str | None = None) -> tuple[int, bytes, str]:
        """Return status, body and call id of the answer."""
        headers = {"Authorization": f"Bearer {ADMIN_TOKEN}", "Content-Type": "application/json"}
        if a2a_version is not None:
            headers["A2A-Version"] = a2a_version
        url = f"{self.world.url}/workspaces/{self.target.id}/a2a"
        async with self.world.session.post(url, data=raw, headers=headers) as response:
            return response.status, await response.read(), response.headers["X-A2A-Call-ID"]

    async def calls_written(self) -> int:
        """How many calls of the target the database knows of."""
        _, used, _ = await self.world.request("GET", f"/workspaces/{self.target.id}/metrics")
        calls: int = used["calls"]
        return calls


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def line(shared_world: World) -> AsyncIterator[Line]:
    gateway = await shared_world.start()
    agent = await shared_world.agent(answer)
    line = Line(world=shared_world, agent=agent, target=await shared_world.workspace(agent.url))
    yield line
    assert not {headers["X-A2A-Call-ID"] for headers in agent.headers}.intersection(line.refused)
    assert [one for one in gateway.log().splitlines() if '"level": "error"' in one] == []


@pytest.mark.parametrize("entry", corpus.read("valid"), ids=lambda entry: entry.name)
async def test_a_valid_shape_reaches_the_agent_as_expected(line: Line, entry: Entry):
    line.target = await line.world.workspace(line.agent.url)  # many shapes have one message id, and say other things
    status, said, call_id = await line.send(entry.raw, entry.a2a_version)
    assert (status, said) == (200, ANSWER)
    assert line.agent.headers[-1]["X-A2A-Call-ID"] == call_id
    assert line.agent.headers[-1].get("A2A-Version") == entry.a2a_version
    corpus.check_sent(entry, line.agent.bodies[-1])


@pytest.mark.parametrize("entry", corpus.read("invalid"), ids=lambda entry: entry.name)
async def test_an_invalid_shape_is_refused_and_reaches_nobody(line: Line, entry: Entry):
    before = len(line.agent.bodies)
    status, said, call_id = await line.send(entry.raw)
    line.refused.append(call_id)
    assert status == entry.about["_expect_status"]
    corpus.check_refusal(entry, said)
    assert len(line.agent.bodies) == before


async def test_a_call_as_deep_as_calls_may_be_goes_out_and_is_written_down_like_any_other(line: Line):
    line.target = await line.world.workspace(line.agent.url)
    nest = MAX_DEPTH - 2
    raw = b'{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"id":' + b"[" * nest + b"]" * nest + b"}}"
    status, _, _ = await line.send(raw)
    assert (status, line.agent.bodies[-1]) == (200, raw)
    async with asyncio.timeout(WRITTEN_S):
        while await line.calls_written() != 1:
            pass
