"""How many bytes of answers this process keeps in Redis for those who make the same call again."""

from collections import Counter, deque
from collections.abc import Callable
from time import monotonic
from typing import Final

SHARES: Final = 2
"""One payer has such a part of the room: whoever fills it leaves the rest to the others."""


class Shelf:
    """Has room for answers of `each_bytes` at most and of `all_bytes` together, each for `lasts_s` seconds.

    `refused`: answers for which there was none.
    """

    def __init__(
        self, *, lasts_s: float, each_bytes: int, all_bytes: int, now: Callable[[], float] = monotonic
    ) -> None:
        self._lasts_s = lasts_s
        self._each_bytes = each_bytes
        self._all_bytes = all_bytes
        self._now = now
        self._kept: deque[tuple[float, int, str]] = deque()
        self._of_payer: Counter[str] = Counter()
        self.bytes = 0
        self.refused = 0

    def __repr__(self) -> str:
        return f"<Shelf bytes={self.bytes} of {self._all_bytes}>"

    def takes(self, count: int, payer: str) -> bool:
        """Return whether there is room for an answer of so many bytes to a payer, and count them if there is."""
        now = self._now()
        while self._kept and self._kept[0][0] <= now:
            self._put_back(*self._kept.popleft()[1:])
        mine = self._of_payer[payer] + count
        if count > self._each_bytes or self.bytes + count > self._all_bytes or mine * SHARES > self._all_bytes:
            self.refused += 1
            return False
        self._kept.append((now + self._lasts_s, count, payer))
        self._of_payer[payer] = mine
        self.bytes += count
        return True

    def _put_back(self, count: int, payer: str) -> None:
        self.bytes -= count
        self._of_payer[payer] -= count
        if not self._of_payer[payer]:
            del self._of_payer[payer]
