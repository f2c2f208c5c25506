"""What relaying a stream costs: CPU for each event, and how late events are, beside nginx and a plain aiohttp relay."""

import asyncio
import sys
from collections import defaultdict
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final

from bench import subjects
from bench.processes import BenchError, Cores, Running, cpu_s, running

STREAM_PATH: Final = "/streams/a2a"
SHARE: Final = 0.6
"""Of what would saturate its core, how much the gateway is given when lateness counts."""


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Rounds in which all have their turn; `streams` of `rate` events a second each, for so many seconds a turn."""

    rounds: int
    streams: int
    rate: float
    seconds: float


FULL: Final = Plan(rounds=5, streams=50, rate=20.0, seconds=5.0)
QUICK: Final = Plan(rounds=2, streams=50, rate=20.0, seconds=2.0)


@dataclass(frozen=True, kw_only=True)
class Figure:
    """Medians of the rounds. cpu_us: of an event; p99_ms: how late events are, by the agent's own clock."""

    name: str
    events: int
    cpu_us: float | None
    p50_ms: float
    p99_ms: float


def measure(
    env: Mapping[str, str], cores: Cores, folder: Path, plan: Plan, say: Callable[[str], None]
) -> dict[str, Any]:
    """Start everything, measure, and return the figures; raises BenchError."""
    with ExitStack() as stack:
        agent = stack.enter_context(running([sys.executable, "-m", "bench.stream_agent"]))
        port = int(agent.said)
        load = stack.enter_context(running([sys.executable, "-m", "bench.stream_load"]))
        stranger = stack.enter_context(subjects.gateway(env, cores))
        gateway = asyncio.run(subjects.introduce(stranger, port))
        all_ = [
            subjects.Subject(name="direct", port=port, pid=None, path=STREAM_PATH),
            stack.enter_context(subjects.bare(port, cores, path=STREAM_PATH)),
            *(
                subjects.Subject(name=one.name, port=one.port, pid=one.pid, path=STREAM_PATH)
                for one in stack.enter_context(subjects.peers(port, cores, folder))
            ),
            gateway,
        ]
        seen: dict[str, list[Figure]] = defaultdict(list)
        for number in range(plan.rounds + 1):
            for subject in all_:
                figure = _turn(load, subject, plan.streams, plan.rate, plan.seconds)
                if number:  # the first round warms up
                    seen[subject.name].append(figure)
                    say(f"{number} {figure}")
        figures = [_together(some) for some in seen.values()]
        cost_us = next(one.cpu_us for one in figures if one.name == gateway.name)
        assert cost_us is not None
        streams = int(SHARE * 1e6 / cost_us / plan.rate)
        busy = [_turn(load, gateway, streams, plan.rate, plan.seconds) for _ in range(plan.rounds)]
        say(f"{streams} streams: {busy}")
    return {
        "figures": [asdict(one) for one in figures],
        "saturation_per_s": round(1e6 / cost_us),
        "busy": {"streams": streams, "events_per_s": streams * plan.rate, **asdict(_together(busy))},
    }


def _turn(load: Running, subject: subjects.Subject, streams: int, rate: float, seconds: float) -> Figure:
    before = 0.0 if subject.pid is None else cpu_s(subject.pid)
    got = load.ask(
        "read", port=subject.port, path=subject.path, headers=dict(subject.headers), streams=streams, rate=rate,
        seconds=seconds,
    )  # fmt: skip
    if got["whole"] != streams or got["events"] != got["wanted"]:
        raise BenchError(
            f"{subject.name}: {got['events']} of {got['wanted']} events came, {got['whole']} whole streams"
        )
    used_s = None if subject.pid is None else cpu_s(subject.pid) - before
    return Figure(
        name=subject.name,
        events=got["events"],
        cpu_us=None if used_s is None else used_s / got["events"] * 1e6,
        p50_ms=got["p50_ms"],
        p99_ms=got["p99_ms"],
    )


def _together(some: list[Figure]) -> Figure:
    costs = [one.cpu_us for one in some if one.cpu_us is not None]
    return Figure(
        name=some[0].name,
        events=sum(one.events for one in some),
        cpu_us=round(median(costs), 1) if costs else None,
        p50_ms=round(median(one.p50_ms for one in some), 2),
        p99_ms=round(median(one.p99_ms for one in some), 2),
    )


def table(result: Mapping[str, Any]) -> str:
    """Return the figures as a table."""
    rows = ["| relay | CPU an event | p50 | p99 |", "|---|---:|---:|---:|"]
    for one in result["figures"]:
        cost = "-" if one["cpu_us"] is None else f"{one['cpu_us']:.1f} us"
        rows.append(f"| {one['name']} | {cost} | {one['p50_ms']:.2f} ms | {one['p99_ms']:.2f} ms |")
    busy = result["busy"]
    rows.append(
        f"| gateway, {busy['streams']} streams, {busy['events_per_s']:.0f} events/s | {busy['cpu_us']:.1f} us "
        f"| {busy['p50_ms']:.2f} ms | {busy['p99_ms']:.2f} ms |"
    )
    return "\n".join(rows)
