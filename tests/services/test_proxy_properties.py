"""Whatever happens to calls, and though it happens at one instant: each ends once, and is told and settled once."""

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final
from uuid import UUID

import orjson
import pytest
from structlog.testing import capture_logs

from events.bus import Bus
from gateway.core import answers, outcomes
from gateway.core.answers import Answer
from gateway.core.calls import END_STATES
from gateway.core.endings import Ending
from gateway.core.refusals import Code, Refusal
from gateway.net.clocks import CONFIRM_S, Clocks
from gateway.net.dispatch import Dispatcher
from gateway.ports import Left
from gateway.services.arrivals import Arrivals
from gateway.services.flights import Flight
from gateway.services.tasks import Tasks
from tests.harness.virtual import VirtualLoop
from tests.harness.wire import Script, Way, Wire, session
from tests.services.memory import Channel, Gate
from tests.services.switchboard import CALLER, TARGET, Switchboard, message

SEEDS: Final = 10_000
PORTION: Final = 1_000
IDLE_S: Final = 3.0
CEILING_S: Final = 5.0
LIMIT_BYTES: Final = 200
SLACK_S: Final = 1e-6
TURNS: Final = 12
"""More turns of the loop than a call takes from when it comes until it is sent."""
OVER_S: Final = 40.0
"""Whatever happens, all is over by then."""
UNKNOWN: Final = {Ending.CANCELLED, Ending.GATEWAY_SHUTDOWN}


@dataclass(kw_only=True)
class One:
    """A call of a story: what its agent does, and what is done to it. Times are seconds."""

    id: str
    begins: float
    message: int
    """Calls with the same one are one."""
    caller: str | None
    timeout: float | None
    script: Script
    cancelled: list[float] = field(default_factory=list)
    leaves: float | None = None
    """When its client hangs up, which nobody is told ..."""
    dropped: float | None = None
    """... and when nobody waits for it here any more."""
    gone: bool = False
    answer: Answer | Refusal | None = None
    waits: "asyncio.Task[None] | None" = None


@dataclass(kw_only=True)
class Story:
    """What happens. `drain`: when, and how long it waits."""

    calls: list[One]
    signs: list[float]
    drain: tuple[float, float] | None
    confirm_s: float
    turns: Random = field(repr=False)
    """In which order what coincides is done."""


def write(seed: int) -> Story:
    """The story of this number: a quarter of a second is an instant, so that things coincide."""
    random = Random(seed)

    def moment(last_s: float = 4.0) -> float:
        return random.randrange(int(last_s * 4) + 1) / 4

    def script() -> Script:
        way = random.choices(list(Way), weights=[6, 1, 2, 2, 3])[0]
        pieces = random.choice([1, 1, 2, 4]) if way is not Way.SILENCE else random.choice([0, 0, 1, 3])
        body = b"x" * random.choice([10, 10, 10, LIMIT_BYTES + 1])
        status = random.choice([200, 200, 200, 429, 500])
        return Script(
            way=way,
            connect_s=random.choice([0.0, 0.0, 0.25, 1.0]),
            begin_s=random.choice([0.0, 0.25, 0.5, 1.0, 2.0, IDLE_S]),
            piece_s=random.choice([0.0, 0.25, 1.0, IDLE_S]),
            pieces=pieces,
            status=status,
            body=body,
        )

    shared = random.random() < 0.3
    calls = [
        One(
            id=str(UUID(int=seed * 16 + number)),
            begins=moment(1.0),
            message=0 if shared else number,
            caller=random.choice([None, CALLER]),
            timeout=random.choice([None, None, 0.25, 1.0, 2.0, IDLE_S]),
            script=script(),
            cancelled=[moment() for _ in range(random.choice([0, 0, 0, 1, 1, 2]))],
            leaves=random.choice([None, None, moment()]),
            dropped=random.choice([None, None, None, moment()]),
        )
        for number in range(random.randint(1, 3))
    ]
    if shared:
        for one in calls:
            one.caller = CALLER  # what two say under one id is the same only if one and the same says it
    return Story(
        calls=calls,
        signs=[moment() for _ in range(random.choice([0, 0, 1, 3]))],
        drain=(moment(), random.choice([0.0, 0.25, 1.0])) if random.random() < 0.35 else None,
        confirm_s=random.choice([0.0, 0.25, 1.0]),
        turns=random,
    )


class Noting(Gate):
    """A gate that notes when each call was settled."""

    def __init__(self) -> None:
        super().__init__()
        self.left_at: dict[str, float] = {}

    def leave(self, left: Left) -> None:
        super().leave(left)
        self.left_at[left.call_id] = asyncio.get_running_loop().time()


class Stage:
    """Plays one story, with the real proxy, dispatcher and clocks."""

    def __init__(self, story: Story, tasks: Tasks) -> None:
        self.story = story
        self.tasks = tasks
        self.loop = asyncio.get_running_loop()
        self.channel = Channel()
        self.bus = Bus(self.channel, capacity=1000, capacity_bytes=10**6)
        self.wire = Wire({one.id: one.script for one in story.calls}, self.loop.time)
        self.clocks = Clocks(silence=self, spawn=tasks.spawn, bus_lost_s=60.0)
        self.gate = Noting()
        self.board = Switchboard(
            self.bus,
            self.channel,
            tasks,
            dispatcher=Dispatcher(session(self.wire), self.clocks, limit_bytes=LIMIT_BYTES),
            idle_s=IDLE_S,
            ceiling_s=CEILING_S,
            gate=self.gate,
        )
        self.drained: asyncio.Task[None] | None = None

    async def silence(self, workspace_ids: Sequence[str]) -> Mapping[str, float]:
        """What the database says (ports.Silence): it never heard of anybody."""
        await asyncio.sleep(self.story.confirm_s)
        return {}

    async def make(self, one: One) -> None:
        headers = {} if one.timeout is None else {"X_Timeout": str(one.timeout)}
        try:
            one.answer = await self.board.call(
                caller=one.caller, body=message(one.message), call_id=one.id, gone=lambda: one.gone, **headers
            )
        except Refusal as refused:
            one.answer = refused

    def begin(self, one: One) -> None:
        one.waits = self.tasks.spawn(self.make(one), f"make:{one.id}")

    def leave(self, one: One) -> None:
        one.gone = True

    def drop(self, one: One) -> None:
        if one.waits is not None:
            one.waits.cancel()

    def drain(self, within_s: float) -> None:
        self.drained = self.tasks.spawn(self.board.proxy.drain(within_s), "drain")

    def at(self, moment: float, act: Callable[..., None], *what: object) -> None:
        """Let this be done at that moment, some turns of the loop after it has come: others have theirs in between."""
        self.loop.call_at(moment, self.turn, self.story.turns.randrange(TURNS), act, *what)

    def turn(self, turns: int, act: Callable[..., None], *what: object) -> None:
        if turns:
            self.loop.call_soon(self.turn, turns - 1, act, *what)
        else:
            act(*what)

    async def play(self) -> None:
        writing = self.tasks.spawn(self.bus.run(), "bus")
        for one in self.story.calls:
            self.at(one.begins, self.begin, one)
            for at in one.cancelled:
                self.at(at, self.board.flights.call_off, one.id)
            if one.leaves is not None:
                self.at(one.leaves, self.leave, one)
            if one.dropped is not None:
                self.at(one.dropped, self.drop, one)
        for at in self.story.signs:
            self.at(at, self.clocks.stamp, TARGET)
        if self.story.drain is not None:
            at, within_s = self.story.drain
            self.at(at, self.drain, within_s)
        await asyncio.sleep(OVER_S)
        await self.board.activity.flush()
        assert await self.bus.drain(1)
        writing.cancel()


def check(stage: Stage) -> Counter[str]:
    """What must be true once all is over; returns what has happened, for those who count."""
    board, story = stage.board, stage.story
    begun = {entry.call_id: entry for entry in stage.gate.entries}
    told = [orjson.loads(event.payload) for event in stage.channel.events if event.type == "CALL_ENDED"]
    rows = [row for row in board.rows.rows if row["activity_type"] == "a2a_receive"]
    made = [left.call_id for left in stage.gate.left if left.arrival is not None]
    unmade = [left.call_id for left in stage.gate.left if left.arrival is None]
    assert len(set(made)) == len(made), "settled twice"
    assert sorted(made + unmade) == sorted(begun), "not settled, or never let in"
    assert sorted(one["call_id"] for one in told) == sorted(made), "not told once"
    assert sorted(row["call_id"] for row in rows) == sorted(made), "not written once"
    assert sum(row["calls"] for row in board.rows.rows) == len(made), "not counted once"
    ended = {left.call_id: left.arrival for left in stage.gate.left if left.arrival is not None}
    for one, row in ((one, row) for one in told for row in rows if row["call_id"] == one["call_id"]):
        assert one["ending"] == row["call"]["ending"] == ended[one["call_id"]].ending
        assert row["call"]["state"] == END_STATES[Ending(one["ending"])]
        assert one["status"] == row["call"]["journey"].status
    for one in story.calls:
        if one.id in made:
            true_to_life(stage, one, ended[one.id].ending)
        answered(one, ended)
    # nothing is left
    assert repr(stage.clocks) == "<Clocks cells=0 suspects=0>"
    assert (stage.wire.open, board.room.held) == (0, 0)
    assert (board.proxy.in_flight, len(board.waiting)) == (0, 0)
    assert repr(board.joining).startswith("<Joining held=0 sharing=0")
    assert not len(board.concurrency)
    assert len(stage.tasks) == 0, stage.tasks
    assert stage.tasks.deaths == 0
    return Counter(arrival.ending.value for arrival in ended.values())


def true_to_life(stage: Stage, one: One, ending: Ending) -> None:
    """A call ends for something that has happened, and at once."""
    at, drain = stage.gate.left_at[one.id], stage.story.drain
    if one.id in stage.wire.closed_at:
        assert stage.wire.closed_at[one.id] <= at + SLACK_S, "the connection outlives the call"
    assert stage.wire.sent.count(one.id) <= 1, "sent twice"
    calls_off = [moment for moment in one.cancelled if moment >= one.begins]  # at that instant it may be there, or not
    last = min(
        min((moment for moment in calls_off if moment > one.begins), default=math.inf),
        one.begins + (limit if (limit := limit_s(one)) is not None else math.inf),
        math.inf if drain is None else max(drain[0], one.begins) + drain[1],
    )
    assert at <= last + SLACK_S, "it went on"
    match ending:
        case Ending.CANCELLED:
            assert any(abs(moment - at) < SLACK_S for moment in calls_off)
        case Ending.GATEWAY_SHUTDOWN:
            assert drain is not None
            assert abs(sum(drain) - at) < SLACK_S
        case Ending.DEADLINE | Ending.CEILING:
            limit = limit_s(one)
            assert limit is not None
            assert (ending is Ending.DEADLINE) == (one.timeout is not None)
            assert abs(one.begins + limit - at) < SLACK_S
        case Ending.IDLE_TIMEOUT:
            heard = max((sign for sign in stage.story.signs if one.begins <= sign < at), default=one.begins)
            assert at - heard >= IDLE_S - SLACK_S
            assert at - one.begins <= OVER_S / 2 + CONFIRM_S
        case Ending.AGENT_RESET:
            assert one.script.way is Way.RESET
        case Ending.AGENT_UNREACHABLE:
            assert one.script.way is Way.REFUSE
        case Ending.TRUNCATED:
            assert one.script.way is Way.CUT
        case Ending.RESPONSE_TOO_LARGE:
            assert len(one.script.body) > LIMIT_BYTES
        case Ending.COMPLETED | Ending.AGENT_ERROR | Ending.AGENT_BUSY:
            assert one.script.way is Way.ANSWER
        case _:
            raise AssertionError(f"nothing in these stories brings {ending} about")


def limit_s(one: One) -> float | None:
    """How long a call may take in all; people may wait for ever."""
    return CEILING_S if one.timeout is None and one.caller is not None else one.timeout


def answered(one: One, ended: Mapping[str, Any]) -> None:
    """Who waited to the end got the answer of the one ending; who did not has no answer."""
    if one.waits is None or one.waits.cancelled():
        return
    match one.answer:
        case Refusal(code=code):
            assert code is Code.DRAINING, "nothing else is refused in these stories"
        case Answer(call_id=of) as answer:
            arrival = ended[of or one.id]
            if answer.status != arrival.journey.status:  # it has waited for another's only as long as it would
                assert (of is not None, answer.status) == (True, 504)
            elif arrival.ending in UNKNOWN:
                said = orjson.loads(answer.body)
                assert (said["code"], said["outcome"]) == (arrival.ending.value, "unknown")
        case None:
            raise AssertionError("nobody answered")


async def play(seed: int) -> Stage:
    async with Tasks() as tasks:
        stage = Stage(write(seed), tasks)
        await stage.play()
        await asyncio.sleep(0)
    return stage


def run(first: int, count: int) -> Counter[str]:
    """Play so many stories, and say how calls ended in them."""
    seen: Counter[str] = Counter()
    with capture_logs() as logs, asyncio.Runner(loop_factory=VirtualLoop) as runner:
        loop = runner.get_loop()
        assert isinstance(loop, VirtualLoop)
        for seed in range(first, first + count):
            logs.clear()
            try:
                seen += check(loop.run_until_complete(play(seed)))
                loop.rewind()
                assert not [one for one in logs if one["log_level"] in ("error", "critical")]
            except AssertionError as error:
                error.add_note(f"seed {seed}: {write(seed)}")
                raise
    return seen


@pytest.mark.parametrize("first", range(0, SEEDS, PORTION))
def test_every_call_ends_once_and_leaves_nothing_behind(first: int):
    seen = run(first, PORTION)
    assert set(seen) == {
        "completed", "agent_error", "agent_busy", "agent_unreachable", "agent_reset", "truncated",
        "response_too_large", "idle_timeout", "deadline", "ceiling", "cancelled", "gateway_shutdown",
    }, "a story that is never told proves nothing"  # fmt: skip


# -- it is seen to fail


def test_a_call_that_is_stopped_before_its_task_began_would_be_found_out(monkeypatch: pytest.MonkeyPatch):
    def stop(self: Flight, outcome: outcomes.Outcome) -> None:
        if self.arrival is None:
            self.stopped = self.stopped or outcome
            self.task.cancel()

    monkeypatch.setattr(Flight, "stop", stop)
    with pytest.raises(AssertionError, match=r"settled|nobody answered"):
        run(0, PORTION)


def test_a_call_that_ends_twice_would_be_found_out(monkeypatch: pytest.MonkeyPatch):
    once = Arrivals.tell

    def tell(self: Arrivals, call: Any, ended: answers.Ended, **how: bool) -> None:
        once(self, call, ended, **how)
        if ended.ending is Ending.CANCELLED:
            call.flight.arrival = None
            once(self, call, ended, **how)

    monkeypatch.setattr(Arrivals, "tell", tell)
    with pytest.raises(AssertionError, match="settled twice"):
        run(0, PORTION)
