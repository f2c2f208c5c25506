from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from gateway.core.callers import Admin, Holder, Principal
from gateway.core.calls import Call, Kind, State
from gateway.core.endings import Ending
from gateway.core.journey import Arrival, Journey, Sign
from gateway.core.refusals import Code, Refusal
from gateway.ports import LiveUnavailable, StoreUnavailable, Travelling
from gateway.services.activity import ActivityLog
from gateway.services.calls import Calls
from gateway.services.cancelling import Cancelling
from gateway.services.flights import Flights
from gateway.services.pushed import Pushed
from gateway.services.wakes import Wakes
from tests.services.memory import Away, Batches, Changes, Gate, Queue

TARGET, CALLER, OTHER = (f"00000000-0000-4000-8000-00000000000{name}" for name in "abc")
OPERATOR = Admin()
JOURNEY = Journey(replica="other", idle_s=300.0, limit_s=None, by_deadline=False, sent_bytes=12)


class Heard(Away):
    """The seconds for which the target has been silent, as the database knows it; None: it was never heard."""

    silent_s: float | None = None

    async def silence(self, workspace_ids: list[str]) -> dict[str, float]:
        await self.turn()
        assert workspace_ids == [TARGET]
        return {} if self.silent_s is None else {TARGET: self.silent_s}


class Ledger(Away):
    """The rows that there are."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[str, Call] = {}

    async def find(self, workspace_id: str, call_id: str) -> Call | None:
        await self.turn()
        return self.rows.get(call_id)

    async def end(self, workspace_id: str, call_id: str, sources: object, **_: object) -> Call | None:
        await self.turn()
        self.rows[call_id] = replace(
            self.rows[call_id], state=State.CANCELLED, ending=Ending.CANCELLED, ended_at=datetime.now(UTC)
        )
        return self.rows[call_id]


class Scene:
    """One replica, and a call of another."""

    def __init__(self, bus) -> None:
        self.gate, self.heard, self.ledger, self.changes = Gate(), Heard(), Ledger(), Changes()
        flights = Flights("me")
        self.pushed = Pushed(gate=self.gate, flights=flights, liveness=self.heard)
        self.callers = Wakes(capacity=1)
        self.calls = Calls(
            calls=self.ledger,
            queue=Queue(),
            pushed=self.pushed,
            cancelling=Cancelling(
                flights=flights,
                pushed=self.pushed,
                calls=self.ledger,
                changes=self.changes,
                bus=bus,
                callers=self.callers,
            ),
            activity=ActivityLog(Batches(), bus, capacity=10, every_s=1),
            bus=bus,
        )
        self.travel()

    def travel(self, arrival: Arrival | None = None) -> None:
        self.gate.travelling["c"] = Travelling(
            call_id="c", target_id=TARGET, caller_id=CALLER, method="message/send", age_s=10.0, journey=JOURNEY,
            arrival=arrival,
        )  # fmt: skip

    async def refusal(self, principal: Principal = OPERATOR, ask: str = "get", workspace_id: str = TARGET) -> Code:
        with pytest.raises(Refusal) as refused:
            await getattr(self.calls, ask)(principal, workspace_id, "c")
        return refused.value.code


@pytest.fixture
def scene(bus) -> Scene:
    return Scene(bus)


@pytest.mark.parametrize(
    ("silent_s", "away", "reset"),
    [
        (4.0, False, (Sign.WORKSPACE, 6000)),
        (11.0, False, (None, None)),
        (None, False, (None, None)),
        (4.0, True, (None, None)),
    ],
    ids=["a sign since it was sent", "none since", "none ever", "nobody can say"],
)
async def test_of_anothers_call_the_last_sign_of_life_is_known_as_the_database_knows_it(scene, silent_s, away, reset):
    scene.heard.silent_s, scene.heard.away = silent_s, away
    call = await scene.pushed.find(TARGET, "c")
    assert (call.state, call.caller_id) == (State.DISPATCHED, CALLER)
    assert abs(datetime.now(UTC) - call.created_at - timedelta(seconds=10)) < timedelta(seconds=5)
    assert (call.journey.reset_by, call.journey.reset_ms) == reset


async def test_a_call_is_one_to_its_target_and_to_nobody_else(scene):
    assert await scene.pushed.find(OTHER, "c") is None
    assert await scene.pushed.find(TARGET, "d") is None
    assert await scene.refusal(workspace_id=OTHER) is Code.NOT_FOUND
    assert await scene.refusal(Holder(workspace_id=OTHER)) is Code.NOT_FOUND
    assert (await scene.calls.get(Holder(workspace_id=CALLER), TARGET, "c")).id == "c"


async def test_while_the_database_is_away_a_call_under_way_is_told_of_and_any_other_may_be_there(scene):
    scene.ledger.away = True
    assert (await scene.calls.get(Admin(), TARGET, "c")).state is State.DISPATCHED
    scene.gate.travelling.clear()
    assert await scene.refusal() is Code.PLATFORM_UNAVAILABLE
    scene.ledger.away = False
    assert await scene.refusal() is Code.NOT_FOUND


async def test_while_redis_is_away_there_are_rows_and_any_other_call_may_be_there(scene):
    scene.travel(Arrival(ending=Ending.COMPLETED, duration_ms=5, journey=JOURNEY))
    row = await scene.pushed.find(TARGET, "c")
    scene.gate.away = True
    with pytest.raises(LiveUnavailable):
        await scene.pushed.find(TARGET, "c")
    for ask in ("get", "cancel"):
        assert await scene.refusal(ask=ask) is Code.PLATFORM_UNAVAILABLE
    scene.ledger.rows["c"] = row
    assert await scene.calls.get(Admin(), TARGET, "c") == row
    assert await scene.refusal(ask="cancel") is Code.CALL_ENDED


async def test_a_call_of_another_is_called_off_by_the_list_and_shown_as_it_has_ended_then(scene):
    with scene.callers.waiting("another call"):  # as many wait as may: it looks by itself
        note = scene.changes.call_off

        async def listen(call_id: str) -> None:
            await note(call_id)
            scene.travel(Arrival(ending=Ending.CANCELLED, duration_ms=5, journey=JOURNEY))

        scene.changes.call_off = listen
        call = await scene.calls.cancel(Admin(), TARGET, "c")
    assert (call.state, scene.changes.called_off) == (State.CANCELLED, ["c"])
    assert (await scene.calls.cancel(Admin(), TARGET, "c")).state is State.CANCELLED
    assert scene.changes.called_off == ["c"], "twice is once"


async def test_a_call_that_ends_otherwise_meanwhile_is_not_called_off(scene):
    async def listen(call_id: str) -> None:
        scene.travel(Arrival(ending=Ending.COMPLETED, duration_ms=5, journey=JOURNEY))

    scene.changes.call_off = listen
    assert await scene.refusal(ask="cancel") is Code.CALL_ENDED


async def test_a_call_that_comes_to_wait_meanwhile_is_called_off_where_it_waits(scene):
    call = replace(await scene.pushed.find(TARGET, "c"), kind=Kind.PARKED, state=State.PARKED, journey=None)

    async def listen(call_id: str) -> None:
        scene.gate.travelling.clear()
        scene.ledger.rows["c"] = call

    scene.changes.call_off = listen
    assert (await scene.calls.cancel(Admin(), TARGET, "c")).state is State.CANCELLED
    assert scene.ledger.rows["c"].ending is Ending.CANCELLED


async def test_a_call_off_that_nobody_can_be_told_of_is_refused(scene):
    async def away(call_id: str) -> None:
        raise StoreUnavailable("away")

    scene.changes.call_off = away
    assert await scene.refusal(ask="cancel") is Code.PLATFORM_UNAVAILABLE
