"""How long to wait after failures in a row: ever longer up to a bound, and less by chance."""

from dataclasses import dataclass
from typing import Final

_STEPS: Final = 200
"""Growth is at its bound long before; what is not counted further cannot overflow in an outage that lasts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Backoff:
    """Seconds: the first wait, and the longest. growth: how it grows from one to the next, 1 to 16."""

    first_s: float
    growth: float
    most_s: float

    def after_s(self, failures: int, chance: float) -> float:
        """Return the seconds to wait after so many failures in a row, 1 or more.

        chance: 0 to 1, so that not all come back at once: half of the wait at 0, all of it at 1.
        """
        whole_s = min(self.first_s * self.growth ** min(failures - 1, _STEPS), self.most_s)
        return whole_s * (0.5 + chance / 2)
