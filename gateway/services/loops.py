"""The loops of a process: started again when they end, given up when that does not help, and seen when they hang."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from time import monotonic
from typing import Final

import structlog

from events.bus import Stamp
from gateway.core.backoff import Backoff
from gateway.services.outage import Outage
from gateway.services.tasks import Tasks

log = structlog.get_logger("gateway.tasks")

RESTART: Final = Backoff(first_s=1.0, growth=2.0, most_s=30.0)
"""The waits before a loop that ended is started again, longer each time that it ends at once."""
RESTARTS: Final = 10
"""How often in a row a loop is started again before it is given up."""
HEALTHY_S: Final = 60.0
"""Seconds that a loop has to run until its restarts are no longer in a row."""
HANGS_S: Final = 60.0
"""Seconds that one turn of a loop may take."""


class State(StrEnum):
    """How a loop stands, the worst last."""

    IDLE = "idle"
    """It waits for something that may never come."""
    RUNNING = "running"
    BACKOFF = "backoff"
    """It has ended, and will be started again."""
    HUNG = "hung"
    """It has not turned for longer than it may."""
    GAVE_UP = "gave_up"
    """It has ended too often, and stays so until the process is restarted."""


_WORSE: Final = tuple(State)


@dataclass(frozen=True, kw_only=True, slots=True)
class Liveness:
    """How one loop stands. `does`: what it is there for, in a sentence. `last_error`: the type of what it ended with
    last. Seconds: since it turned, and until when it has to turn again."""

    name: str
    does: str
    state: State
    restarts: int
    last_error: str | None
    silent_s: float
    hangs_s: float
    shared: bool


class Loop:
    """What is known of one loop; called, it is the loop's stamp."""

    def __init__(self, name: str, does: str, *, hangs_s: float, shared: bool, now: Callable[[], float]) -> None:
        self._name = name
        self._does = does
        self._hangs_s = hangs_s
        self._shared = shared
        self._now = now
        self._state = State.RUNNING
        self._stamped_at = now()
        self.restarts = 0
        self.last_error: str | None = None

    def __call__(self, *, idle: bool = False) -> None:
        """Note that the loop turns; `idle`: it waits for what may never come, and no next stamp is due."""
        self._stamped_at = self._now()
        self._state = State.IDLE if idle else State.RUNNING

    def end(self, state: State) -> None:
        """Note that the loop has ended, for a while or for good."""
        self._state = state

    def liveness(self) -> Liveness:
        """Return how it stands now."""
        silent_s = self._now() - self._stamped_at
        late = self._state is State.RUNNING and silent_s > self._hangs_s
        return Liveness(
            name=self._name,
            does=self._does,
            state=State.HUNG if late else self._state,
            restarts=self.restarts,
            last_error=self.last_error,
            silent_s=silent_s,
            hangs_s=self._hangs_s,
            shared=self._shared,
        )


class Loops(Tasks):
    """The tasks of a process, some of which turn for ever.

    A loop that raises or returns is started again, ever later, and given up in the end; what it holds stays with its
    owner meanwhile. hangs_s: how long a turn may take, its pauses included, unless the loop says otherwise.
    """

    def __init__(self, *, hangs_s: float = HANGS_S, now: Callable[[], float] = monotonic) -> None:
        super().__init__()
        self._hangs_s = hangs_s
        self._now = now
        self._loops: list[Loop] = []

    def loop(
        self,
        work: Callable[[Stamp], Awaitable[None]],
        name: str,
        does: str,
        *,
        hangs_s: float | None = None,
        shared: bool = False,
    ) -> None:
        """Keep this running: it stamps at each turn, and hangs when it has not for `hangs_s` seconds, or as all do.

        does: what it is there for, a sentence for the operator. shared: other replicas do the same work, so that this
        process is of use without it.
        """
        one = Loop(name, does, hangs_s=self._hangs_s if hangs_s is None else hangs_s, shared=shared, now=self._now)
        self._loops.append(one)
        self.spawn(self._supervise(work, one, name), name)

    def every(
        self,
        every_s: float,
        tick: Callable[[], Awaitable[None]],
        name: str,
        does: str,
        *,
        outage: Outage,
        at_once: bool = False,
        hangs_s: float = HANGS_S,
        shared: bool = False,
    ) -> None:
        """Keep doing this, after pauses of `every_s` seconds; while a datastore is away, that is said once.

        does: as of `loop`. at_once: without a pause before the first time.
        """

        async def turn(stamp: Stamp) -> None:
            nonlocal at_once
            while True:
                await asyncio.sleep(0 if at_once else every_s)
                at_once = False
                stamp()
                with outage.noted():
                    await tick()

        self.loop(turn, name, does, hangs_s=every_s + hangs_s, shared=shared)

    def liveness(self) -> Sequence[Liveness]:
        """Return how each loop stands, in the order in which they were started."""
        return [one.liveness() for one in self._loops]

    def count(self, state: State) -> int:
        """Return how many loops stand so."""
        return sum(one.state is state for one in self.liveness())

    @property
    def worst(self) -> State:
        """How the loop stands that stands worst."""
        return max((one.state for one in self.liveness()), key=_WORSE.index, default=State.IDLE)

    @property
    def crippled(self) -> bool:
        """Whether a loop was given up whose work no other replica does."""
        return any(one.state is State.GAVE_UP and not one.shared for one in self.liveness())

    async def _supervise(self, work: Callable[[Stamp], Awaitable[None]], loop: Loop, name: str) -> None:
        in_a_row = 0
        while True:
            began = self._now()
            loop()
            try:
                await work(loop)
                loop.last_error = None
                log.error("loop_returned", name=name)
            except (Exception, asyncio.CancelledError) as error:  # whatever it is, the loop goes on
                if isinstance(error, asyncio.CancelledError) and _is_asked_to_end():
                    raise
                self.deaths += 1
                loop.last_error = type(error).__name__
                log.exception("loop_died", name=name)
            in_a_row = 0 if self._now() - began >= HEALTHY_S else in_a_row
            if in_a_row == RESTARTS:
                loop.end(State.GAVE_UP)
                log.error("loop_gave_up", name=name, restarts=loop.restarts, last_error=loop.last_error)
                return
            loop.end(State.BACKOFF)
            in_a_row += 1
            await asyncio.sleep(RESTART.after_s(in_a_row, 1.0))
            loop.restarts += 1


def _is_asked_to_end() -> bool:
    """Whether somebody has cancelled this task; a CancelledError without that is of something that it waited for."""
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0
