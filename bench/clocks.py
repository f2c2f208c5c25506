"""The clocks: a process that holds calls in flight, gives signs of life, and tells what watching them costs."""

import asyncio
import time
from collections.abc import Collection, Coroutine, Mapping
from typing import Any, Final

import uvloop

from bench.processes import serve_orders
from bench.readers import summary
from gateway.core.outcomes import Clock
from gateway.net.clocks import ClockExpired, Clocks

TURN_S: Final = 0.01
"""Signs of life come in groups this far apart."""


class Truth:
    """When each workspace was really heard last, as the database would say."""

    def __init__(self) -> None:
        self.heard: dict[str, float] = {}
        self.asked = 0

    async def silence(self, workspace_ids: Collection[str]) -> Mapping[str, float]:
        """Return the seconds of silence of each (ports.Silence)."""
        self.asked += 1
        now = asyncio.get_running_loop().time()
        return {one: now - self.heard[one] for one in workspace_ids if one in self.heard}


class Calls:
    """Calls in flight, by the clocks of a gateway; `ended` is when each ended for silence."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()
        self.truth = Truth()
        self.clocks = Clocks(silence=self.truth, spawn=self.spawn, bus_lost_s=900.0)
        self.ended: dict[str, list[float]] = {}

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Start a task that lasts no longer than the run."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def call(self, workspace_id: str, idle_s: float) -> None:
        """One call, for ever, to an agent that does not answer."""
        try:
            async with self.clocks.watch(workspace_id, idle_s=idle_s, limit_s=1800.0, limit=Clock.CEILING):
                await asyncio.get_running_loop().create_future()
        except ClockExpired:
            self.ended.setdefault(workspace_id, []).append(asyncio.get_running_loop().time())

    async def end(self) -> None:
        """Cancel what is left."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


async def measure(*, calls: int, workspaces: int, signs_per_s: int, idle_s: float, seconds: float) -> dict[str, float]:
    """Give signs for these seconds with nobody watching, then with all calls in flight, then fall silent by tenths.

    Returns the CPU of the clocks as a share of a core, how many calls ended though their workspace was alive, and how
    much later than due those ended whose workspaces had fallen silent.
    """
    ids = [f"workspace-{number}" for number in range(workspaces)]
    nobody = Calls()
    idle_cpu_s = await _give_signs(nobody, ids, signs_per_s, seconds)
    some = Calls()
    for number in range(calls):
        some.spawn(some.call(ids[number % workspaces], idle_s), "call")
    await _give_signs(some, ids, signs_per_s, 1.0)
    cpu_s = await _give_signs(some, ids, signs_per_s, seconds)
    false_endings = sum(map(len, some.ended.values()))
    silent, alive = ids[: workspaces // 10], ids[workspaces // 10 :]
    await _give_signs(some, alive, signs_per_s, idle_s + 2.0)
    false_endings += sum(len(some.ended.get(one, ())) for one in alive)
    late_ms = [(at - some.truth.heard[one] - idle_s) * 1000 for one in silent for at in some.ended.get(one, ())]
    missing = calls // 10 - len(late_ms)
    await some.end()
    return {
        "cpu_percent": (cpu_s - idle_cpu_s) / seconds * 100,
        "false_endings": false_endings,
        "missing_endings": missing,
        "late": summary(late_ms or [0.0])["p99"],
        "early": -min([*late_ms, 0.0]),
        "questions": some.truth.asked,
    }


async def _give_signs(calls: Calls, ids: list[str], per_s: int, seconds: float) -> float:
    """Let the workspaces show life in turn, so many signs a second; return the CPU seconds that this process used."""
    loop, heard, stamp = asyncio.get_running_loop(), calls.truth.heard, calls.clocks.stamp
    began, cpu_s, given = loop.time(), time.process_time(), 0
    while (passed := loop.time() - began) < seconds:
        due = int(passed * per_s)
        for number in range(given, due):
            one = ids[number % len(ids)]
            heard[one] = loop.time()
            stamp(one)
        given = due
        await asyncio.sleep(TURN_S)
    return time.process_time() - cpu_s


async def main() -> None:
    async def obey(do: str, **words: Any) -> dict[str, float]:
        assert do == "measure"
        return await measure(**words)

    await serve_orders(obey)


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())
