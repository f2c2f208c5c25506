"""The promise of the bus, under everything that can happen to it: nothing is lost in silence, and no gap is made up.

Several gateways share one Valkey. Publishers (runtimes that heartbeat with a new task each time, or send a new card)
number their events; readers of one workspace and of all read promptly, slowly or not at all, and come back with their
last id, at random instants and to random gateways. Meanwhile a random choice of faults, from a printed seed, is
injected. In the end all is healed, and for every reader must hold (`invariant.find_violations`):

- what was published was received, or a gap was told between what came before it and what came after it by the same
  gateway. Published is what was answered 200, unless its gateway was killed within a second after, or within 3.5 s
  while it was away from Redis: so long it takes until the lease says that a dead gateway takes events along;
- ids go up, save over a gap, and so do the serials of a workspace that came by one gateway (two gateways may pass on
  what they took in any order, and all readers see the same); nothing comes twice;
- each gap told has a fault of its own that can lose events: a restart or FLUSHALL, or a gateway killed while it was
  away from Redis. Cut connections, stalls, deaths beside a sound Redis, slow and dead readers lose nothing.

How long it lasts: A2A_INVARIANT_SECONDS, by default a minute, with --long an hour. A seed of your own, which
gives the same choices though never the same timing: A2A_INVARIANT_SEED.
"""

import asyncio
import os
import secrets
import shutil
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Final

import pytest

from tests.harness import chaos
from tests.harness import valkey as valkeys
from tests.harness.chaos import Chaos
from tests.harness.invariant import Act, Kind, Reading, Told, Violation, find_violations
from tests.harness.source import PACKAGES, ROOT
from tests.harness.valkey import Valkey
from tests.harness.world import World, eventually

SECONDS: Final = 60.0
LONG_SECONDS: Final = 3600.0
EPISODE_S: Final = 240.0
GENTLE_SECONDS: Final = 7.0
FALL_BEHIND_S: Final = 60.0
"""Within this time some slow reader falls behind what its socket holds."""
SHOWN: Final = 20
SETTLE_S: Final = 30.0
BROKEN_ACTS: Final = 3
"""Whether one of them meets a batch under way is chance."""
BROKEN_SETTLE_S: Final = 5.0
BROKEN_AFTER: Final = 150
OF_REDIS: Final = (Act.LISTENERS_CUT, Act.PUBLISHERS_CUT, Act.STALL, Act.RESTART, Act.FLUSH)
HARMLESS: Final = {
    "gateways die": (Act.LISTENERS_CUT, Act.PUBLISHERS_CUT, Act.DEATH),
    "Redis stalls": (Act.LISTENERS_CUT, Act.PUBLISHERS_CUT, Act.STALL),
}


@pytest.fixture
async def broker() -> AsyncIterator[Valkey]:
    async with valkeys.running() as one:
        yield one


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("A2A_INVARIANT_SEED") or secrets.randbelow(2**32))


@pytest.fixture
def seconds(pytestconfig: pytest.Config) -> float:
    wanted = os.environ.get("A2A_INVARIANT_SECONDS")
    return float(wanted) if wanted else LONG_SECONDS if pytestconfig.getoption("--long") else SECONDS


def violations(run: Chaos) -> list[Violation]:
    return find_violations(run.published, run.faults, readings(run))


def readings(run: Chaos) -> list[Reading]:
    return [witness.reading(workspaces) for witness, workspaces in run.witnesses.items()]


def told_of(found: Sequence[Violation], run: Chaos) -> str:
    """Return the broken promises by kind, some in full, and when what was done (Unix milliseconds)."""
    kinds = Counter((violation.kind.name, violation.reader) for violation in found)
    shown = [f"{count} x {kind} ({reader})" for (kind, reader), count in kinds.items()]
    shown += [f"{violation.kind.name} {violation.reader}: {violation.what}" for violation in found[:SHOWN]]
    shown += next(one for one in readings(run) if one.reader == found[0].reader).story
    shown += [f"{fault.began_ms:.0f} - {fault.ended_ms:.0f} {fault.act.name} {fault.via}" for fault in run.faults]
    return "\n".join(shown)


async def check(run: Chaos, seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    """Let all come to rest, say what there was, and hold the bus to its promise."""
    settled = await run.settle(SETTLE_S)
    with capsys.disabled():
        print(f"\nA2A_INVARIANT_SEED={seed}\n{run.summary()}\nreaders fell behind: {await run.fallen_behind()} x")
    assert not (found := violations(run)), f"seed {seed}\n{told_of(found, run)}"
    assert settled, "some reader never got what was published last"


@pytest.mark.timeout(2 * LONG_SECONDS)
async def test_whatever_happens_nothing_is_lost_in_silence(
    world: World, broker: Valkey, seed: int, seconds: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """In episodes, each with readers of its own, so that an hour of it fits into memory."""
    ends = time.monotonic() + seconds
    while (left_s := ends - time.monotonic()) > 0:
        async with chaos.started(world, broker, Random(seed), workspaces=4) as run:
            until = time.monotonic() + min(left_s, EPISODE_S)
            async with asyncio.TaskGroup() as group:
                group.create_task(run.torment(OF_REDIS, until, pause_s=(0.1, 1.5)))
                group.create_task(run.torment((Act.DEATH,), until, pause_s=(1.0, 4.0)))
            await check(run, seed, capsys)
            assert {fault.act for fault in run.faults} == set(Act)
        seed += 1


@pytest.mark.parametrize("harm", HARMLESS)
async def test_no_gap_is_told_where_nothing_can_be_lost(
    world: World, broker: Valkey, seed: int, harm: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The pauses are long enough that no gateway dies while it connects to Redis again."""
    async with chaos.started(world, broker, Random(seed), workspaces=4) as run:
        await run.torment(HARMLESS[harm], time.monotonic() + GENTLE_SECONDS, pause_s=(1.2, 2.0))
        async with asyncio.timeout(FALL_BEHIND_S):
            while not await run.fallen_behind():  # noqa: ASYNC110 - what the gateways count, they say when asked
                await asyncio.sleep(0.1)
        await check(run, seed, capsys)
        told = [seen for witness in run.witnesses for seen in witness.log if isinstance(seen, Told)]
        assert told == []


@dataclass(frozen=True, kw_only=True)
class Break:
    """One line of the bus that is changed, what brings it to light, and how the promise is then broken."""

    path: str
    line: str
    broken: str
    act: Act
    kind: Kind


BREAKS: Final = {
    "a hole is not mended": Break(
        path="events/subscriber.py",
        line="        async for frame in self._link.read(ring.newest):\n",
        broken="""        ring.newest = await self._link.newest()
        async for frame in self._link.read(ring.newest):
""",
        act=Act.LISTENERS_CUT,
        kind=Kind.SILENT_LOSS,
    ),
    "an event is forgotten": Break(
        path="events/hub.py",
        line="        if event.sign:\n",
        broken="""        if self.ring.everything.end == 100:
            return
        if event.sign:
""",
        act=Act.LISTENERS_CUT,
        kind=Kind.SILENT_LOSS,
    ),
    "what was sent is sent again": Break(
        path="events/publish.lua",
        line="local from = math.max(first, seen + 1)\n",
        broken="local from = first\n",
        act=Act.STALL,
        kind=Kind.DUPLICATE,
    ),
}


def broken_copy(of: Break, folder: Path) -> Path:
    """Return a copy of the packages in which this line is another one."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / of.path
    text = path.read_text()
    assert text.count(of.line) == 1, f"{of.path} does not have the line any more that is to be broken"
    path.write_text(text.replace(of.line, of.broken))
    return folder


@pytest.mark.parametrize("broken", BREAKS)
async def test_a_broken_bus_does_not_pass(world: World, broker: Valkey, seed: int, broken: str, tmp_path: Path) -> None:
    one = BREAKS[broken]
    # without PYTHONSAFEPATH the folder that the tests run in would come first
    env = {"PYTHONPATH": str(broken_copy(one, tmp_path)), "PYTHONSAFEPATH": "1"}
    # what waits for a stalled Redis to be counted is not published meanwhile: nothing would be under way but probes
    env |= {"GATEWAY_RATE_HEARTBEATS": "off", "GATEWAY_RATE_REQUESTS": "off"}
    async with chaos.started(world, broker, Random(seed), workspaces=4, **env) as run:
        run.stall_s = (3.0, 3.0)
        for _ in range(BROKEN_ACTS):
            enough = len(run.published) + BROKEN_AFTER
            await eventually(lambda enough=enough: len(run.published) > enough)
            await run.do(one.act)
        await run.settle(BROKEN_SETTLE_S)
        assert one.kind in {violation.kind for violation in violations(run)}
