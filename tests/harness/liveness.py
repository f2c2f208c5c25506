"""A record of life that says what the test wants it to: what PostgreSQL could say, or not say."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from gateway.ports import Wait

Answer = Callable[[Sequence[str]], Mapping[str, float]]


def nobody_was_heard(_: Sequence[str]) -> Mapping[str, float]:
    return {}


class ScriptedLiveness:
    """`ports.Liveness` whose answers are the test's. `answer` may raise; `takes_s` is how long it takes."""

    def __init__(self, answer: Answer = nobody_was_heard, *, takes_s: float = 0.0) -> None:
        self.answer = answer
        self.takes_s = takes_s
        self.asked: list[list[str]] = []

    async def silence(self, workspace_ids: Sequence[str]) -> Mapping[str, float]:
        self.asked.append(list(workspace_ids))
        await asyncio.sleep(self.takes_s)
        return self.answer(workspace_ids)

    async def wait(self, waits: Sequence[Wait]) -> None:
        raise AssertionError("clocks never write")

    async def record(self, beats: Sequence[Mapping[str, Any]]) -> None:
        raise AssertionError("clocks never write")

    async def touch(self, workspace_id: str) -> None:
        raise AssertionError("clocks never write")
