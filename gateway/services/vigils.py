"""Streaming callers of calls that wait: they stay until their agent has time, or has fetched and answered the call."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from math import inf
from time import monotonic
from typing import Final

import structlog

from gateway import ports
from gateway.core import farewells, queue, streams
from gateway.core.answers import Answer
from gateway.core.calls import Call, Kind, State
from gateway.core.endings import Ending
from gateway.services.streams import Opened, Reading, Streams
from gateway.services.wakes import Wakes, heard

log = structlog.get_logger("gateway.vigils")

LOOK_S: Final = 2.0
"""How often it is looked how a call stands that nothing was heard of."""
SOON_S: Final = 0.1
"""How soon it is asked again what an agent that polls says of its work; while it says nothing, less and less often."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Awaited:
    """A call that waits for its agent, and whose caller streams. id_json: its JSON-RPC id.

    stays_s: how long that caller stays at most, None for as long as the call waits.
    """

    call_id: str
    workspace_id: str
    id_json: bytes | None
    stays_s: float | None = None


class Vigils:
    """Keeps callers company. `callers`: who is woken by the end of a call."""

    def __init__(
        self, *, calls: ports.Calls, queue: ports.Queue, streams: Streams, journal: ports.Journal, callers: Wakes
    ) -> None:
        self._calls = calls
        self._queue = queue
        self._streams = streams
        self._journal = journal
        self._callers = callers

    def begin(self, awaited: Awaited, gone: Callable[[], bool]) -> "Vigil":
        """Return what its caller reads. gone: whether it has hung up."""
        return Vigil(
            awaited,
            gone,
            calls=self._calls,
            queue=self._queue,
            streams=self._streams,
            journal=self._journal,
            callers=self._callers,
        )


class Vigil:
    """What one such caller reads, as the block in which it does: its call's place, then the answer. `over` as of a
    Reading."""

    def __init__(
        self,
        awaited: Awaited,
        gone: Callable[[], bool],
        *,
        calls: ports.Calls,
        queue: ports.Queue,
        streams: Streams,
        journal: ports.Journal,
        callers: Wakes,
    ) -> None:
        self.awaited = awaited
        self._gone = gone
        self._calls = calls
        self._queue = queue
        self._streams = streams
        self._journal = journal
        self._callers = callers
        self._stack = ExitStack()
        self._reading: Reading | None = None
        self._place: int | None = None
        self._polled = False
        self._heard = ""
        self._pause_s = SOON_S
        self._looks_at = self._listens_at = 0.0
        self._leaves_at = inf if awaited.stays_s is None else monotonic() + awaited.stays_s
        self._over = False

    def __repr__(self) -> str:
        return f"<Vigil {self.awaited.call_id} place={self._place} over={self.over}>"

    def __enter__(self) -> "Vigil":
        self._woken = self._stack.enter_context(self._callers.waiting(self.awaited.call_id))
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def over(self) -> bool:
        """Whether its caller has all that there will be."""
        return self._over or (self._reading is not None and self._reading.over)

    @property
    def keeps_up(self) -> bool:
        """As of a Reading."""
        return self._reading is not None and self._reading.keeps_up

    async def push(self, write: Callable[[bytes], bool], within_s: float) -> None:
        """As of a Reading."""
        assert self._reading is not None, "who waits does not keep up"
        await self._reading.push(write, within_s)

    def rest(self) -> None:
        """As of a Reading; who waits looks by itself."""
        if self._reading is not None:
            self._reading.rest()

    async def read(self, within_s: float) -> bytes:
        """Return what comes next; b"" if nothing has within this time, or nothing will."""
        if self._reading is None:
            due = min(self._looks_at, self._leaves_at, self._listens_at if self._polled else inf)
            await heard(self._woken, min(within_s, due - monotonic()), self._gone)
            if self._polled and monotonic() >= self._listens_at and (said := await self._listen()):
                return said
            leaves = monotonic() >= self._leaves_at
            if not (leaves or self._woken.is_set() or monotonic() >= self._looks_at):
                return b""
            said = await self._look()
            if leaves and not said and self._reading is None:
                return self.fail(Ending.DEADLINE.value, "the caller's time is over; the call waits on")
            if said or self._reading is None:
                return said
        return await self._reading.read(within_s)

    async def _look(self) -> bytes:
        """See whether its answer has begun, or how it stands."""
        self._looks_at = monotonic() + LOOK_S
        opened = await self._find_stream()
        if opened is not None:
            self._reading = self._stack.enter_context(
                self._streams.read(replace(opened, id_json=self.awaited.id_json or b"null"))
            )
            return b""
        if self._callers.closed:
            return self.fail(Ending.GATEWAY_SHUTDOWN.value, "the gateway is shutting down; the call waits on")
        self._woken.clear()
        try:
            call = await self._calls.find(self.awaited.workspace_id, self.awaited.call_id)
            if call is None:
                return b""
            self._polled = call.kind is Kind.PARKED
            if call.ended:
                return (await self._listen() if self._polled else b"") + self._told(call)
            place = await self._find_place(call)
        except ports.StoreError as error:  # the call is safe, and its answer comes later
            log.warning("call_unseen", call_id=self.awaited.call_id, error=type(error).__name__)
            return b""
        if place == self._place:
            return b""
        self._place = place
        return streams.place_comment(place) if place is not None else b""

    def fail(self, code: str, sentence: str) -> bytes:
        """As of a Reading."""
        if self._reading is not None:
            return self._reading.fail(code, sentence)
        self._over = True
        error = farewells.failure(code, sentence, call_id=self.awaited.call_id, last=0)
        return farewells.error_event(error, self.awaited.id_json)

    async def _listen(self) -> bytes:
        """What an agent that polls has said of its work meanwhile."""
        try:
            added = await self._journal.list_added(self.awaited.call_id, self._heard)
        except ports.LiveUnavailable:
            added = ()
        self._pause_s = SOON_S if added else min(2 * self._pause_s, LOOK_S)
        self._listens_at = monotonic() + self._pause_s
        if added:
            self._heard = added[-1][0]
        return b"".join(streams.of_event(event, self.awaited.id_json) for _, event in added)

    async def _find_stream(self) -> Opened | None:
        try:
            return await self._streams.find(self.awaited.call_id)
        except ports.LiveUnavailable:
            return None

    async def _find_place(self, call: Call) -> int | None:
        if call.kind is Kind.PARKED or call.state is not State.QUEUED:
            return None
        return await self._queue.position(call.workspace_id, call.id)

    def _told(self, call: Call) -> bytes:
        """The answer of a call that was not streamed, or the end of one that has none."""
        self._over = True
        answer = queue.find_answer(call) or Answer(status=502, body=b"")
        ending = "" if call.ending is None else call.ending.value
        return farewells.of_answer(answer, ending, call_id=call.id, id_json=self.awaited.id_json)
