"""PostgreSQL or Redis is killed, or stopped: every step does what docs/failures.md says, and nothing is half done."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4

import aiohttp
import pytest

from gateway.store.migrate import migrate
from tests.conftest import PLENTY, RATES
from tests.harness import faults
from tests.harness.agent import ScriptedAgent
from tests.harness.busy import busy, queued
from tests.harness.faults import Datastores, Fault
from tests.harness.source import ROOT
from tests.harness.world import ADMIN_TOKEN, Workspace, World, until

ANSWER_S: Final = 20.0
REPLY: Final = {"body": {"jsonrpc": "2.0", "id": "1", "result": {}}}


@dataclass(kw_only=True)
class Scene:
    """One gateway, those whom it has met before the fault, and those whom it has not."""

    world: World
    agent: ScriptedAgent
    known: Workspace
    """Its agent can be called, and has been; its token and its place are known."""
    unknown: Workspace
    """Like it, but nobody has asked for it yet."""
    caller: Workspace
    stranger: Workspace
    """A caller whose token has not been shown yet."""
    rich: Workspace
    """A caller with a budget."""
    polls: Workspace
    parked: str
    """A message in its inbox."""
    busy: Workspace
    waits: str
    """A call that waits for it."""

    async def ask(self, method: str, path: str, by: Workspace | None = None, **options: Any) -> str:
        """Return status and code of the answer."""
        headers = by.bearer if by else {}
        async with asyncio.timeout(ANSWER_S):
            status, said, _ = await self.world.request(method, path, headers=headers, **options)
        return f"{status} {said['code']}" if status >= 400 and "code" in said else str(status)

    async def of(self, whose: Workspace, method: str, path: str, **options: Any) -> str:
        """Ask for something of a workspace, as itself."""
        return await self.ask(method, f"/workspaces/{whose.id}{path}", whose, **options)

    async def call(self, to: Workspace, by: Workspace, message_id: str | None = None) -> str:
        message = {"role": "user", "messageId": message_id or uuid4().hex, "parts": [{"kind": "text", "text": "hi"}]}
        body = {"jsonrpc": "2.0", "id": "1", "method": "message/send", "params": {"message": message}}
        return await self.ask("POST", f"/workspaces/{to.id}/a2a", by, json=body)

    async def call_twice(self) -> str:
        """Send a message and send it again; return how often its agent got it."""
        message_id = f"m-{uuid4().hex}"
        for _ in range(2):
            assert await self.call(self.known, self.caller, message_id) == "200"
        taken = sum(message_id.encode() in body for body in self.agent.bodies)
        return {1: "200, made once", 2: "200, made again"}[taken]

    async def register(self) -> str:
        body = {"id": self.known.id, "url": self.agent.url, "agent_card": {}}
        return await self.ask("POST", "/registry/register", self.known, json=body)

    async def beat(self, of: Workspace) -> str:
        return await self.ask("POST", "/registry/heartbeat", of, json={"workspace_id": of.id})

    async def stream(self) -> str:
        """Open a workspace's events and make a call; return whether the reader hears of it, or that it cannot."""
        url = f"{self.world.url}/workspaces/{self.known.id}/events/stream"
        async with asyncio.timeout(ANSWER_S), self.world.session.get(url, headers=self.known.bearer) as response:
            assert await self.call(self.known, self.caller) == "200"
            while True:
                said = await response.content.readuntil(b"\n\n")
                if b"CALL_ENDED" in said or b"degraded" in said:
                    return f"{response.status}, {'live' if b'CALL_ENDED' in said else 'told'}"

    async def unchecked(self) -> int:
        """How many requests have gone on uncounted."""
        _, text, _ = await self.world.request("GET", "/metrics")
        [line] = [line for line in text.decode().splitlines() if line.startswith("gateway_requests_unchecked_total ")]
        return int(float(line.split()[1]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Step:
    """What is asked, what comes without PostgreSQL and without Redis, and why, or what then."""

    what: str
    do: Callable[[Scene], Awaitable[str]]
    postgres: str
    redis: str
    then: str = ""


AWAY: Final = "503 platform_unavailable"
STEPS: Final = (
    Step(
        what="a call of a workspace to another, both known to this replica",
        do=lambda s: s.call(s.known, s.caller),
        postgres="200",
        redis="200",
        then="Credential and workspace come from memory; histories and usage are written when PostgreSQL is back.",
    ),
    Step(
        what="the same with a budget",
        do=lambda s: s.call(s.known, s.rich),
        postgres="200",
        redis="200",
        then="Without Redis nothing is held back of the budget, and no rate is counted: it goes on, and "
        "`gateway_requests_unchecked_total` counts it.",
    ),
    Step(
        what="the same message sent twice",
        do=lambda s: s.call_twice(),
        postgres="200, made once",
        redis="200, made again",
        then="Answers are kept in Redis.",
    ),
    Step(
        what="a call to a workspace that this replica has not met",
        do=lambda s: s.call(s.unknown, s.caller),
        postgres=AWAY,
        redis="200",
        then="Nobody knows whether the one may call the other: nothing is sent.",
    ),
    Step(
        what="a call with a credential that this replica has not met",
        do=lambda s: s.call(s.known, s.stranger),
        postgres=AWAY,
        redis="200",
        then="Nobody knows whose it is.",
    ),
    Step(
        what="a call to an agent that polls",
        do=lambda s: s.call(s.polls, s.caller),
        postgres=AWAY,
        redis="200",
        then="It is in the inbox before it is acknowledged, or not at all.",
    ),
    Step(
        what="an agent asks for its messages",
        do=lambda s: s.of(s.polls, "GET", "/inbox?wait=0.1"),
        postgres=AWAY,
        redis="200",
    ),
    Step(
        what="an agent answers a message",
        do=lambda s: s.of(s.polls, "POST", f"/inbox/{s.parked}/reply", json=REPLY),
        postgres=AWAY,
        redis="200",
        then="The kit's agent says it again until it is taken.",
    ),
    Step(
        what="a call to an agent that says that it is busy",
        do=lambda s: s.call(s.busy, s.caller),
        postgres="503 agent_busy",
        redis="202",
        then="It waits once it is written; where it cannot be, its caller hears what the agent has said.",
    ),
    Step(
        what="a call that waits is called off",
        do=lambda s: s.of(s.busy, "POST", f"/a2a/calls/{s.waits}/cancel"),
        postgres=AWAY,
        redis="200",
    ),
    Step(
        what="a task is delegated",
        do=lambda s: s.of(s.caller, "POST", "/delegate", json={"target_id": s.known.id, "task": "do"}),
        postgres=AWAY,
        redis="202",
        then="It is written before it is promised; it is sent without Redis, too.",
    ),
    Step(
        what="how a stored call stands",
        do=lambda s: s.of(s.polls, "GET", f"/a2a/calls/{s.parked}"),
        postgres=AWAY,
        redis="200",
    ),
    Step(
        what="a heartbeat",
        do=lambda s: s.beat(s.known),
        postgres="200",
        redis="200",
        then="Without Redis calls on other replicas learn of it from PostgreSQL.",
    ),
    Step(
        what="a heartbeat with a credential that this replica has not met",
        do=lambda s: s.beat(s.stranger),
        postgres=AWAY,
        redis="200",
    ),
    Step(what="an agent registers", do=lambda s: s.register(), postgres=AWAY, redis="200"),
    Step(
        what="an agent writes into its history, or tells people something",
        do=lambda s: s.of(s.known, "POST", "/notify", json={"message": "hi"}),
        postgres="200",
        redis="200",
        then="It is written, and told, when what is away is back; a process that dies meanwhile takes it along.",
    ),
    Step(what="a history", do=lambda s: s.of(s.known, "GET", "/activity"), postgres=AWAY, redis="200"),
    Step(
        what="a stream of events is opened",
        do=lambda s: s.stream(),
        postgres="200, live",
        redis="200, told",
        then="`bus: degraded`, until Redis is back; what was missed then comes, or a `gap`.",
    ),
    Step(what="a token is made", do=lambda s: s.of(s.known, "POST", "/tokens"), postgres=AWAY, redis="201"),
    Step(
        what="a browser logs in",
        do=lambda s: s.ask("POST", "/session", json={"token": ADMIN_TOKEN}),
        postgres=AWAY,
        redis="201",
    ),
    Step(
        what="a workspace is made",
        do=lambda s: s.ask("POST", "/workspaces", json={"name": "one more", "external": True}),
        postgres=AWAY,
        redis="201",
    ),
    Step(
        what="a workspace is changed",
        do=lambda s: s.ask("PATCH", f"/workspaces/{s.known.id}", json={"collapsed": True}),
        postgres=AWAY,
        redis="200",
        then="All replicas know within a second: changes are found in PostgreSQL, too.",
    ),
    Step(what="workspaces are listed", do=lambda s: s.ask("GET", "/workspaces"), postgres=AWAY, redis="200"),
    Step(what="what was spent", do=lambda s: s.of(s.known, "GET", "/budget"), postgres=AWAY, redis="200"),
    Step(what="`/healthz`, `/metrics`", do=lambda s: s.ask("GET", "/healthz"), postgres="200", redis="200"),
    Step(
        what="`/readyz`",
        do=lambda s: s.ask("GET", "/readyz"),
        postgres="503",
        redis="200",
        then="Its body names what is away.",
    ),
)
"""The page's table."""


def table() -> str:
    """The steps as docs/failures.md has to have them."""
    rows = ["| step | PostgreSQL away | Redis away | |", "|---|---|---|---|"]
    rows += [f"| {one.what} | {one.postgres} | {one.redis} | {one.then} |" for one in STEPS]
    return "\n".join(rows)


@pytest.fixture(scope="module")
def datastores() -> Iterator[Datastores]:
    with faults.own_datastores() as both:
        migrate(both.urls.database_url)
        yield both


@pytest.fixture
async def scene(datastores: Datastores) -> AsyncIterator[Scene]:
    env = {
        "GATEWAY_DATABASE_URL": datastores.urls.database_url,
        "GATEWAY_REDIS_URL": datastores.urls.redis_url,
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "GATEWAY_ALLOW_PRIVATE_AGENTS": "1",
        "GATEWAY_WRITE_EVERY_SECONDS": "0.1",
        "GATEWAY_STATEMENT_TIMEOUT_SECONDS": "1",
        "GATEWAY_CACHE_TTL_SECONDS": "600",
        "GATEWAY_LOG_FORMAT": "json",
        **dict.fromkeys(RATES, PLENTY),
    }
    async with AsyncExitStack() as stack:
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        world = World(stack, session, env)
        await world.start()
        agent = await world.agent()
        url = agent.url
        known, polls, caller = (
            await world.workspace(url),
            await world.workspace(delivery_mode="poll"),
            await world.workspace(),
        )
        status, said, _ = await world.call(polls, headers=caller.bearer)
        assert status == 200, said
        shut, _ = await busy(world)
        scene = Scene(
            world=world,
            agent=agent,
            known=known,
            unknown=await world.workspace(url),
            caller=caller,
            stranger=await world.workspace(),
            rich=await world.workspace(budget_limit=1000),
            polls=polls,
            parked=said["id"],
            busy=shut,
            waits=await queued(world, shut),
        )
        for by in (scene.caller, scene.rich):
            assert await scene.call(known, by) == "200"
        assert await scene.beat(known) == await scene.beat(polls) == "200"
        yield scene


@pytest.mark.parametrize("fault", list(Fault), ids=lambda fault: fault.value)
async def test_each_step_does_what_the_page_says(scene: Scene, datastores: Datastores, fault: Fault):
    rows = """select (select count(*) from calls where kind <> 'push'), (select count(*) from tokens),
                     (select count(*) from workspaces)"""
    before = await scene.world.sql(rows)
    made = len(scene.agent.bodies)
    async with datastores.without(fault):
        came = await asyncio.gather(*(step.do(scene) for step in STEPS))
        assert {step.what: said for step, said in zip(STEPS, came, strict=True)} == {
            step.what: step.redis if fault.of_redis else step.postgres for step in STEPS
        }
        unchecked = await scene.unchecked()
    assert (unchecked > 0) == fault.of_redis
    taken = len(scene.agent.bodies) - made
    if not fault.of_redis:
        assert await scene.world.sql(rows) == before, "what was refused was not done"
        assert taken == 4, "and nothing was sent"
    # what was taken is in the histories, once
    told = """select count(*) from activity
               where workspace_id::text = any(%s) and activity_type = 'a2a_receive' and method = %s"""
    called = [scene.known.id, scene.unknown.id]
    for method, count in (("message/send", made + taken), ("notify", 1)):
        await until(lambda m=method: scene.world.sql(told, called, m), lambda got, n=count: got == [(n,)], 20)
    assert await scene.call(scene.unknown, scene.stranger) == "200", "and all goes on"


def test_the_page_has_this_table():
    assert table() in (ROOT / "docs/failures.md").read_text()
