"""What happened, on its way to people: an event at once, and a row in the next batch."""

import asyncio
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace
from time import monotonic
from typing import Any, Final

import structlog

from events.bus import Bus, Stamp, unwatched
from events.event import Event, event
from gateway import ports
from gateway.core.calls import END_STATES
from gateway.core.ids import new_id, of_sent_line
from gateway.core.journey import Arrival
from gateway.core.usage import Usage
from gateway.services.outage import Outage

log = structlog.get_logger("gateway.activity")

BATCH: Final = 200
"""Rows written in one statement."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """One row of a workspace's history. Bodies are views for people, already cut to size."""

    workspace_id: str
    activity_type: str
    method: str | None = None
    summary: str | None = None
    status: str | None = None
    source_id: str | None = None
    target_id: str | None = None
    call_id: str | None = None
    duration_ms: int | None = None
    error_detail: str | None = None
    request_body: Any = None
    response_body: Any = None
    metadata: Any = None
    usage: Usage | None = None
    cost: int = 0
    """In millionths of a cent."""
    counts: bool = False
    sign: bool = False
    arrival: Arrival | None = None
    """Of a pushed call: its row in the ledger is written with this one."""
    id: str = field(default_factory=new_id)

    def as_sent(self) -> "Line":
        """Return the line of the same call in the history of the workspace that made it."""
        assert self.source_id is not None
        return replace(
            self,
            id=of_sent_line(self.id),  # the same, whoever writes it
            workspace_id=self.source_id,
            activity_type="a2a_send",
            request_body=None,
            response_body=None,
            usage=None,
            cost=0,
            counts=False,
            arrival=None,
        )

    @property
    def bodies(self) -> bool:
        """Whether it carries a body."""
        return self.request_body is not None or self.response_body is not None

    def payload(self) -> dict[str, Any]:
        """Return the payload of the ACTIVITY_LOGGED event."""
        shown: dict[str, Any] = {
            "activity_type": self.activity_type,
            "method": self.method,
            "summary": self.summary,
            "status": self.status,
            "source_id": self.source_id,
            "target_id": self.target_id,
            "duration_ms": self.duration_ms,
        }
        if self.request_body is not None:
            shown["request_body"] = self.request_body
        if self.response_body is not None:
            shown["response_body"] = self.response_body
        return shown

    def row(self, age_s: float) -> dict[str, Any]:
        """Return the row as the database takes it; `age_s` is how long ago it happened."""
        usage = self.usage or Usage()
        return {
            "id": self.id,
            "workspace_id": self.workspace_id,
            "call_id": self.call_id,
            "activity_type": self.activity_type,
            "source_id": self.source_id,
            "target_id": self.target_id,
            "method": self.method,
            "summary": self.summary,
            "status": self.status,
            "duration_ms": self.duration_ms,
            "error_detail": self.error_detail,
            "request_body": self.request_body,
            "response_body": self.response_body,
            "metadata": self.metadata,
            "age_s": age_s,
            "calls": 1 if self.counts else 0,
            "input_tokens": usage.input_tokens,
            "output_tokens": usage.output_tokens,
            "millionths": self.cost,
            "call": None if self.arrival is None else _call(self.arrival),
        }


def _call(arrival: Arrival) -> dict[str, Any]:
    return {
        "state": END_STATES[arrival.ending],
        "ending": arrival.ending,
        "journey": arrival.journey,
    }


def _ended(lines: Iterable[Line]) -> list[str]:
    """The calls whose ends are in these lines."""
    return [line.call_id for line in lines if line.arrival is not None and line.call_id is not None]


class ActivityLog:
    """Takes lines without making anybody wait. `capacity` of them wait for the database; more are counted, and lost.

    capacity_bytes: what the bodies of those that wait may take, roughly; further lines wait without theirs.
    settled: told of the calls whose ends are written, or lost.
    """

    def __init__(
        self,
        store: ports.Activity,
        bus: Bus,
        *,
        capacity: int,
        every_s: float,
        capacity_bytes: int = 64 * 1024 * 1024,
        settled: Callable[[Collection[str]], None] = lambda _: None,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._settled = settled
        self._store = store
        self._bus = bus
        self._capacity = capacity
        self._capacity_bytes = capacity_bytes
        self._every_s = every_s
        self._outage = Outage("writing activity")
        self._now = now
        self._waiting: deque[tuple[Line, float, int]] = deque()
        self._held_bytes = 0
        self._writing = asyncio.Lock()
        self._some = asyncio.Event()
        self.dropped = 0
        self.bodiless = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def __repr__(self) -> str:
        return f"<ActivityLog waiting={len(self._waiting)} dropped={self.dropped}>"

    def tell(self, line: Line) -> Event:
        """Tell everybody who listens of a row that is written already, and return what they hear."""
        told = event("ACTIVITY_LOGGED", line.workspace_id, line.payload(), sign=line.sign)
        self._bus.publish(told)
        return told

    def log(self, line: Line) -> None:
        """Tell everybody who listens, and have the row written within `every_s` seconds."""
        self.write(line, self.tell(line).size_bytes)

    def write(self, line: Line, size: int = 0) -> None:
        """Have a row written within `every_s` seconds that whoever listens knows already; `size`: of its bodies."""
        if len(self._waiting) >= self._capacity:
            self.dropped += 1
            log.error("activity_dropped", dropped=self.dropped)
            self._settled(_ended([line]))
            return
        if not line.bodies:
            size = 0
        if self._held_bytes + size > self._capacity_bytes:
            self.bodiless += 1
            line, size = replace(line, request_body=None, response_body=None), 0
        self._waiting.append((line, self._now(), size))
        self._held_bytes += size
        self._some.set()

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Write for ever."""
        while True:
            stamp(idle=True)
            await self._some.wait()
            stamp()
            await asyncio.sleep(self._every_s)
            with self._outage.noted():
                await self.flush()

    async def flush(self) -> None:
        """Write all that waits, in batches; while the database is away it stays.

        A row that is refused is logged, and written without its bodies; refused even so, it is lost.
        """
        async with self._writing:
            while self._waiting:
                batch = [self._waiting[i] for i in range(min(BATCH, len(self._waiting)))]
                await self._write([(line, at) for line, at, _ in batch])
                self._settled(_ended(line for line, _, _ in batch))
                for _, _, size in batch:
                    self._waiting.popleft()
                    self._held_bytes -= size
            self._some.clear()

    async def _write(self, batch: list[tuple[Line, float]]) -> None:
        now = self._now()
        try:
            await self._store.record([line.row(now - at) for line, at in batch])
        except (ports.StoreUnavailable, ports.StoreTimeout):
            raise
        except (ports.StoreError, TypeError) as error:  # TypeError: a body that cannot be written as JSON
            if len(batch) > 1:
                for row in batch:  # one bad row does not take the others with it
                    await self._write([row])
                return
            line, at = batch[0]
            log.error("activity_refused", id=line.id, error=type(error).__name__, bodies=line.bodies)
            if line.bodies:  # whatever they hold, that the call was made is kept, and counted
                await self._write([(replace(line, request_body=None, response_body=None), at)])
