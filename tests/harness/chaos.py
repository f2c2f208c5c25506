"""Publishers and readers on a fleet of gateways, and all that can be done to the bus meanwhile."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from functools import partial
from random import Random
from typing import Any, Final

import aiohttp

from gateway.services.tasks import Tasks
from tests.harness.fleet import Fleet
from tests.harness.invariant import Act, Fault, Published, Received, Told
from tests.harness.valkey import Valkey
from tests.harness.witness import START, Manner, Pace, Witness
from tests.harness.world import ADMIN_TOKEN, Workspace, World, eventually

PROBE_S: Final = 0.5
GATEWAYS: Final = 3
PAUSE_S: Final = (0.005, 0.03)
"""Between two events of one publisher ..."""
QUIET_PAUSE_S: Final = (0.1, 3.0)
"""... and of the quiet one."""
TASK_CHARS: Final = 2000
CARD_CHARS: Final = 50_000
DOWN_S: Final = (0.0, 2.0)
ROUND_S: Final = 3.0
"""How long the events published last are awaited before others are."""
Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
MANNERS: Final[Mapping[str, Manner]] = {
    "steady": Manner(paces=(Pace.PROMPT,), stays_s=(60.0, 120.0)),
    "restless": Manner(paces=(Pace.PROMPT,), stays_s=(0.1, 2.0)),
    "slow": Manner(paces=(Pace.SLOW, Pace.SLOW, Pace.PROMPT), stays_s=(3.0, 8.0)),
    "dead": Manner(paces=(Pace.DEAD, Pace.DEAD, Pace.PROMPT), stays_s=(3.0, 8.0)),
}


def now_ms() -> float:
    """Return Unix milliseconds."""
    return time.time() * 1000


class Chaos:
    """Publishers, readers and faults over one fleet, and the record of all three."""

    def __init__(self, world: World, fleet: Fleet, broker: Valkey, random: Random) -> None:
        self._world = world
        self._random = random
        self._serials: Counter[str] = Counter()
        self.fleet = fleet
        self.broker = broker
        self.workspaces: list[Workspace] = []
        self.witnesses: dict[Witness, frozenset[str]] = {}
        self.published: list[Published] = []
        self.unanswered = 0
        self.faults: list[Fault] = []
        self.publishing = True
        self._publishers: list[asyncio.Task[None]] = []
        self.stall_s = (1.0, 6.0)

    # -- who takes part

    async def populate(self, workspaces: int, spawn: Spawn) -> None:
        """Bring workspaces, and readers of each manner: of one workspace, and of all."""
        for _ in range(workspaces):
            self.workspaces.append(await self._world.workspace())
        everything = frozenset(one.id for one in self.workspaces)
        for number, (name, manner) in enumerate(MANNERS.items()):
            one = self.workspaces[number % workspaces]
            path = f"/workspaces/{one.id}/events/stream"
            self._add(f"{name}, of one", path, one.token, manner, frozenset({one.id}))
            self._add(f"{name}, of all", "/events/stream", ADMIN_TOKEN, manner, everything)
        for witness in self.witnesses:
            spawn(witness.run(), witness.name)
        for one in self.workspaces:
            await self.publish(one, self.fleet.choose(self._random))
        await eventually(lambda: all(witness.cursor != START for witness in self.witnesses))
        *busy, quiet = self.workspaces
        self._publishers = [spawn(self._keep_publishing(one, PAUSE_S), "publisher") for one in busy]
        self._publishers.append(spawn(self._keep_publishing(quiet, QUIET_PAUSE_S), "quiet publisher"))

    def _add(self, name: str, path: str, token: str, manner: Manner, workspaces: frozenset[str]) -> None:
        random = Random(self._random.random())

        def choose() -> tuple[str, str]:
            gateway = self.fleet.choose(random)
            return gateway, self.fleet.alive[gateway].url

        witness = Witness(name, path, token, manner=manner, choose=choose, random=random)
        self.witnesses[witness] = workspaces

    async def _keep_publishing(self, workspace: Workspace, pause_s: tuple[float, float]) -> None:
        random = Random(self._random.random())
        while self.publishing:
            await self.publish(workspace, self.fleet.choose(random), padding=random.random())
            await asyncio.sleep(random.uniform(*pause_s))

    async def publish(self, workspace: Workspace, via: str, *, padding: float = 0.0) -> None:
        """Cause the workspace's next event at this gateway; without an answer nobody knows whether it happened.

        padding: how large it is, as a share of the largest.
        """
        self._serials[workspace.id] += 1
        serial = self._serials[workspace.id]
        path, fields = _request(serial, f"{serial} {via} ", padding)
        try:
            status, body, _ = await self._world.request(
                "POST",
                path,
                gateway=self.fleet.alive[via],
                json={"workspace_id": workspace.id, **fields},
                headers=workspace.bearer,
            )
        except aiohttp.ClientError:
            self.unanswered += 1
            return
        assert status == 200, body
        self.published.append(Published(workspace=workspace.id, serial=serial, via=via, at_ms=now_ms()))

    # -- what is done to them

    async def do(self, act: Act) -> None:
        """Do one thing to the bus, and write down when."""
        began_ms, via = now_ms(), ""
        match act:
            case Act.LISTENERS_CUT:
                await self.broker.do("CLIENT", "KILL", "TYPE", "pubsub")
            case Act.PUBLISHERS_CUT:
                await self.broker.do("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            case Act.STALL:
                self.broker.stall()
                await asyncio.sleep(self._random.uniform(*self.stall_s))
                self.broker.go_on()
            case Act.RESTART:
                self.broker.kill()
                await asyncio.sleep(self._random.uniform(*DOWN_S))
                await self.broker.start()
            case Act.FLUSH:
                await self.broker.do("FLUSHALL")
            case Act.DEATH:
                via = self.fleet.choose(self._random)
                await self.fleet.kill(via)
        self.faults.append(Fault(act=act, began_ms=began_ms, ended_ms=now_ms(), via=via))
        if act is Act.DEATH:
            await self.fleet.start()

    async def torment(self, acts: Sequence[Act], until: float, pause_s: tuple[float, float]) -> None:
        """Do these in random order, again and again, each at least once, until this time (monotonic seconds)."""
        done = False
        while not done:
            for act in self._random.sample(acts, len(acts)):
                await asyncio.sleep(self._random.uniform(*pause_s))
                await self.do(act)
            done = time.monotonic() >= until

    async def fallen_behind(self) -> int:
        """Return how often the gateways that are alive saw a reader fall behind."""
        total = 0
        for gateway in self.fleet.alive.values():
            _, text, _ = await self._world.request("GET", "/metrics", gateway=gateway)
            lines = dict(line.rsplit(" ", 1) for line in text.decode().splitlines() if not line.startswith("#"))
            total += int(float(lines["gateway_readers_fallen_behind_total"]))
        return total

    # -- how it ends

    async def settle(self, within_s: float) -> bool:
        """Stop publishing, wait for the dead to be buried, and until every reader has all that is published last.

        Last is one event of each workspace by each gateway: what a gateway took before has then gone before it. A
        reader that comes back into a gap may be told that they are in it; then there are others.
        Returns whether all readers came so far in time.
        """
        self.publishing = False
        await asyncio.wait(self._publishers)  # what is under way must not overtake what comes last
        await self._buried()
        for witness in self.witnesses:
            witness.heal()
        deadline = time.monotonic() + within_s
        while time.monotonic() < deadline:
            first = len(self.published)
            for via in self.fleet.alive:
                for one in self.workspaces:
                    await self.publish(one, via)
            last = {(one.workspace, one.serial) for one in self.published[first:]}
            with suppress(AssertionError):
                await eventually(partial(self._have, last), ROUND_S)
                return True
        return False

    def _have(self, last: set[tuple[str, int]]) -> bool:
        """Whether each reader has those of these events that it asked for."""
        for witness, workspaces in self.witnesses.items():
            newest = [seen for seen in witness.log[-4 * len(last) :] if isinstance(seen, Received)]
            if not {one for one in last if one[0] in workspaces} <= {(seen.workspace, seen.serial) for seen in newest}:
                return False
        return True

    async def _buried(self) -> None:
        async with asyncio.timeout(30):
            while True:
                ((leases, dead),) = await self._world.sql(
                    "select count(*), count(*) filter (where lease_until < now()) from instances"
                )
                if (leases, dead) == (len(self.fleet.alive), 0):
                    return
                await asyncio.sleep(0.05)

    def summary(self) -> str:
        """Return how much of everything there was, in a few lines."""
        acts = Counter(fault.act for fault in self.faults)
        paces = sum((witness.paces for witness in self.witnesses), Counter[Pace]())
        gaps = Counter(seen.reason for witness in self.witnesses for seen in witness.log if isinstance(seen, Told))
        received = sum(isinstance(seen, Received) for witness in self.witnesses for seen in witness.log)
        return "\n".join(
            (
                f"published {len(self.published)}, unanswered {self.unanswered}; received {received}",
                "faults: " + ", ".join(f"{acts[act]} x {act.value}" for act in Act),
                "connections: " + ", ".join(f"{paces[pace]} that read {pace.value}" for pace in Pace),
                "gaps told: " + (", ".join(f"{count} x {reason}" for reason, count in gaps.items()) or "none"),
            )
        )


def _request(serial: int, said: str, padding: float) -> tuple[str, Mapping[str, Any]]:
    """Return path and fields of a request that causes an event which says this."""
    if serial % 4:
        return "/registry/heartbeat", {"current_task": said + "." * int(padding * TASK_CHARS)}
    return "/registry/update-card", {"agent_card": {"description": said + "." * int(padding * CARD_CHARS)}}


@asynccontextmanager
async def started(world: World, broker: Valkey, random: Random, *, workspaces: int, **env: str) -> AsyncIterator[Chaos]:
    """Start gateways, publishers and readers on an empty journal; none of the test's own tasks may fail."""
    await broker.do("FLUSHALL")
    fleet = Fleet(world, {"GATEWAY_REDIS_URL": broker.url, "GATEWAY_PROBE_SECONDS": str(PROBE_S), **env})
    async with AsyncExitStack() as stack:
        stack.push_async_callback(fleet.close)
        async with asyncio.TaskGroup() as group:
            for _ in range(GATEWAYS):
                group.create_task(fleet.start())
        tasks = await stack.enter_async_context(Tasks())
        chaos = Chaos(world, fleet, broker, random)
        await chaos.populate(workspaces, tasks.spawn)
        yield chaos
        assert tasks.deaths == 0
