"""Gateways that come and go: those that are alive, by a name that no other has."""

from collections.abc import Mapping
from contextlib import AsyncExitStack
from random import Random

from tests.harness import process
from tests.harness.process import GatewayProcess
from tests.harness.world import World


class Fleet:
    """Gateways by name, of which those in `alive` answer."""

    def __init__(self, world: World, env: Mapping[str, str]) -> None:
        self._world = world
        self._env = {**world.env, **env}
        self._ends: dict[str, AsyncExitStack] = {}
        self._started = 0
        self.alive: dict[str, GatewayProcess] = {}

    async def start(self) -> None:
        """Start one more."""
        self._started += 1
        name = f"g{self._started}"
        self._ends[name] = AsyncExitStack()
        self.alive[name] = await self._ends[name].enter_async_context(process.serving(env=self._env))
        self._world.gateways = list(self.alive.values())

    async def kill(self, name: str) -> None:
        """Kill one."""
        del self.alive[name]
        self._world.gateways = list(self.alive.values())
        await self._ends.pop(name).aclose()

    async def close(self) -> None:
        """Kill all."""
        for name in list(self.alive):
            await self.kill(name)

    def choose(self, random: Random) -> str:
        """Return the name of any that is alive."""
        return random.choice(list(self.alive))
