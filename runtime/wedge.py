"""Whether the agent's own loop turns, as another thread may ask."""

import asyncio
import time
from collections.abc import Callable
from typing import NoReturn

TURNS_A_LIMIT = 4
"""How often the loop is seen to turn, at least, before it would count as stuck."""
MOST_TURN_S = 1.0


class Wedge:
    """Tells that a loop has not turned for `after_s` seconds; `on_free` is called, in that loop, when it does again."""

    def __init__(
        self, *, after_s: float, on_free: Callable[[], None], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._after_s = after_s
        self._on_free = on_free
        self._now = now
        self._turned_at = now()

    def __repr__(self) -> str:
        return f"<Wedge stuck={self.stuck}>"

    @property
    def stuck(self) -> bool:
        """Whether it has not turned for too long."""
        return self._now() - self._turned_at > self._after_s

    def turn(self) -> None:
        """Note that the loop turns."""
        was_stuck = self.stuck
        self._turned_at = self._now()
        if was_stuck:
            self._on_free()

    async def run(self) -> NoReturn:
        """Turn for ever."""
        while True:
            self.turn()
            await asyncio.sleep(min(MOST_TURN_S, self._after_s / TURNS_A_LIMIT))
