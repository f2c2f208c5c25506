"""When a call has been silent for too long, or has taken too long.

One cell a workspace with calls in flight, one timer a call; a sign of life is one store. A timer that fires looks at
the cell and either winds itself up again or makes its call a suspect; suspects are confirmed together, by one question
to the database, before any of them is ended for silence: another replica may have heard what this one did not.
"""

import asyncio
import math
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Final

import structlog

from gateway.core.journey import Sign
from gateway.core.outcomes import Clock
from gateway.ports import Silence, StoreError

log = structlog.get_logger("gateway.net.clocks")

RECHECK_S: Final = 5.0
"""Seconds between two attempts to confirm a silence while the database does not answer."""
CONFIRM_S: Final = 2.0
"""Seconds that the database may take to confirm one."""

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]


class ClockExpired(Exception):
    """A clock of this call ran out."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(clock.value)
        self.clock = clock


class Cell:
    """The last sign of life of one workspace, in seconds of the loop's clock, and how many calls look at it."""

    __slots__ = ("last", "watches")

    def __init__(self) -> None:
        self.last = 0.0
        self.watches = 0


class Clocks:
    """The cells of this process. `stamp` is called for every sign of life on the bus.

    bus_lost_s: how long a suspect may stay unconfirmed before its call ends as `bus_lost`. first_byte_s: how long an
    agent may take to begin its answer, and stall_s: how long a stream may go on without an event, whatever else shows
    that its agent lives; None for as long as it likes.
    """

    def __init__(
        self,
        *,
        silence: Silence,
        spawn: Spawn,
        bus_lost_s: float,
        first_byte_s: float | None = None,
        stall_s: float | None = None,
    ) -> None:
        self._silence = silence
        self._spawn = spawn
        self.bus_lost_s = bus_lost_s
        self.first_byte_s = math.inf if first_byte_s is None else first_byte_s
        self.stall_s = math.inf if stall_s is None else stall_s
        self._cells: dict[str, Cell] = {}
        self._suspects: set[Watch] = set()
        self._confirming = False
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Clocks cells={len(self._cells)} suspects={len(self._suspects)}>"

    def __contains__(self, workspace_id: str) -> bool:
        """Whether a call to this workspace is in flight."""
        return workspace_id in self._cells

    def stamp(self, workspace_id: str) -> None:
        """Take note that this workspace has just shown life."""
        cell = self._cells.get(workspace_id)
        if cell is not None:
            cell.last = self._loop.time()

    def watch(self, workspace_id: str, *, idle_s: float, limit_s: float | None, limit: Clock) -> "Watch":
        """Return the clocks of one call, wound up on entering; the block they guard raises ClockExpired.

        limit_s, limit: a total time, and which clock that is (the caller's deadline, or the ceiling).
        """
        return Watch(self, workspace_id, idle_s=idle_s, limit_s=limit_s, limit=limit)

    def enter(self, workspace_id: str) -> Cell:
        """Return the cell of a workspace, held until `leave`."""
        cell = self._cells.setdefault(workspace_id, Cell())
        cell.watches += 1
        return cell

    def leave(self, workspace_id: str, watch: "Watch") -> None:
        """Let go of a cell."""
        self._suspects.discard(watch)
        cell = self._cells[workspace_id]
        cell.watches -= 1
        if not cell.watches:
            del self._cells[workspace_id]

    def suspect(self, watch: "Watch") -> None:
        """Have a silence confirmed, together with the others of this turn of the loop."""
        self._suspects.add(watch)
        if not self._confirming:
            self._confirming = True
            self._spawn(self._confirm(), "clocks:confirm")

    async def _confirm(self) -> None:
        try:
            while self._suspects:
                suspects = list(self._suspects)
                self._suspects.clear()
                asked = self._loop.time()
                silent = await self._ask(suspects)
                # for all calls of these workspaces, also of those that did not ask
                for workspace_id, silent_s in (silent or {}).items():
                    cell = self._cells.get(workspace_id)
                    if cell is not None:
                        cell.last = max(cell.last, asked - silent_s)
                for watch in suspects:
                    if watch.left:
                        continue
                    if silent is None:
                        watch.unconfirmed()
                    else:
                        watch.judge()
        finally:
            self._confirming = False

    async def _ask(self, suspects: "list[Watch]") -> Mapping[str, float] | None:
        """Return the seconds of silence of each of their workspaces that was ever heard, None if nobody can say."""
        try:
            async with asyncio.timeout(CONFIRM_S):
                return await self._silence.silence(sorted({watch.workspace_id for watch in suspects}))
        except (StoreError, TimeoutError) as error:
            log.warning("silence_unconfirmed", calls=len(suspects), error=type(error).__name__)
        except Exception:  # a bug of ours must not leave calls without a clock
            log.exception("silence_unconfirmed", calls=len(suspects))
        return None


class Watch:
    """The clocks of one call, as the block in which it is made; `touch` is for bytes of its answer."""

    __slots__ = (
        "_began", "_cancels", "_cell", "_clocks", "_expired", "_first_at", "_handle", "_heard_at", "_idle_s", "_limit",
        "_limit_at", "_limit_s", "_loop", "_stall_at", "_task", "left", "workspace_id",
    )  # fmt: skip

    _task: "asyncio.Task[Any]"
    _cell: Cell

    def __init__(
        self, clocks: Clocks, workspace_id: str, *, idle_s: float, limit_s: float | None, limit: Clock
    ) -> None:
        self.workspace_id = workspace_id
        self._clocks = clocks
        self._idle_s = idle_s
        self._limit_s = limit_s
        self._limit = limit
        self._limit_at = self._first_at = self._stall_at = math.inf
        self._began = self._heard_at = 0.0
        self._expired: Clock | None = None
        self._handle: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()
        self.left = False

    def touch(self) -> None:
        """Take note that bytes of this call's own answer have come."""
        self._heard_at = self._loop.time()
        self._first_at = math.inf

    def progress(self) -> None:
        """Take note that its answer is a stream, and has come an event further."""
        waited = self._stall_at != math.inf
        self._stall_at = self._loop.time() + self._clocks.stall_s
        if not waited and self._stall_at != math.inf:
            self._wind(self._due())

    @property
    def age_s(self) -> float:
        """Seconds since it was wound up."""
        return self._loop.time() - self._began

    def last_reset(self) -> tuple[Sign, float]:
        """Return what set the idle clock back last, and when: seconds after it was wound up."""
        sign_at = self._cell.last
        if sign_at > self._heard_at:
            return Sign.WORKSPACE, sign_at - self._began
        return (Sign.ANSWER if self._heard_at > self._began else Sign.SENT), self._heard_at - self._began

    async def __aenter__(self) -> "Watch":
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancels = task.cancelling()
        self._cell = self._clocks.enter(self.workspace_id)
        self._began = self._heard_at = self._loop.time()
        if self._limit_s is not None:
            self._limit_at = self._heard_at + self._limit_s
        self._first_at = self._heard_at + self._clocks.first_byte_s
        self._wind(self._heard_at + self._idle_s)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._clocks.leave(self.workspace_id, self)
        self.left = True
        if self._expired is not None and self._task.uncancel() <= self._cancels and error is not None:
            raise ClockExpired(self._expired) from error

    def _wind(self, due: float) -> None:
        if self._handle is not None:
            self._handle.cancel()
        at = min(due, self._limit_at, self._first_at, self._stall_at)
        self._handle = self._loop.call_at(at, self._fire) if at != math.inf else None

    def _due(self) -> float:
        """When the idle time is over, as far as this process has heard."""
        return max(self._heard_at, self._cell.last) + self._idle_s

    def _rewind(self, now: float) -> bool:
        """Wind up for what is left of the idle time; False if nothing is."""
        due = self._due()
        if now >= due:
            return False
        self._wind(due)
        return True

    def _fire(self) -> None:
        now = self._loop.time()
        if now >= self._limit_at:
            self._expire(self._limit)
        elif now >= self._first_at:
            self._expire(Clock.FIRST_BYTE)
        elif now >= self._stall_at:
            self._expire(Clock.STALLED)
        elif not self._rewind(now):
            self._wind(math.inf)  # the total time still holds
            self._clocks.suspect(self)

    def judge(self) -> None:
        """End the call for silence, or wind it up again, now that the database has spoken."""
        if self._expired is None and not self._rewind(self._loop.time()):
            self._expire(Clock.IDLE)

    def unconfirmed(self) -> None:
        """Ask again in a while: a silence that cannot be confirmed ends nobody, until it has lasted too long."""
        now = self._loop.time()
        if self._expired is not None or self._rewind(now):
            return
        if now - self._due() >= self._clocks.bus_lost_s:
            self._expire(Clock.BUS_LOST)
        else:
            self._wind(now + min(RECHECK_S, self._clocks.bus_lost_s))

    def _expire(self, clock: Clock) -> None:
        if self._expired is None:
            self._expired = clock
            self._task.cancel()
