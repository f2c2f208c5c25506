import asyncio

import pytest

from gateway.ports import StoreError, StoreTimeout
from gateway.services import readiness
from gateway.services.readiness import Readiness, Report
from tests.services.memory import Changes


@pytest.mark.parametrize(
    ("away", "bus", "draining", "report"),
    [
        (False, "up", False, Report(ready=True, database="up", bus="up", draining=False)),
        (False, "blind", False, Report(ready=True, database="up", bus="blind", draining=False)),
        (True, "up", False, Report(ready=False, database="down", bus="up", draining=False)),
        (False, "up", True, Report(ready=False, database="up", bus="up", draining=True)),
        (True, "blind", True, Report(ready=False, database="down", bus="blind", draining=True)),
    ],
)
async def test_ready_is_who_has_a_database_and_is_not_going_away(away, bus, draining, report):
    changes = Changes()
    changes.away = away
    asked = Readiness(changes, lambda: bus)
    asked.draining = draining
    assert await asked.report() == report


@pytest.mark.parametrize("error", [StoreTimeout("slow"), StoreError("odd")])
async def test_whatever_the_database_says_instead_of_an_answer_it_is_down(error):
    class Odd(Changes):
        async def horizon(self) -> str:
            raise error

    assert (await Readiness(Odd(), lambda: "up").report()).database == "down"


async def test_a_database_that_does_not_answer_in_time_is_down(monkeypatch):
    monkeypatch.setattr(readiness, "ASK_S", 0.01)

    class Silent(Changes):
        async def horizon(self) -> str:
            await asyncio.Event().wait()
            raise AssertionError

    assert (await Readiness(Silent(), lambda: "up").report()).database == "down"


async def test_a_database_that_comes_back_is_seen_at_the_next_question():
    changes = Changes()
    asked = Readiness(changes, lambda: "up")
    changes.away = True
    assert not (await asked.report()).ready
    changes.away = False
    assert (await asked.report()).ready
