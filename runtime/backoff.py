"""How long to wait before trying again: longer each time, never the same, never without end."""

import random
from collections.abc import Callable, Iterator


def pauses(*, first_s: float, most_s: float, jitter: Callable[[], float] = random.random) -> Iterator[float]:
    """Yield waiting times in seconds without end: each step doubles up to `most_s`, and half of a step is chance.

    `jitter` returns a number in [0, 1). Agents that lost one gateway together must not return together.
    """
    step_s = min(first_s, most_s)
    while True:
        yield step_s * (0.5 + jitter() / 2)
        step_s = min(step_s * 2, most_s)
