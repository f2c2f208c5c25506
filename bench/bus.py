"""What the bus costs and how fast it is: readers by the thousand, clocks, and a Redis that stalls and dies."""

import asyncio
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Final

import psutil
from redis import Redis

from bench import broker, subjects
from bench.figures import Figure
from bench.processes import BenchError, Cores, Running, cpu_s, running
from bench.subjects import ADMIN_TOKEN, Subject

UNUSED_PORT: Final = 8081
"""Where the agent would listen, if anybody called it."""

SIZE: Final = 200
"""Bytes of an event's payload."""
MISSED: Final = 20
"""Events that readers have missed when they come back."""
RETURN_S: Final = 5.0
"""Within which they do."""
_LARGE: Final = 4000
_ROUNDS: Final = 5
"""How often it is measured beside readers that read nothing, and as often without."""
_RUN: Final = (sys.executable, "-m")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How large a run is."""

    readers: int
    events: int
    idle: int
    idle_s: float
    returning: int
    clocks_s: float
    away_s: float


FULL: Final = Plan(readers=1000, events=200, idle=10_000, idle_s=30.0, returning=5000, clocks_s=20.0, away_s=10.0)
QUICK: Final = Plan(readers=1000, events=20, idle=2000, idle_s=5.0, returning=1000, clocks_s=3.0, away_s=2.0)


@dataclass(frozen=True, kw_only=True)
class Room:
    """A gateway with one workspace, its Redis, and the readers of that workspace's events."""

    subject: Subject
    readers: Running
    redis_url: str

    def metric(self, name: str) -> float:
        """Return a metric of the gateway."""
        url = f"http://127.0.0.1:{self.subject.port}/metrics"
        asked = urllib.request.Request(url, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"})
        with urllib.request.urlopen(asked, timeout=10) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(f"{name} "):
                    return float(line.split()[1])
        raise BenchError(f"no metric {name}")

    def wait(self, name: str, value: float) -> None:
        """Wait until a metric has this value."""
        deadline = time.monotonic() + 30.0
        while (there := self.metric(name)) != value:
            if time.monotonic() > deadline:
                raise BenchError(f"{name} is {there} and not {value}")
            time.sleep(0.1)

    @property
    def memory_kib(self) -> float:
        """The memory of the gateway's process."""
        return float(psutil.Process(self.subject.pid).memory_info().rss) / 1024

    @property
    def cpu_s(self) -> float:
        """The CPU time that the gateway's process has used."""
        assert self.subject.pid is not None
        return cpu_s(self.subject.pid)


@contextmanager
def opened(env: Mapping[str, str], cores: Cores) -> Iterator[Room]:
    """Start a gateway and its readers; the readers are the workspace's own, with its token."""
    with ExitStack() as stack:
        stranger = stack.enter_context(subjects.gateway(env, cores))
        subject = asyncio.run(subjects.introduce(stranger, agent_port=UNUSED_PORT))
        readers = stack.enter_context(running([*_RUN, "bench.readers"]))
        workspace_id = subject.headers["X-Workspace-ID"]
        readers.ask(
            "target",
            port=subject.port,
            path=f"/workspaces/{workspace_id}/events/stream",
            headers={"Authorization": subject.headers["Authorization"]},
            redis_url=env["GATEWAY_REDIS_URL"],
            prefix=env["GATEWAY_REDIS_PREFIX"],
            workspace_id=workspace_id,
        )
        yield Room(subject=subject, readers=readers, redis_url=env["GATEWAY_REDIS_URL"])


def fan_out(name: str, pid: int, readers: Running, plan: Plan) -> list[Figure]:
    """One event after another, each to all readers. The target is the gateway's."""
    readers.ask("open", count=plan.readers)
    readers.ask("publish", times=5, size=SIZE, every_s=0.05)
    before_s = cpu_s(pid)
    seen = readers.ask("publish", times=plan.events, size=SIZE, every_s=0.05)
    spent_s = cpu_s(pid) - before_s
    readers.ask("drop")
    about = f"{name}: one event to {plan.readers:,} readers, last byte"
    return [
        Figure(name=f"{about} p50", value=seen["p50"], unit="ms"),
        Figure(name=f"{about} p99", value=seen["p99"], unit="ms", most=20.0 if name == "gateway" else None),
        Figure(name=f"{name}: CPU per delivery", value=spent_s / plan.events / plan.readers * 1e6, unit="us"),
    ]


def idle(room: Room, plan: Plan) -> list[Figure]:
    """Readers to whom nothing happens, but for a comment every 15 s."""
    room.readers.ask("open", count=50)
    room.readers.ask("publish", times=2, size=SIZE)
    room.readers.ask("drop")
    room.wait("gateway_readers", 0)
    empty_kib = room.memory_kib
    before_s = room.cpu_s
    time.sleep(3.0)
    alone_s = (room.cpu_s - before_s) / 3.0
    room.readers.ask("open", count=plan.idle, seconds=plan.idle / 1000)
    before_s, began = room.cpu_s, time.monotonic()
    time.sleep(plan.idle_s)
    share = (room.cpu_s - before_s) / (time.monotonic() - began)
    full_kib = room.memory_kib
    there = room.readers.ask("standing")
    if there["lost"]:
        raise BenchError(f"{there['lost']} idle streams were lost")
    room.readers.ask("drop")
    return [
        Figure(name="memory per idle reader", value=(full_kib - empty_kib) / plan.idle, unit="KiB", most=10.0),
        Figure(name=f"CPU with {plan.idle:,} idle readers", value=share * 100, unit="% of a core", most=3.0),
        Figure(name="CPU with none", value=alone_s * 100, unit="% of a core"),
    ]


def returning(room: Room, plan: Plan) -> list[Figure]:
    """Readers that were cut off, have missed events, and come back within five seconds."""
    room.readers.ask("open", count=plan.returning, seconds=plan.returning / 1000)
    room.readers.ask("publish", times=1, size=SIZE)
    since = room.readers.ask("standing")["id"]
    room.readers.ask("drop")
    room.wait("gateway_readers", 0)
    room.readers.ask("publish", times=1, size=SIZE, batch=MISSED)
    before = reads(room.redis_url)
    seen = room.readers.ask("open", count=plan.returning, seconds=RETURN_S, since=since, due=MISSED)
    asked = reads(room.redis_url) - before
    room.readers.ask("drop")
    about = f"{plan.returning:,} readers back within {RETURN_S:g} s, {MISSED} events missed, caught up"
    return [
        Figure(name=f"{about} p50", value=seen["p50"], unit="ms"),
        Figure(name=f"{about} p99", value=seen["p99"], unit="ms", most=1000.0),
        Figure(name="reads of the journal for all of them", value=asked, unit="", most=0.0),
    ]


def reads(redis_url: str) -> int:
    """Return how often Redis has been asked for entries, but for the newest one."""
    with closing(Redis.from_url(redis_url)) as redis:
        stats = redis.info("commandstats")
    return int(stats.get("cmdstat_xrange", {}).get("calls", 0))


def slow(room: Room, plan: Plan) -> list[Figure]:
    """A tenth of the readers read nothing: what that is to the others, beside rounds in which all read."""
    mute = plan.readers // 10
    rounds = [_beside(room, plan, mute=many) for _ in range(_ROUNDS) for many in (mute, 0)]
    beside, alone = rounds[0::2], rounds[1::2]

    def figure(about: str, some: list[Beside], measure: str) -> Figure:
        return Figure(name=f"{about}, last byte {measure}", value=median(one.seen[measure] for one in some), unit="ms")

    ratio = median(two.seen["p99"] / one.seen["p99"] for one, two in zip(alone, beside, strict=True))
    return [
        Figure(name=f"{mute} of {plan.readers:,} read nothing: they lag", value=beside[0].lagging, unit="readers"),
        *(figure("the others without them", alone, measure) for measure in ("p50", "p99")),
        *(figure("the others beside them", beside, measure) for measure in ("p50", "p99")),
        Figure(name="p99 beside them by p99 without, round by round", value=ratio, unit=""),
        Figure(name="CPU for the others without them", value=median(one.cpu_us for one in alone), unit="us"),
        Figure(name="CPU for the others beside them", value=median(one.cpu_us for one in beside), unit="us"),
        Figure(name="memory per reader that reads nothing", value=beside[0].memory_kib / mute, unit="KiB"),
        Figure(name="others that were lost", value=max(one.lost for one in rounds), unit="", most=0.0),
    ]


@dataclass(frozen=True, kw_only=True)
class Beside:
    """One round: what those who read have `seen` (milliseconds), and what it took for each delivery to them."""

    seen: dict[str, float]
    cpu_us: float
    lagging: float
    memory_kib: float
    lost: int


def _beside(room: Room, plan: Plan, *, mute: int) -> Beside:
    """Measure nine tenths of the readers, beside so many that read nothing, after events that those cannot hold."""
    brisk, times = plan.readers - plan.readers // 10, max(40, plan.events // 2)
    room.readers.ask("open", count=brisk, mute=mute)
    empty_kib = room.memory_kib
    room.readers.ask("publish", times=200, size=_LARGE)
    lagging, full_kib, before_s = room.metric("gateway_readers_lagging"), room.memory_kib, room.cpu_s
    seen = room.readers.ask("publish", times=times, size=SIZE, every_s=0.05)
    spent_s = room.cpu_s - before_s
    lost = room.readers.ask("standing")["lost"]
    room.readers.ask("drop")
    room.wait("gateway_readers", 0)
    return Beside(
        seen=seen,
        cpu_us=spent_s / times / brisk * 1e6,
        lagging=lagging,
        memory_kib=full_kib - empty_kib,
        lost=lost,
    )


def clocks(cores: Cores, plan: Plan) -> list[Figure]:
    """10,000 calls in flight in 1,000 workspaces that show life 5,000 times a second."""
    with running([*_RUN, "bench.clocks"], measured=cores) as process:
        seen = process.ask(
            "measure", calls=10_000, workspaces=1000, signs_per_s=5000, idle_s=10.0, seconds=plan.clocks_s
        )
    return [
        Figure(name="clocks of 10,000 calls, 5,000 signs/s", value=seen["cpu_percent"], unit="% of a core", most=2.0),
        Figure(name="calls ended though alive", value=seen["false_endings"], unit="", most=0.0),
        Figure(name="calls not ended though silent", value=seen["missing_endings"], unit="", most=0.0),
        Figure(name="endings late p99", value=seen["late"], unit="ms", most=250.0),
    ]


def outages(env: Mapping[str, str], cores: Cores, plan: Plan) -> list[Figure]:
    """A Redis that stalls, and one that is killed and comes back; readers are told, and lose nothing unsaid."""
    with broker.running() as server, opened({**env, "GATEWAY_REDIS_URL": server.url}, cores) as room:
        room.readers.ask("open", count=plan.readers)
        room.readers.ask("publish", times=5, size=SIZE)
        stalled = server.stall()
        told = room.readers.ask("state", wanted="degraded")["last"] - stalled
        went_on = server.go_on()
        mended = room.readers.ask("state", wanted="ok")["last"] - went_on
        killed = server.kill()
        told_killed = room.readers.ask("state", wanted="degraded")["last"] - killed
        time.sleep(plan.away_s)
        back = server.start()
        complete = room.readers.ask("state", wanted="ok")["last"] - back
        room.readers.ask("publish", times=5, size=SIZE)
        lost = room.readers.ask("standing")["lost"]
    about = f"killed for {plan.away_s + told_killed:.0f} s"
    return [
        Figure(name=f"Redis stalled: {plan.readers:,} readers told", value=told, unit="s", most=6.0),
        Figure(name="Redis goes on: readers told that all is well", value=mended, unit="s"),
        Figure(name=f"Redis {about}: readers told", value=told_killed, unit="s", most=6.0),
        Figure(name="Redis back: complete, and readers told", value=complete, unit="s", most=3.0),
        Figure(name="streams closed meanwhile", value=lost, unit="", most=0.0),
    ]


def nchan(cores: Cores, folder: Path, plan: Plan) -> list[Figure]:
    """The same fan-out by nginx with nchan, if it is installed here."""
    with subjects.nchan(cores, folder) as peer, running([*_RUN, "bench.readers"]) as readers:
        if peer is None:
            return []
        assert peer.pid is not None
        readers.ask("target", port=peer.port, path="/events", publish_path="/publish")
        return fan_out("nchan", peer.pid, readers, plan)


def beside_nchan(env: Mapping[str, str], cores: Cores, folder: Path, plan: Plan) -> list[Figure]:
    """The fan-out of a gateway, and of nchan, which is the target for what a delivery costs."""
    with opened(env, cores) as room:
        assert room.subject.pid is not None
        ours, theirs = fan_out("gateway", room.subject.pid, room.readers, plan), nchan(cores, folder, plan)
    if theirs:
        ours[-1] = replace(ours[-1], most=theirs[-1].value)
    return ours + theirs


def _in_room(
    part: Callable[[Room, Plan], list[Figure]], env: Mapping[str, str], cores: Cores, plan: Plan
) -> list[Figure]:
    with opened(env, cores) as room:
        return part(room, plan)


_IN_A_ROOM: Final = {"idle": idle, "returning": returning, "slow": slow}
PARTS: Final = ("fan-out", *_IN_A_ROOM, "clocks", "outages")
"""What can be measured by itself."""


def measure(
    env: Mapping[str, str],
    cores: Cores,
    folder: Path,
    plan: Plan,
    tell: Callable[[str], None],
    only: Sequence[str] = (),
) -> list[Figure]:
    """Measure all of it, or `only` these PARTS, on one gateway process after another, and return the figures."""
    figures = []

    def note(some: list[Figure]) -> None:
        figures.extend(some)
        for one in some:
            tell(f"{one.name}: {one.value:,.2f} {one.unit}".rstrip())

    parts: dict[str, Callable[[], list[Figure]]] = {
        "fan-out": lambda: beside_nchan(env, cores, folder, plan),
        **{name: partial(_in_room, part, env, cores, plan) for name, part in _IN_A_ROOM.items()},
        "clocks": lambda: clocks(cores, plan),
        "outages": lambda: outages(env, cores, plan),
    }
    for name in only or PARTS:
        note(parts[name]())
    return figures
