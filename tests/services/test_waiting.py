"""services.waiting: who waits for a call that it made itself."""

from collections.abc import Sequence

from gateway.ports import StoreUnavailable, Wait
from gateway.services.loops import Loops
from gateway.services.outage import Outage
from gateway.services.waiting import Waiting
from tests.harness.liveness import ScriptedLiveness
from tests.harness.world import eventually
from tests.services.memory import Clock


class Written(ScriptedLiveness):
    """Takes what is written of those that wait; fails as often as it is told to."""

    def __init__(self, fails: int = 0) -> None:
        super().__init__()
        self.waits: list[list[Wait]] = []
        self.fails = fails

    async def wait(self, waits: Sequence[Wait]) -> None:
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("away")
        self.waits.append(sorted(waits, key=lambda wait: wait.caller_id))


async def test_a_workspace_waits_until_the_last_of_its_calls_has_ended() -> None:
    liveness, clock = Written(), Clock()
    waiting = Waiting(liveness, now=clock)
    with waiting.call(None, "t"):
        await waiting.tick()
    assert liveness.waits == []
    with waiting.call("a", "t"):
        clock.at += 5
        with waiting.call("a", "t"), waiting.call("b", "a"):
            clock.at += 1
            await waiting.tick()
        clock.at += 1
        await waiting.tick()
    assert not len(waiting)
    assert liveness.waits == [
        [Wait(caller_id="a", target_id="t", age_s=1), Wait(caller_id="b", target_id="a", age_s=1)],
        [Wait(caller_id="a", target_id="t", age_s=2)],
    ]


async def test_those_that_wait_are_written_again_and_again_whatever_fails() -> None:
    liveness = Written(fails=1)
    waiting = Waiting(liveness)
    async with Loops() as loops:
        loops.every(0.01, waiting.tick, "waiting", "Writes who waits.", outage=Outage("writing who waits"))
        with waiting.call("a", "t"):
            await eventually(lambda: len(liveness.waits) >= 2)
    assert {wait.caller_id for waits in liveness.waits for wait in waits} == {"a"}
    assert loops.deaths == 0
