"""How many bytes of answers this process keeps in Redis for those who make the same call again."""

from collections import deque
from collections.abc import Callable
from time import monotonic


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
        self._kept: deque[tuple[float, int]] = deque()
        self.bytes = 0
        self.refused = 0

    def __repr__(self) -> str:
        return f"<Shelf bytes={self.bytes} of {self._all_bytes}>"

    def takes(self, count: int) -> bool:
        """Return whether there is room for an answer of so many bytes, and count them if there is."""
        now = self._now()
        while self._kept and self._kept[0][0] <= now:
            self.bytes -= self._kept.popleft()[1]
        if count > self._each_bytes or self.bytes + count > self._all_bytes:
            self.refused += 1
            return False
        self._kept.append((now + self._lasts_s, count))
        self.bytes += count
        return True
