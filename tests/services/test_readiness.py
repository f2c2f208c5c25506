import asyncio

import pytest

from gateway.ports import StoreError, StoreTimeout
from gateway.services import loops, readiness
from gateway.services.loops import Loops, State
from gateway.services.readiness import Readiness, Report
from tests.harness.world import eventually
from tests.services.memory import Changes


@pytest.mark.parametrize(
    ("away", "bus", "draining", "report"),
    [
        (False, "up", False, Report(ready=True, database="up", bus="up", loops="idle", draining=False)),
        (False, "blind", False, Report(ready=True, database="up", bus="blind", loops="idle", draining=False)),
        (True, "up", False, Report(ready=False, database="down", bus="up", loops="idle", draining=False)),
        (False, "up", True, Report(ready=False, database="up", bus="up", loops="idle", draining=True)),
        (True, "blind", True, Report(ready=False, database="down", bus="blind", loops="idle", draining=True)),
    ],
)
async def test_ready_is_who_has_a_database_and_is_not_going_away(away, bus, draining, report):
    changes = Changes()
    changes.away = away
    asked = Readiness(changes, lambda: bus, Loops())
    asked.draining = draining
    assert await asked.report() == report


@pytest.mark.parametrize("error", [StoreTimeout("slow"), StoreError("odd")])
async def test_whatever_the_database_says_instead_of_an_answer_it_is_down(error):
    class Odd(Changes):
        async def horizon(self) -> str:
            raise error

    assert (await Readiness(Odd(), lambda: "up", Loops()).report()).database == "down"


async def test_a_database_that_does_not_answer_in_time_is_down(monkeypatch):
    monkeypatch.setattr(readiness, "ASK_S", 0.01)

    class Silent(Changes):
        async def horizon(self) -> str:
            await asyncio.Event().wait()
            raise AssertionError

    assert (await Readiness(Silent(), lambda: "up", Loops()).report()).database == "down"


async def test_a_database_that_comes_back_is_seen_at_the_next_question():
    changes = Changes()
    asked = Readiness(changes, lambda: "up", Loops())
    changes.away = True
    assert not (await asked.report()).ready
    changes.away = False
    assert (await asked.report()).ready


@pytest.mark.parametrize("shared", [True, False])
async def test_a_loop_that_was_given_up_is_shown_and_counts_if_nobody_else_does_its_work(monkeypatch, shared):
    monkeypatch.setattr(loops, "RESTARTS", 0)

    async def die(stamp: object) -> None:
        raise ZeroDivisionError

    async with Loops() as own:
        own.loop(die, "mortal", "Dies.", shared=shared)
        await eventually(lambda: own.count(State.GAVE_UP))
        report = await Readiness(Changes(), lambda: "up", own).report()
    assert (report.loops, report.ready) == ("gave_up", shared)
