"""services.waiting: who waits for a call that it made itself."""

from collections.abc import Sequence

from gateway.ports import StoreUnavailable
from gateway.services.tasks import Tasks
from gateway.services.waiting import Waiting
from tests.harness.liveness import ScriptedLiveness
from tests.harness.world import eventually


class Kept(ScriptedLiveness):
    """Takes the signs of life of those that wait; fails as often as it is told to."""

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[list[str]] = []
        self.fails = 1

    async def keep(self, workspace_ids: Sequence[str]) -> None:
        if self.fails:
            self.fails -= 1
            raise StoreUnavailable("away")
        self.kept.append(sorted(workspace_ids))


def test_a_workspace_waits_until_the_last_of_its_calls_has_ended() -> None:
    waiting = Waiting(Kept(), every_s=1)
    with waiting.call(None):
        assert not len(waiting)
    with waiting.call("a"):
        with waiting.call("a"), waiting.call("b"):
            assert "a" in waiting
            assert "b" in waiting
        assert "a" in waiting
        assert "b" not in waiting
    assert not len(waiting)


async def test_those_that_wait_are_written_again_and_again_whatever_fails() -> None:
    liveness = Kept()
    waiting = Waiting(liveness, every_s=0.01)
    async with Tasks() as tasks:
        tasks.loop(waiting.run, "waiting")
        with waiting.call("a"):
            await eventually(lambda: len(liveness.kept) >= 2)
    assert liveness.kept[:2] == [["a"], ["a"]]
    assert tasks.deaths == 0
