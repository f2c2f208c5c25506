"""What a run says: a table for people, and a file for programs."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any, Final

import orjson
import psutil

from bench.processes import Cores
from bench.rounds import CONNECTIONS, Plan, Turn

BARE: Final = "bare aiohttp"
_LIBRARIES: Final = ("aiohttp", "uvloop", "orjson", "aiopg", "redis", "hiredis")


@dataclass(frozen=True, kw_only=True)
class Row:
    """The medians of one subject; `of_bare` is its CPU time per call by the bare proxy's in the same round."""

    name: str
    calls_per_s: float
    p50_ms: float
    p99_ms: float
    alone_p50_ms: float
    cpu_us: float | None
    of_bare: float | None

    @classmethod
    def of(cls, name: str, turns: Sequence[Turn], bare: Sequence[Turn]) -> "Row":
        """Sum up the turns of one subject; `bare` are those of the bare proxy in the same rounds."""
        cpu = [turn.cpu_us for turn in turns if turn.cpu_us is not None]
        parts = [
            one.cpu_us / other.cpu_us for one, other in zip(turns, bare, strict=True) if one.cpu_us and other.cpu_us
        ]
        return cls(
            name=name,
            calls_per_s=median(turn.calls_per_s for turn in turns),
            p50_ms=median(turn.p50_ms for turn in turns),
            p99_ms=median(turn.p99_ms for turn in turns),
            alone_p50_ms=median(turn.alone_p50_ms for turn in turns),
            cpu_us=median(cpu) if cpu else None,
            of_bare=median(parts) if parts else None,
        )


def rows(turns: Mapping[str, Sequence[Turn]]) -> list[Row]:
    """Return the rows of all subjects."""
    return [Row.of(name, its, turns[BARE]) for name, its in turns.items()]


def table(rows: Sequence[Row]) -> str:
    """Return the table as text."""
    head = ("", "calls/s", "p50 ms", "p99 ms", "alone p50 ms", "CPU us/call", "of bare")
    lines = [head, *((
        row.name,
        f"{row.calls_per_s:,.0f}",
        f"{row.p50_ms:.2f}",
        f"{row.p99_ms:.2f}",
        f"{row.alone_p50_ms:.2f}",
        "-" if row.cpu_us is None else f"{row.cpu_us:.0f}",
        "-" if row.of_bare is None else f"{row.of_bare:.2f}",
    ) for row in rows)]  # fmt: skip
    widths = [max(len(line[place]) for line in lines) for place in range(len(head))]
    return "\n".join(
        line[0].ljust(widths[0])
        + "".join(cell.rjust(width + 3) for cell, width in zip(line[1:], widths[1:], strict=True))
        for line in lines
    )


def counted(calls: int, counts: Mapping[str, int]) -> str:
    """Return the proof that the gateway did its work, as text."""
    lines = [f"the gateway answered {calls:,} calls, and for them there are"]
    return "\n".join(lines + [f"{count:>12,}  {name}" for name, count in counts.items()])


def machine(cores: Cores) -> dict[str, Any]:
    """Describe what the run ran on."""
    return {
        "cpu": _cpu_model(),
        "cores": psutil.cpu_count(),
        "core_of_the_measured": cores.subject,
        "core_of_the_rest": cores.rest,
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: version(name) for name in _LIBRARIES},
    }


def _cpu_model() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.machine()


def results(
    *,
    plan: Plan,
    about: Mapping[str, Any],
    turns: Mapping[str, Sequence[Turn]],
    calls: int,
    counts: Mapping[str, int],
) -> dict[str, Any]:
    """Return everything that was measured of calls, every turn of it, as JSON has it."""
    return {
        "machine": about,
        "plan": {"connections": CONNECTIONS, **asdict(plan)},
        "rows": [asdict(row) for row in rows(turns)],
        "turns": {name: [asdict(turn) for turn in its] for name, its in turns.items()},
        "counted": {"calls": calls, **counts},
    }


def write(path: Path, results: Mapping[str, Any]) -> None:
    """Write results by their names as JSON; others that are there stay."""
    there = orjson.loads(path.read_bytes()) if path.exists() else {}
    kept = {name: value for name, value in there.items() if name in ("calls", "events")}
    path.write_bytes(orjson.dumps({**kept, **results}, option=orjson.OPT_INDENT_2) + b"\n")
