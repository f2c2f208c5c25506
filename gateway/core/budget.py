"""Whether a workspace may still spend. What people see is integer cents; what is counted, millionths of a cent."""

from dataclasses import dataclass

from gateway.core.prices import MILLION


@dataclass(frozen=True, kw_only=True, slots=True)
class Spend:
    """What a workspace has spent in a month (`2026-11`, UTC): priced by us (millionths), and reported by it (cents)."""

    month: str = ""
    priced: int = 0
    reported_cents: int = 0

    @property
    def millionths(self) -> int:
        """What counts: the larger of both, for they count the same tokens."""
        return max(self.priced, self.reported_cents * MILLION)

    @property
    def cents(self) -> int:
        """The same as people see it: whole cents, the rest not yet counted."""
        return self.millionths // MILLION


def exhausted(limit_cents: int | None, spend: Spend) -> bool:
    """Return whether the month's spend has reached the limit; no limit is never reached."""
    return limit_cents is not None and spend.millionths >= limit_cents * MILLION


def outspent(limit_cents: int | None, spend: Spend, cost: int, *, held: int) -> bool:
    """Return whether a call under way has cost more than it holds and than was left when it began (millionths)."""
    return limit_cents is not None and cost > held and spend.millionths + cost > limit_cents * MILLION


def remaining(limit_cents: int | None, spend: Spend) -> int | None:
    """Return the cents that are left, None without a limit."""
    return None if limit_cents is None else max(0, limit_cents - spend.cents)
