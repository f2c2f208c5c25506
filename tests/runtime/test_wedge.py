"""runtime.wedge: a loop that does not turn is stuck, and freed when it does."""

import asyncio

from runtime.wedge import Wedge


class Clock:
    def __init__(self):
        self.at = 100.0

    def __call__(self):
        return self.at


def test_what_does_not_turn_for_too_long_is_stuck_until_it_turns():
    clock, freed = Clock(), []
    wedge = Wedge(after_s=5, on_free=lambda: freed.append(clock.at), now=clock)
    clock.at += 5
    assert not wedge.stuck
    wedge.turn()
    assert freed == []
    clock.at += 6
    assert wedge.stuck
    assert repr(wedge) == "<Wedge stuck=True>"
    wedge.turn()
    assert (wedge.stuck, freed) == (False, [111.0])


async def test_a_loop_that_turns_is_not_stuck(tasks, wait_until):
    turned = []
    wedge = Wedge(after_s=0.2, on_free=lambda: None)
    turn = wedge.turn
    wedge.turn = lambda: (turned.append(asyncio.get_running_loop().time()), turn())
    tasks.spawn(wedge.run(), name="wedge")
    await wait_until(lambda: len(turned) >= 5)
    assert turned[-1] - turned[0] >= 4 * 0.05 * 0.9
