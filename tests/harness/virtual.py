"""A loop in which waiting takes no time: its clock jumps to the next timer as soon as there is nothing else to do."""

import asyncio
import selectors
from typing import Any


class _Jumping(selectors.DefaultSelector):
    """Moves the clock on instead of waiting."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        assert timeout is not None, "nothing will ever happen again in this loop"
        self.now += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """Its time starts at 0. For what waits on timers and on itself alone; sockets do not get their turn in time."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def rewind(self) -> None:
        """Let it be 0 again; nothing may be wound up."""
        assert not self.timers
        self._jumping.now = 0.0

    @property
    def timers(self) -> int:
        """How many timers are wound up."""
        return sum(not handle.cancelled() for handle in self._scheduled)  # type: ignore[attr-defined]
