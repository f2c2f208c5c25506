"""The measurement: rounds in which each subject has its turn, so that a disturbed machine disturbs all of them."""

import json
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Final

from bench.load import GRACE_S, Order, Seen
from bench.processes import BenchError, cpu_s
from bench.subjects import Subject

CONNECTIONS: Final = 32


@dataclass(frozen=True, kw_only=True)
class Plan:
    """How long a run is: rounds, and the seconds of each turn's three parts."""

    rounds: int
    warm_s: float
    busy_s: float
    alone_s: float


FULL: Final = Plan(rounds=7, warm_s=0.5, busy_s=3.0, alone_s=0.5)
QUICK: Final = Plan(rounds=2, warm_s=0.3, busy_s=1.0, alone_s=0.3)


@dataclass(frozen=True, kw_only=True)
class Turn:
    """What one subject showed in one round. `cpu_us` is per call, user and system; None if nothing stands between."""

    calls_per_s: float
    p50_ms: float
    p99_ms: float
    alone_p50_ms: float
    cpu_us: float | None


Settle = Callable[[int], object]
"""Waits until a subject has done everything that so many calls since its start have left it to do."""


class Rounds:
    """The turns so far, by subject, and how many calls each subject has answered since its start."""

    def __init__(self, subjects: Sequence[Subject], settle: dict[str, Settle]) -> None:
        self._subjects = subjects
        self._settle = settle
        self.calls = {subject.name: 0 for subject in subjects}
        self.turns: dict[str, list[Turn]] = {subject.name: [] for subject in subjects}

    def run(self, plan: Plan, tell: Callable[[str], None]) -> None:
        """Run them all, one subject at a time."""
        for number in range(plan.rounds):
            tell(f"round {number + 1} of {plan.rounds}")
            for subject in self._subjects:
                self.turns[subject.name].append(self._turn(subject, plan))

    def _turn(self, subject: Subject, plan: Plan) -> Turn:
        self._call(subject, CONNECTIONS, plan.warm_s)
        before_s = None if subject.pid is None else cpu_s(subject.pid)
        busy = self._call(subject, CONNECTIONS, plan.busy_s)
        spent_s = None if subject.pid is None or before_s is None else cpu_s(subject.pid) - before_s
        alone = self._call(subject, 1, plan.alone_s)
        return Turn(
            calls_per_s=busy.calls / busy.seconds,
            p50_ms=busy.p50_ms,
            p99_ms=busy.p99_ms,
            alone_p50_ms=alone.p50_ms,
            cpu_us=None if spent_s is None else spent_s / busy.calls * 1e6,
        )

    def _call(self, subject: Subject, connections: int, seconds: float) -> Seen:
        """Let callers call, and wait for what they leave behind, which belongs to what their calls cost."""
        order = Order(
            port=subject.port,
            path=subject.path,
            headers=dict(subject.headers),
            connections=connections,
            seconds=seconds,
        )
        done = subprocess.run(
            [sys.executable, "-m", "bench.load"],
            input=json.dumps(asdict(order)),
            capture_output=True,
            text=True,
            timeout=seconds + 2 * GRACE_S,
            check=False,
        )
        if done.returncode != 0:
            raise BenchError(f"calling {subject.name} failed: {done.stderr[-4000:]}")
        seen = Seen(**json.loads(done.stdout))
        self.calls[subject.name] += seen.calls
        if subject.name in self._settle:
            self._settle[subject.name](self.calls[subject.name])
        return seen
