"""Values that are loaded once, kept for a while, and forgotten when somebody changes them."""

import asyncio
import math
from collections.abc import Awaitable, Callable, Hashable
from time import monotonic
from typing import Final, Generic, TypeVar

from gateway.ports import StoreError

PATIENCE_S: Final = 1.0
"""How long the store may take while an older entry would do (seconds) ..."""
AWAY_S: Final = 1.0
"""... and how long it is not asked again then."""

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class _Load:
    """A load under way. While it stands in the table, what it brings may be kept."""

    __slots__ = ("waiting",)

    def __init__(self) -> None:
        self.waiting = 0


class Cache(Generic[K, V]):
    """A cache in front of one `load`, which returns None for what does not exist.

    ttl_s: how long an entry answers without asking again; missing_s: how long that there is none does (0: not at all).
    capacity: entries held, of each; the oldest go first.
    A load that was overtaken by a `forget` answers its caller, but is not kept: it may have read the old value.
    """

    def __init__(
        self,
        load: Callable[[K], Awaitable[V | None]],
        *,
        ttl_s: float,
        capacity: int,
        missing_s: float = 0.0,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._load = load
        self._missing_s = missing_s
        self._missing: dict[K, float] = {}
        self._ttl_s = ttl_s
        self._capacity = capacity
        self._now = now
        self._kept: dict[K, tuple[V, float]] = {}
        self._loading: dict[K, _Load] = {}
        self._away_until = -math.inf

    def __repr__(self) -> str:
        return f"<Cache kept={len(self._kept)} loading={len(self._loading)}>"

    def peek(self, key: K) -> V | None:
        """Return a fresh entry without asking anybody, or None."""
        kept = self._kept.get(key)
        if kept is not None and self._now() - kept[1] < self._ttl_s:
            return kept[0]
        return None

    async def find(self, key: K, *, stale_s: float = 0.0) -> V | None:
        """Return the value, asking if need be; raises StoreError.

        stale_s: if the store does not answer, or not soon, an entry not older than this does; and for a while after
        that nobody is made to wait who has one.
        """
        fresh = self.peek(key)
        if fresh is not None:
            return fresh
        if self._is_missing(key):
            return None
        stale = self._find_stale(key, stale_s)
        if stale is not None and self._now() < self._away_until:
            return stale
        load = self._loading.setdefault(key, _Load())
        load.waiting += 1
        asked = self._now()
        try:
            async with asyncio.timeout(None if stale is None else PATIENCE_S):
                value = await self._load(key)
        except (StoreError, TimeoutError):
            self._away_until = self._now() + AWAY_S
            if stale is not None:
                return stale
            raise
        finally:
            load.waiting -= 1
            current = self._loading.get(key) is load
            if current and not load.waiting:
                del self._loading[key]
        if current:
            self._keep(key, value, asked)
        return value

    def _find_stale(self, key: K, stale_s: float) -> V | None:
        kept = self._kept.get(key)
        return kept[0] if kept is not None and self._now() - kept[1] < stale_s else None

    def _is_missing(self, key: K) -> bool:
        return key in self._missing and self._now() - self._missing[key] < self._missing_s

    def _keep(self, key: K, value: V | None, asked: float) -> None:
        self._kept.pop(key, None)
        self._missing.pop(key, None)
        if value is None:
            if self._missing_s:
                while len(self._missing) >= self._capacity:
                    del self._missing[next(iter(self._missing))]
                self._missing[key] = asked
            return
        while len(self._kept) >= self._capacity:
            del self._kept[next(iter(self._kept))]
        self._kept[key] = (value, asked)

    def forget(self, key: K) -> None:
        """Drop an entry, and whatever a load under way will bring."""
        self._kept.pop(key, None)
        self._missing.pop(key, None)
        self._loading.pop(key, None)
