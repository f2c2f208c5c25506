"""Who waits in this process for something to happen, and is woken by the bus, whichever replica it happens on."""

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

LOOK_S: Final = 2.0
"""How often it is looked whether somebody still waits: nobody tells."""


class Wakes:
    """Those that wait, by what they wait for; past `capacity` nobody else may, and once it is closed nobody does."""

    def __init__(self, *, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: dict[str, set[asyncio.Event]] = {}
        self._count = 0
        self.closed = False

    def __len__(self) -> int:
        return self._count

    def __contains__(self, key: str) -> bool:
        return key in self._waiting

    def __repr__(self) -> str:
        return f"<Wakes waiting={self._count} closed={self.closed}>"

    @property
    def full(self) -> bool:
        """Whether as many wait as may."""
        return self._count >= self._capacity

    @contextmanager
    def waiting(self, key: str) -> Iterator[asyncio.Event]:
        """Hear of this for as long as the block lasts: begin before you look, and nothing falls in between."""
        woken = asyncio.Event()
        if self.closed:
            woken.set()
        self._waiting.setdefault(key, set()).add(woken)
        self._count += 1
        try:
            yield woken
        finally:
            self._count -= 1
            others = self._waiting[key]
            others.discard(woken)
            if not others:
                del self._waiting[key]

    def wake(self, key: str) -> None:
        """Wake all who wait for this."""
        for woken in self._waiting.get(key, ()):
            woken.set()

    def close(self) -> None:
        """Wake everybody for good: the process is going away."""
        self.closed = True
        for woken in [one for some in self._waiting.values() for one in some]:
            woken.set()


async def heard(woken: asyncio.Event, within_s: float, gone: Callable[[], bool]) -> None:
    """Wait until woken, until this time is over, or until it is seen that who waits has hung up."""
    while within_s > 0 and not woken.is_set() and not gone():
        with suppress(TimeoutError):
            async with asyncio.timeout(min(within_s, LOOK_S)):
                await woken.wait()
        within_s -= LOOK_S
