"""How many calls are in hand at once."""

import asyncio

from gateway.core.refusals import Code, Refusal
from tests.harness.world import eventually
from tests.services.switchboard import (
    BODY,
    Switchboard,
    message,
)


async def test_past_the_capacity_callers_are_asked_to_come_back_and_are_taken_when_there_is_room(bus, channel, tasks):
    board = Switchboard(bus, channel, tasks, capacity=2)
    board.dispatcher.gate.clear()
    callers = [tasks.spawn(board.call(body=message(number)), "caller") for number in range(2)]
    await eventually(lambda: board.proxy.in_flight == 2)
    refused = await board.refusal(body=message(2))
    assert (refused.code, refused.retry_after_s) == (Code.OVERLOADED, 2)
    board.dispatcher.gate.set()
    await asyncio.gather(*callers)
    await board.ended()
    assert (await board.call()).status == 200


async def test_the_capacity_holds_for_those_that_are_admitted_at_the_same_moment(bus, channel, tasks):
    board = Switchboard(bus, channel, tasks, capacity=2)
    board.dispatcher.gate.clear()
    outcomes: list[object] = []

    async def caller(number: int) -> None:
        try:
            outcomes.append((await board.call(body=message(number))).status)
        except Refusal as refused:
            outcomes.append(refused.code)

    callers = [tasks.spawn(caller(number), "caller") for number in range(5)]
    await eventually(lambda: len(outcomes) == 3 and len(board.dispatcher.sent) == 2)
    assert len(board.dispatcher.sent) == board.proxy.in_flight == 2
    board.dispatcher.gate.set()
    await asyncio.gather(*callers)
    assert sorted(map(str, outcomes)) == ["200", "200", "overloaded", "overloaded", "overloaded"]
    assert {left.call_id for left in board.gate.left} == {entry.call_id for entry in board.gate.entries}


async def test_one_payer_may_have_so_many_calls_in_flight_and_leaves_room_for_others(bus, channel, tasks):
    board = Switchboard(bus, channel, tasks, share=2)
    board.dispatcher.gate.clear()
    bodies = [BODY.replace(b"m-1", b"m-%d" % number) for number in range(4)]
    callers = [tasks.spawn(board.call(body=body), "caller") for body in bodies[:2]]
    await eventually(lambda: board.proxy.in_flight == 2)
    assert (await board.refusal(body=bodies[2])).code is Code.OVERLOADED
    other = tasks.spawn(board.call(payer="another", body=bodies[3]), "caller")
    await eventually(lambda: board.proxy.in_flight == 3)
    board.dispatcher.gate.set()
    await asyncio.gather(*callers, other)
    await board.ended()
    assert (await board.call()).status == 200
