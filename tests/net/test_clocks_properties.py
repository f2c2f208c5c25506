"""Whatever happens to calls, and in whatever order: each ends once, for a true reason, and leaves nothing behind."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from gateway.core.outcomes import Clock
from gateway.net.clocks import CONFIRM_S, RECHECK_S, ClockExpired, Clocks, Watch
from gateway.ports import Liveness, StoreUnavailable
from gateway.services.tasks import Tasks
from tests.harness.virtual import VirtualLoop

IDLE_S = 10.0
BUS_LOST_S = 20.0
AFTERWARDS_S = 60.0
SLACK_S = 1e-6
WORKSPACES = ("a", "b")
CALLS = 3

moments = st.integers(0, 120).map(lambda quarters: quarters / 4)


@dataclass
class Story:
    """What is done to the calls, and when. Times are seconds."""

    limits: list[float | None]
    answered: list[float | None]
    cancelled: list[float | None]
    touched: list[tuple[int, float]]
    stamped: list[tuple[str, float]]
    confirming: list[str | float]
    """What the database says each time it is asked: a silence, or a way not to answer."""
    takes_s: float


@dataclass
class Call:
    """What became of one call."""

    workspace: str
    limit_s: float | None
    signs: list[tuple[float, float]] = field(default_factory=lambda: [(-1.0, 0.0)])
    """When this process heard of a sign of life, and when it was shown."""
    endings: list[str] = field(default_factory=list)
    ended_at: float = 0.0
    watch: Watch | None = None
    cancelled: bool = False
    cancels_left: int = 0


def per_call(what: st.SearchStrategy[float | None]) -> st.SearchStrategy[list[float | None]]:
    return st.lists(what, min_size=CALLS, max_size=CALLS)


stories = st.builds(
    Story,
    limits=per_call(st.none() | st.integers(1, 120).map(lambda quarters: quarters / 4)),
    answered=per_call(st.none() | moments),
    cancelled=per_call(st.none() | st.none() | moments),
    touched=st.lists(st.tuples(st.integers(0, CALLS - 1), moments), max_size=6),
    stamped=st.lists(st.tuples(st.sampled_from(WORKSPACES), moments), max_size=6),
    confirming=st.lists(
        st.sampled_from(["nobody", "away", "hangs", "bug"]) | st.integers(0, 15).map(float), max_size=12
    ),
    takes_s=st.sampled_from([0.0, 0.25, 1.0]),
)


class Stage:
    """Plays one story in a loop of its own."""

    def __init__(self, story: Story, tasks: Tasks) -> None:
        self.story = story
        self.loop = asyncio.get_running_loop()
        self.tasks = tasks
        self.calls = [Call(workspace=WORKSPACES[n % len(WORKSPACES)], limit_s=story.limits[n]) for n in range(CALLS)]
        self.clocks = Clocks(silence=cast(Liveness, self), spawn=tasks.spawn, bus_lost_s=BUS_LOST_S)
        self.script = list(story.confirming)
        self.known: dict[str, float] = {}
        """When each workspace last showed life, as the database knows it."""

    async def silence(self, asked: Sequence[str]) -> Mapping[str, float]:
        """What PostgreSQL says (ports.Liveness, of which clocks use no more)."""
        asked_at = self.loop.time()
        await asyncio.sleep(self.story.takes_s)
        match self.script.pop(0) if self.script else "nobody":
            case "away":
                raise StoreUnavailable("nobody answers")
            case "bug":
                raise RuntimeError("a bug")
            case "hangs":
                await asyncio.Event().wait()
            case float() as silent_s:
                for workspace in asked:  # it forgets nothing that it has once said
                    self.known[workspace] = max(self.known.get(workspace, -math.inf), asked_at - silent_s)
        answer = {workspace: asked_at - self.known[workspace] for workspace in asked if workspace in self.known}
        for call in self.calls:
            if call.workspace in answer:
                call.signs.append((self.loop.time(), self.known[call.workspace]))
        return answer

    async def call(self, call: Call, answer: asyncio.Event) -> None:
        task = asyncio.current_task()
        assert task is not None
        watch = self.clocks.watch(call.workspace, idle_s=IDLE_S, limit_s=call.limit_s, limit=Clock.DEADLINE)
        try:
            async with watch:
                call.watch = watch
                await answer.wait()
            call.endings.append("answered")
        except ClockExpired as expired:
            call.endings.append(expired.clock.value)
        except asyncio.CancelledError:
            call.endings.append("cancelled")
        call.cancels_left = task.cancelling()
        call.ended_at = self.loop.time()
        await asyncio.sleep(AFTERWARDS_S)  # the caller's task goes on, and nothing may cancel it now

    def stamp(self, workspace: str) -> None:
        self.clocks.stamp(workspace)
        for call in self.calls:
            if call.workspace == workspace:
                call.signs.append((self.loop.time(), self.loop.time()))

    def touch(self, call: Call) -> None:
        if call.watch is not None:
            call.watch.touch()
            call.signs.append((self.loop.time(), self.loop.time()))

    def cancel(self, call: Call, task: "asyncio.Task[None]") -> None:
        if not call.endings:
            call.cancelled = task.cancel()

    async def play(self) -> None:
        running = []
        for call, answered, cancelled in zip(self.calls, self.story.answered, self.story.cancelled, strict=True):
            answer = asyncio.Event()
            task = self.tasks.spawn(self.call(call, answer), "call")
            running.append(task)
            if answered is not None:
                self.loop.call_at(answered, answer.set)
            if cancelled is not None:
                self.loop.call_at(cancelled, self.cancel, call, task)
        for number, at in self.story.touched:
            self.loop.call_at(at, self.touch, self.calls[number])
        for workspace, at in self.story.stamped:
            self.loop.call_at(at, self.stamp, workspace)
        await asyncio.wait(running)
        assert not any(task.cancelled() for task in running), "cancelled after its end"


async def play(story: Story) -> Stage:
    async with Tasks() as tasks:
        stage = Stage(story, tasks)
        await stage.play()
        assert len(tasks) == 0
        assert tasks.deaths == 0
    return stage


def check(call: Call, answered: float | None, cancelled: float | None) -> None:
    (ending,) = call.endings
    at = call.ended_at
    heard = max(shown_at for heard_at, shown_at in call.signs if heard_at < at - SLACK_S)
    assert call.limit_s is None or at <= call.limit_s + SLACK_S
    match ending:
        case "answered":
            assert answered is not None
            assert abs(at - answered) < SLACK_S
        case "cancelled":
            assert cancelled is not None
            assert abs(at - cancelled) < SLACK_S
        case Clock.DEADLINE:
            assert call.limit_s is not None
            assert abs(at - call.limit_s) < SLACK_S
        case Clock.IDLE:
            assert at - heard >= IDLE_S - SLACK_S
        case Clock.BUS_LOST:
            assert at - heard >= IDLE_S + BUS_LOST_S - SLACK_S
    assert call.cancelled == (ending == "cancelled"), "a cancel from outside was swallowed"
    assert call.cancels_left == int(call.cancelled)
    assert at - heard <= IDLE_S + BUS_LOST_S + 2 * (RECHECK_S + CONFIRM_S), "a silent call went on"


@settings(max_examples=400, deadline=None)
@given(story=stories)
def test_every_call_ends_once_for_a_true_reason_and_leaves_nothing_behind(story: Story):
    with capture_logs(), asyncio.Runner(loop_factory=VirtualLoop) as runner:
        stage = runner.run(play(story))
        assert repr(stage.clocks) == "<Clocks cells=0 suspects=0>"
        assert runner.get_loop().timers == 0
    for call, answered, cancelled in zip(stage.calls, story.answered, story.cancelled, strict=True):
        check(call, answered, cancelled)
