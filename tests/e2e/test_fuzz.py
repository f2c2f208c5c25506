"""The A2A endpoint, asked fifty thousand odd things of an agent that answers oddly: each gets the answer it must get.

Bodies are what hypothesis draws, and the corpus, damaged byte by byte; they go through a real gateway to a real agent
(`harness/odd.py`), over a few connections that must last. What each body has to get is foretold: by the normaliser,
called here, if it must not go on, and else by the way in which the agent answers. So there is no answer that the
contract does not know, no 5xx but the documented one, none that takes for ever, and none that belongs to another call.
Each call that went out is counted once. Afterwards the gateway holds no more than after the first fifth of them.

How many: A2A_FUZZ_BODIES, by default 50,000, always the same; with --long half a million, others each time. The seed is
printed when something is found; A2A_FUZZ_SEED gives its bodies again.
"""

import asyncio
import json
import os
import secrets
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Final

import hypothesis
import orjson
import psutil
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from gateway.core.envelope import CODES, BadEnvelope, normalise
from gateway.core.ids import new_id
from gateway.services.tasks import Tasks
from tests.harness import corpus, odd
from tests.harness.calls import LIKELY_CALLS
from tests.harness.client import RawClient, connected, head
from tests.harness.mutation import Mutations
from tests.harness.odd import STOLEN, WAYS, Way
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World

SEED: Final = 1
OF_INBOXES: Final = {"method_not_found", "unsupported_operation"}
"""What only who calls an agent that polls is told."""
BODIES: Final = 50_000
LONG_BODIES: Final = 500_000
DRAWN: Final = 250
"""How many of the bodies that are damaged hypothesis has drawn."""
CALLERS: Final = 12
ANSWER_S: Final = 30.0
"""The longest that any answer may take: nothing hangs."""
SETTLE_S: Final = 60.0
GROWTH_MB: Final = 32
"""What the process may have grown by after four fifths of the bodies: an allocator's unrest, and no more."""
SHOWN: Final = 5
VERSIONS: Final = (None, None, None, "0.3", "1.0", "")
LIKELY_WAYS: Final = ("echo",) * 6 + ("result", "usage-0")
SLOW_SHARE: Final = 0.01
QUICK_WAYS: Final = tuple(name for name, way in WAYS.items() if not way.takes_long)
SLOW_WAYS: Final = tuple(name for name, way in WAYS.items() if way.takes_long)


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One call: what is sent, and how the agent is to answer it."""

    number: int
    body: bytes
    version: str | None
    way: str

    def request(self, to: Workspace) -> bytes:
        lines = [f"A2A-Extensions: {self.way}", f"Content-Length: {len(self.body)}"]
        if self.version is not None:
            lines.append(f"A2A-Version: {self.version}")
        if WAYS[self.way].takes_long:
            lines.append("X-Timeout: 0.2")
        return head("POST", f"/workspaces/{to.id}/a2a", *lines) + self.body


@dataclass(frozen=True, kw_only=True)
class Foretold:
    """What a trial has to get: one of these statuses with its code, this very body if there is one."""

    gets: tuple[tuple[int, str | None], ...]
    goes_out: bool
    body: bytes | None = None

    @classmethod
    def of(cls, trial: Trial) -> "Foretold":
        found = normalise(trial.body, a2a_version=trial.version, mint=new_id)
        if isinstance(found, BadEnvelope):
            return cls(gets=((400, CODES[found.code]),), goes_out=False)
        way: Way = WAYS[trial.way]
        untouched = trial.way == "echo" and found.body is trial.body
        gets = tuple(map(in_band, way.gets)) if found.streaming else way.gets
        return cls(gets=gets, goes_out=True, body=trial.body if untouched else None)


def in_band(got: tuple[int, str | None]) -> tuple[int, str | None]:
    """What a caller that streams gets instead of an answer that its client would lose."""
    status, code = got
    return (200, f"in band: {code}") if status in (502, 503, 504) and code is not None else got


def trials(seed: int) -> Iterator[Trial]:
    """All that is tried, without end; the same for the same seed. What is drawn is drawn at once: it takes a while."""
    entries = [entry.raw for kind in ("valid", "invalid") for entry in corpus.read(kind)]
    return mutated([*entries, *drawn(seed)], Random(seed))


def mutated(entries: list[bytes], rng: Random) -> Iterator[Trial]:
    for number, body in enumerate(of_their_own(Mutations(entries, rng))):
        way = rng.choice(LIKELY_WAYS if rng.random() < 0.6 else QUICK_WAYS)
        if rng.random() < SLOW_SHARE:
            way = rng.choice(SLOW_WAYS)
        yield Trial(number=number, body=body, version=rng.choice(VERSIONS), way=way)


def of_their_own(bodies: Iterable[bytes]) -> Iterator[bytes]:
    """Each with a message id of its own, if it has one: the same once more would be the same call."""
    seen: set[str] = set()
    for number, body in enumerate(bodies):
        own, said = body, message_id(body)
        if said is not None:
            own = body.replace(orjson.dumps(said), orjson.dumps(f"{said}-{number}"))
            said = message_id(own)
        if said is None or said not in seen:
            seen.update(() if said is None else (said,))
            yield own


def message_id(body: bytes) -> str | None:
    """The message id that somebody has chosen, whatever the version."""
    found = normalise(body, a2a_version="1.0", mint=new_id)
    return None if isinstance(found, BadEnvelope) or not found.client_message_id else found.message_id


def drawn(seed: int) -> list[bytes]:
    """What hypothesis draws."""
    bodies: list[bytes] = []

    @hypothesis.seed(seed)
    @settings(
        max_examples=DRAWN, phases=[Phase.generate], database=None, deadline=None, suppress_health_check=[*HealthCheck]
    )
    @given(LIKELY_CALLS)
    def draw(text: str) -> None:
        bodies.append(text.encode())

    draw()
    return bodies


class Run:
    """Sends trials, several at once, and notes what was not as foretold."""

    def __init__(self, gateway: GatewayProcess, target: Workspace, tried: Iterator[Trial]) -> None:
        self._gateway = gateway
        self._target = target
        self._tried = tried
        self._left = 0
        self.went_out = 0
        self.seen: Counter[tuple[int, str | None]] = Counter()
        self.faults: list[str] = []

    async def send(self, count: int) -> None:
        """Send so many more of them."""
        self._left = count
        async with Tasks() as tasks:
            await asyncio.gather(*(tasks.spawn(self._call(), f"caller {number}") for number in range(CALLERS)))

    async def _call(self) -> None:
        async with connected(self._gateway.url) as client:
            while self._left > 0 and not client.writer.is_closing():
                self._left -= 1
                await self._try(client, next(self._tried))

    async def _try(self, client: RawClient, trial: Trial) -> None:
        foretold = Foretold.of(trial)
        self.went_out += foretold.goes_out
        try:
            async with asyncio.timeout(ANSWER_S):
                status, body = await exchange(client, trial.request(self._target))
        except (TimeoutError, ConnectionError, EOFError) as error:
            self.faults.append(f"{trial}: no answer, {error!r}; foretold was {foretold}")
            client.writer.close()
            return
        got = status, code_of(status, body)
        self.seen[got] += 1
        if got not in foretold.gets or (foretold.body is not None and body != foretold.body) or STOLEN in body:
            self.faults.append(f"{trial}: {got}, {body[:300]!r}; foretold was {foretold}")


async def exchange(client: RawClient, request: bytes) -> tuple[int, bytes]:
    """Send one request and return the status and the body of its answer; the connection stays."""
    client.writer.write(request)
    said = (await client.reader.readuntil(b"\r\n\r\n")).lower()
    assert b"\r\nconnection: close" not in said, said
    length = said.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
    return int(said.split(b" ", 2)[1]), await client.reader.readexactly(int(length or 0))


def code_of(status: int, body: bytes) -> str | None:
    """The stable code in an answer that is not a success."""
    if status < 300:
        told = body.startswith(b"data: ") and b'"retriable":' in body
        return f"in band: {json.loads(body[6:])['error']['data']['code']}" if told else None
    code: str | None = json.loads(body).get("code")  # not orjson: a caller's id keeps its characters, whatever they are
    return code


@dataclass(frozen=True, kw_only=True)
class Held:
    """What a gateway holds that has nothing to do."""

    memory_mb: float
    files: int
    """But for the connections to its agent that it keeps for the next call."""


async def settled(world: World, gateway: GatewayProcess, agent_url: str) -> Held:
    """Wait until nothing is under way any more, and say what is left."""
    nothing = {
        "gateway_calls_in_flight": 0, "gateway_body_bytes": 0, "gateway_activity_waiting_rows": 0,
        "gateway_bus_waiting_events": 0, "gateway_connections": 1, "gateway_tasks_died_total": 0,
    }  # fmt: skip
    async with asyncio.timeout(SETTLE_S):
        while not (await readings(world)).items() >= nothing.items():
            pass
    process = psutil.Process(gateway.pid)
    port = int(agent_url.rstrip("/").rpartition(":")[2])
    to_agent = sum(1 for one in process.net_connections("tcp") if one.raddr and one.raddr.port == port)
    assert to_agent <= CALLERS
    return Held(memory_mb=process.memory_info().rss / 2**20, files=process.num_fds() - to_agent)


async def readings(world: World) -> dict[str, float]:
    _, text, _ = await world.request("GET", "/metrics")
    lines = [line.rpartition(" ") for line in text.decode().splitlines() if not line.startswith("#")]
    return {name: float(value) for name, _, value in lines}


@pytest.mark.timeout(3600)
async def test_each_of_many_odd_bodies_gets_the_answer_it_must_get_and_leaves_nothing_behind(
    world: World, request: pytest.FixtureRequest
):
    long = request.config.getoption("--long")
    bodies = int(os.environ.get("A2A_FUZZ_BODIES", LONG_BODIES if long else BODIES))
    seed = int(os.environ.get("A2A_FUZZ_SEED", secrets.randbits(32) if long else SEED))
    gateway = await world.start(
        A2A_MAX_RESPONSE_BYTES=str(odd.MOST_BYTES), GATEWAY_JOURNAL_LENGTH="500", GATEWAY_RING_BYTES="1000000"
    )
    async with odd.running() as url:
        target = await world.workspace(url)
        sessions = {"capabilities": {"session": True}}  # its calls do not wait: each is sent once
        assert await world.beat(target, runtime_metadata=sessions) == 200
        run = Run(gateway, target, trials(seed))
        await run.send(bodies // 5)
        before = await settled(world, gateway, url)
        await run.send(bodies - bodies // 5)
        assert not run.faults, "\n".join([f"A2A_FUZZ_SEED={seed}", *run.faults[:SHOWN]])
        after = await settled(world, gateway, url)
    print(before, after, run.seen)
    assert run.seen.total() == bodies
    assert run.went_out > bodies / 10, "many of them are calls"
    assert {None if code is None else code.removeprefix("in band: ") for _, code in run.seen} == {
        None,
        *(code for code in CODES.values() if code not in OF_INBOXES),
        *(code for way in WAYS.values() for _, code in way.gets),
    }
    _, used, _ = await world.request("GET", f"/workspaces/{target.id}/metrics")
    dropped = (await readings(world))["gateway_activity_dropped_rows_total"]
    assert used["calls"] + dropped == run.went_out
    assert after.files <= before.files
    assert after.memory_mb < before.memory_mb + GROWTH_MB
    assert [line for line in gateway.log().splitlines() if '"level": "error"' in line] == []
