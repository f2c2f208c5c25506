"""The wholes of events that are too large for the journal: fetched once a process, and cut for their readers."""

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from events.bus import Spawn
from events.frame import Frame
from events.readers import Style

log = structlog.get_logger("events.bodies")

FETCH_S: Final = 1.0
"""How long readers wait for a whole; afterwards they get the event as it stands in the journal, cut short."""
MAX_KNOWN: Final = 1024
"""Events held at once, those of them included whose whole is nowhere any more."""


@dataclass(slots=True)
class _Known:
    """An event with all of its payload, None if that is nowhere any more; and its parts, by style."""

    frame: Frame | None
    parts: dict[str, list[bytes]] = field(default_factory=dict)

    @property
    def size_bytes(self) -> int:
        return 0 if self.frame is None else len(self.frame.event.payload) * (1 + len(self.parts))


class Bodies:
    """Finds wholes, and holds those found lately, `max_bytes` of them.

    fetch: returns a whole by its reference, None if there is none; LookupError: it cannot be asked for now.
    """

    def __init__(self, fetch: Callable[[str], Awaitable[bytes | None]], spawn: Spawn, *, max_bytes: int) -> None:
        self._fetch = fetch
        self._spawn = spawn
        self._max_bytes = max_bytes
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._asked: dict[str, asyncio.Event] = {}
        self.bytes = 0
        self.fetched = 0
        self.missed = 0

    def __repr__(self) -> str:
        return f"<Bodies known={len(self._known)} bytes={self.bytes} fetched={self.fetched} missed={self.missed}>"

    async def parts(self, frame: Frame, style: Style) -> list[bytes]:
        """Return the block of an event by reference in the parts in which it is written, each ready to be wrapped.

        The event is whole if its payload can be had within FETCH_S, and as it stands in the journal otherwise.
        """
        reference = frame.event.reference
        assert reference is not None, "only an event by reference has its whole elsewhere"
        if reference not in self._known:
            await self._ask(frame, reference)
        known = self._known.get(reference)
        if known is None or known.frame is None:
            self.missed += 1
            return [style.block(frame)]
        self._known.move_to_end(reference)
        if style.name not in known.parts:
            self.bytes -= known.size_bytes
            known.parts[style.name] = style.parts(known.frame)
            self.bytes += known.size_bytes
        return known.parts[style.name]

    async def _ask(self, frame: Frame, reference: str) -> None:
        """Wait until it has been fetched, by whoever was first to want it."""
        done = self._asked.get(reference)
        if done is None:
            done = self._asked[reference] = asyncio.Event()
            self._spawn(self._get(frame, reference, done), "bodies:fetch")
        await done.wait()

    async def _get(self, frame: Frame, reference: str, done: asyncio.Event) -> None:
        try:
            async with asyncio.timeout(FETCH_S):
                whole = await self._fetch(reference)
        except (LookupError, TimeoutError) as error:
            log.warning("body_not_fetched", error=type(error).__name__)
        else:
            self.fetched += 1
            event = None if whole is None else replace(frame.event, payload=whole)
            self._keep(reference, _Known(None if event is None else replace(frame, event=event, blocks={})))
        finally:
            del self._asked[reference]
            done.set()

    def _keep(self, reference: str, known: _Known) -> None:
        self._known[reference] = known
        self.bytes += known.size_bytes
        while len(self._known) > MAX_KNOWN or (self.bytes > self._max_bytes and len(self._known) > 1):
            _, oldest = self._known.popitem(last=False)
            self.bytes -= oldest.size_bytes
