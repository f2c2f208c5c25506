import asyncio

import pytest

from gateway.core import answers, outcomes
from gateway.core.calls import Kind, State
from gateway.core.endings import Ending
from gateway.core.journey import Sign
from gateway.ports import Outbound
from gateway.services.flights import Flight, Flights
from gateway.services.room import Room

TARGET = "00000000-0000-4000-8000-00000000000a"
DONE = answers.classify(outcomes.Answered(status=200, headers={}, body=b"{}"))


class Clockwork:
    """A bit of life at two seconds."""

    def last_reset(self) -> tuple[Sign, float]:
        return Sign.WORKSPACE, 2.0


def flight() -> Flight:
    outbound = Outbound(
        call_id="c", workspace_id=TARGET, url="http://127.0.0.1/", body=b"12345", headers={}, idle_s=3.0, limit_s=60.0,
        by_deadline=False, hold=Room(100).hold(),
    )  # fmt: skip
    return Flight(outbound=outbound, caller_id=None, method="message/send", replica="r")


def fly(tasks, one: Flight, seen: list[str], *, lasts: asyncio.Event) -> None:
    """Make a call that lasts until it is let go, or is stopped."""

    async def run() -> None:
        if one.stopped is None:
            try:
                one.under_way = True
                await lasts.wait()
            except asyncio.CancelledError:
                seen.append("cancelled")
        one.under_way = False
        one.arrive(DONE if one.stopped is None else answers.classify(one.stopped))

    one.task = tasks.spawn(run(), "call:c")


async def test_a_call_is_stopped_before_it_begins_while_it_lasts_and_not_after_its_end(tasks):
    for turns, cancels in ((0, []), (1, ["cancelled"])):
        one, seen = flight(), []
        fly(tasks, one, seen, lasts=asyncio.Event())
        for _ in range(turns):
            await asyncio.sleep(0)
        one.stop(outcomes.Cancelled(under_way=True))
        one.stop(outcomes.Stopped())
        await one.task
        assert one.arrival is not None
        assert (one.arrival.ending, seen) == (Ending.CANCELLED, cancels), "the first word counts"
    one, lasts = flight(), asyncio.Event()
    fly(tasks, one, [], lasts=lasts)
    lasts.set()
    await one.task
    one.stop(outcomes.Stopped())
    assert (one.stopped, one.call().state) == (None, State.COMPLETED)


async def test_what_is_known_of_a_call_grows_on_its_way(tasks):
    one = flight()
    before = one.call()
    assert (before.kind, before.state, before.attempts) == (Kind.PUSH, State.DISPATCHED, 0)
    assert (before.journey.sent_bytes, before.journey.received_bytes, before.journey.reset_by) == (5, 0, None)
    meter = one._outbound.meter
    meter.attempts, meter.received_bytes, meter.first_byte_s, meter.clockwork = 2, 9, 1.5, Clockwork()
    during = one.call().journey
    assert (during.attempts, during.received_bytes, during.first_byte_ms) == (2, 9, 1500)
    assert (during.reset_by, during.reset_ms, during.status) == (Sign.WORKSPACE, 2000, None)
    one.arrive(DONE)
    meter.received_bytes = 10
    after = one.call()
    assert (after.state, after.journey.status, after.journey.received_bytes) == (State.COMPLETED, 200, 9)
    with pytest.raises(AssertionError, match="ends once"):
        one.arrive(DONE)


async def test_a_drain_waits_and_then_stops_what_is_left(tasks):
    flights, quick, slow = Flights("r"), flight(), flight()
    lasts = asyncio.Event()
    for name, one, until in (("quick", quick, lasts), ("slow", slow, asyncio.Event())):
        fly(tasks, one, [], lasts=until)
        flights.add(name, one)
    asyncio.get_running_loop().call_later(0.01, lasts.set)
    await flights.drain(0.1, 5)
    assert (quick.arrival.ending, slow.arrival.ending) == (Ending.COMPLETED, Ending.GATEWAY_SHUTDOWN)


def test_who_does_not_have_a_call_does_not_call_it_off():
    flights = Flights("r")
    flights.call_off("c")
    assert (len(flights), flights.find("c")) == (0, None)
