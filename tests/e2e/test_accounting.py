"""Thousands of calls, agents that lie down and break off, replicas that are killed: every call is accounted for."""

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

import aiohttp
import pytest

from gateway.core.calls import FINAL, State
from gateway.core.endings import Ending
from gateway.services.tasks import Tasks
from tests.harness import unruly
from tests.harness.busy import QUICK
from tests.harness.fleet import Fleet
from tests.harness.unruly import Unruly
from tests.harness.world import Workspace, World, until

CALLS: Final = int(os.environ.get("A2A_ACCOUNTING_CALLS", "2000"))
SEED: Final = int(os.environ.get("A2A_ACCOUNTING_SEED", "1"))
REPLICAS: Final = 3
AGENTS: Final = 5
CLIENTS: Final = 30
AGAIN: Final = 0.2
"""How many messages are sent once more, whatever came the first time."""
SETTLE_S: Final = 60.0
UNKNOWN: Final = frozenset({Ending.AGENT_RESET, Ending.INTERRUPTED, Ending.TRUNCATED, Ending.GATEWAY_SHUTDOWN})
"""Endings after which nobody knows what the agent has done."""


@dataclass
class Books:
    """What clients have been told. `calls`: the texts by call; `unheard`: those whose answer was lost at least once."""

    calls: dict[str, str] = field(default_factory=dict)
    answers: Counter[tuple[int, str]] = field(default_factory=Counter)
    unheard: set[str] = field(default_factory=set)
    promised: set[str] = field(default_factory=set)
    """Calls that were said to wait."""


@pytest.fixture
async def fleet(world: World) -> AsyncIterator[Fleet]:
    one = Fleet(world, {**QUICK, "GATEWAY_PROBE_SECONDS": "0.2", "GATEWAY_QUEUE_TTL_SECONDS": "600"})
    try:
        await asyncio.gather(*(one.start() for _ in range(REPLICAS)))
        yield one
    finally:
        await one.close()


async def send(world: World, fleet: Fleet, random: Random, to: Workspace, text: str, books: Books) -> None:
    """Send a message through any replica, and write down what comes of it."""
    message = {"role": "user", "messageId": text, "parts": [{"kind": "text", "text": text}]}
    body = {"jsonrpc": "2.0", "id": text, "method": "message/send", "params": {"message": message}}
    gateway = fleet.alive[fleet.choose(random)]
    try:
        status, said, headers = await world.request(
            "POST", f"/workspaces/{to.id}/a2a", gateway=gateway, json=body, timeout=aiohttp.ClientTimeout(total=30)
        )
    except (aiohttp.ClientError, TimeoutError, ConnectionError):
        books.unheard.add(text)
        return
    books.answers[status, said.get("code", "")] += 1
    call_id = said.get("queue_id") or said.get("call_id") or headers.get("X-A2A-Call-ID")
    if status in (502, 503) and said.get("code") in ("overloaded", "draining"):
        return  # it was never let in
    assert call_id is not None, (status, said)
    assert books.calls.setdefault(call_id, text) == text, "a call has one message"
    if status == 202:
        books.promised.add(call_id)


async def torment(fleet: Fleet, agents: list[Unruly], random: Random) -> None:
    """Kill replicas, and take agents down, for ever."""
    while True:
        await asyncio.sleep(random.uniform(0.3, 1.0))
        if random.random() < 0.5:
            await fleet.kill(fleet.choose(random))
            await fleet.start()
        else:
            agent = random.choice(agents)
            await agent.go_down()
            await asyncio.sleep(random.uniform(0.1, 0.5))
            await agent.come_up()


@pytest.mark.timeout(300)
async def test_every_call_comes_to_one_end_and_nothing_is_done_twice(
    world: World, fleet: Fleet, capsys: pytest.CaptureFixture[str]
):
    random = Random(SEED)
    books = Books()
    started = fleet._started
    async with AsyncExitStack() as stack:
        agents = [await stack.enter_async_context(unruly.running(random)) for _ in range(AGENTS)]
        targets = [await world.workspace(agent.url, max_concurrent_tasks=5) for agent in agents]
        texts = iter([f"m{number}" for number in range(CALLS)])

        async def client() -> None:
            for text in texts:
                to = random.choice(targets)
                await send(world, fleet, random, to, text, books)
                if random.random() < AGAIN:
                    await send(world, fleet, random, to, text, books)

        async with Tasks() as tasks:
            tasks.spawn(torment(fleet, agents, random), "torment")
            async with asyncio.TaskGroup() as clients:
                for _ in range(CLIENTS):
                    clients.create_task(client())
            assert tasks.deaths == 0
        for agent in agents:
            agent.calm = True
        rows = await settled(world, books)
        taken = sum((agent.taken for agent in agents), Counter[str]())
        done = sum((agent.done for agent in agents), Counter[str]())
    ends = Counter(row.ending for row in rows.values())
    with capsys.disabled():
        print(
            f"\n{CALLS} messages, {sum(books.answers.values())} answers, {len(books.unheard)} lost with their replica, "
            f"{fleet._started - started} replicas killed; taken {len(taken)}, waited {len(books.promised)}; "
            + ", ".join(f"{count} {ending}" for ending, count in ends.most_common())
        )
    assert fleet._started > started, "nothing was killed"
    assert not {text: count for text, count in taken.items() if count > 1}, "nothing is done twice"
    for call_id, text in books.calls.items():
        row = rows[call_id]
        if row.ending in (Ending.COMPLETED, Ending.AGENT_ERROR):
            assert done[text] == 1, f"{call_id} {row} of what was never done"
        elif taken[text]:
            others = {rows[other].ending for other, same in books.calls.items() if same == text}
            assert others & (UNKNOWN | {Ending.COMPLETED, Ending.AGENT_ERROR}), f"{text} was taken, and {row} denies it"
    assert set(taken) <= set(books.calls.values()) | books.unheard, "nothing is done that nobody has asked for"
    assert (
        len({rows[call_id].state for call_id in books.promised} - {State.COMPLETED, State.FAILED, State.INTERRUPTED})
        == 0
    )
    twice = "select call_id from activity where activity_type = 'a2a_receive' group by call_id having count(*) > 1"
    assert await world.sql(twice) == [], "every end is told once"


@dataclass(frozen=True)
class Row:
    """A call as the ledger has it in the end."""

    kind: str
    state: State
    ending: Ending


async def settled(world: World, books: Books) -> dict[str, Row]:
    """All calls of the ledger, once each that anybody was told of has come to its end, and none is under way."""
    query = "select id::text, kind, state, ending from calls"

    async def ask() -> dict[str, tuple[Any, ...]]:
        return {row[0]: row[1:] for row in await world.sql(query)}

    def are_ended(found: dict[str, tuple[Any, ...]]) -> bool:
        return books.calls.keys() <= found.keys() and all(state in FINAL for _, state, _ in found.values())

    try:
        found = await until(ask, are_ended, SETTLE_S)
    except TimeoutError:
        found = await ask()
        lost = {id_: books.calls[id_] for id_ in books.calls.keys() - found.keys()}
        open_ = {id_: row for id_, row in found.items() if row[1] not in FINAL}
        raise AssertionError(f"lost: {lost}; without an end: {open_}") from None
    return {id_: Row(kind, State(state), Ending(ending)) for id_, (kind, state, ending) in found.items()}
