"""A figure of the bus beside its target, and the table of them."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Figure:
    """What was measured; `most` is the target, None where there is none."""

    name: str
    value: float
    unit: str
    most: float | None = None

    @property
    def verdict(self) -> str:
        """Return whether the target is met, or a dash."""
        return "-" if self.most is None else "met" if self.value <= self.most else "MISSED"


def table(figures: Sequence[Figure]) -> str:
    """Return the table as text, in the form that docs/benchmarks.md has, too."""
    lines = ["| measure | figure | target | |", "|---|---:|---:|---|"]
    for one in figures:
        target = "-" if one.most is None else f"<= {one.most:,g} {one.unit}"
        lines.append(f"| {one.name} | {_show(one.value)} {one.unit} | {target} | {one.verdict} |")
    return "\n".join(line.replace("  ", " ") for line in lines)


def _show(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.2f}"
