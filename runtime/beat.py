"""The agent's heart: registered, it beats; lost, it registers again; refused, it stops and says why."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import assert_never

from runtime.backoff import pauses
from runtime.client import Away, Beaten, GatewayClient, Later, Problem, Refused, Registered, Removed
from runtime.identity import Identity, keep_identity
from runtime.jsonrpc import JsonObject
from runtime.turns import Vitals

FIRST_PAUSE_S = 0.5
MOST_PAUSE_S = 10.0
LEAST_GAP_S = 0.1
UNAUTHORIZED = 401
WEDGED = "wedged"

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Presence:
    """What the agent tells the gateway about itself when it registers; no url: it fetches its messages."""

    url: str | None
    card: JsonObject


class Heart:
    """Keeps one workspace registered and beating, every `heartbeat_s` seconds and at once when `changed` is set.

    Beats come up to a tenth early at random, so that agents started together spread out. `vitals` is asked before
    each beat, and `wedged`, whether the agent's own loop is stuck: then the beat says so, and is no sign of life.
    `on_ready` is called once, after the first registration.
    """

    def __init__(
        self,
        *,
        identity: Identity,
        state_dir: Path,
        presence: Presence,
        vitals: Callable[[], Vitals],
        wedged: Callable[[], bool] = lambda: False,
        heartbeat_s: float,
        changed: asyncio.Event,
        on_ready: Callable[[], None],
        jitter: Callable[[], float] = random.random,
    ) -> None:
        self._identity = identity
        self._state_dir = state_dir
        self._presence = presence
        self._vitals = vitals
        self._wedged = wedged
        self._heartbeat_s = heartbeat_s
        self._changed = changed
        self._on_ready: Callable[[], None] | None = on_ready
        self._jitter = jitter
        self._started_s = time.monotonic()
        self._trouble = ""

    def __repr__(self) -> str:
        return f"<Heart {self._identity.workspace_id} every={self._heartbeat_s}s trouble={self._trouble!r}>"

    @property
    def token(self) -> str | None:
        """The token that the gateway knows us by, None before there is one."""
        return self._identity.token

    async def run(self, gateway: GatewayClient) -> str:
        """Beat until cancelled, or until the gateway refuses the agent for good; return the sentence that says so."""
        registered = False
        waits = self._new_pauses()
        while True:
            outcome = await (self._beat(gateway) if registered else self._register(gateway))
            match outcome:
                case Registered():
                    registered = True
                    self._announce()
                case Beaten():
                    waits = self._new_pauses()
                    self._calm()
                    await self._rest()
                case Removed():
                    return f"the gateway removed workspace {self._identity.workspace_id}: {outcome.sentence}"
                case Refused() if not registered:
                    return f"the gateway refused to register this agent ({outcome.status}): {outcome.sentence}"
                case Refused() | Away():
                    registered = False
                    self._complain(outcome)
                    await asyncio.sleep(next(waits))
                case Later():
                    self._complain(outcome)
                    await asyncio.sleep(max(next(waits), outcome.retry_after_s))
                case never:
                    assert_never(never)

    async def _register(self, gateway: GatewayClient) -> Registered | Problem:
        """Register with our token; where the gateway does not know it, as one who has none, and keep what we get."""
        token = self._identity.token
        outcome = await self._register_with(gateway, token)
        if isinstance(outcome, Refused) and outcome.status == UNAUTHORIZED and token is not None:
            token = None
            second = await self._register_with(gateway, None)
            outcome = second if isinstance(second, Registered) else outcome
        if isinstance(outcome, Registered):
            await self._keep(token=outcome.token or token, inbound_secret=outcome.inbound_secret)
        return outcome

    async def _register_with(self, gateway: GatewayClient, token: str | None) -> Registered | Problem:
        return await gateway.register(
            workspace_id=self._identity.workspace_id, url=self._presence.url, card=self._presence.card, token=token
        )

    async def _keep(self, *, token: str | None, inbound_secret: str | None) -> None:
        self._identity = Identity(
            workspace_id=self._identity.workspace_id,
            token=token,
            inbound_secret=inbound_secret or self._identity.inbound_secret,
        )
        await asyncio.to_thread(keep_identity, self._state_dir, self._identity)

    async def _beat(self, gateway: GatewayClient) -> Beaten | Problem:
        self._changed.clear()
        vitals = self._vitals()
        beat: JsonObject = {
            "workspace_id": self._identity.workspace_id,
            "active_tasks": vitals.active_tasks,
            "current_task": vitals.current_task,
            "uptime_seconds": int(time.monotonic() - self._started_s),
        }
        if self._wedged():
            beat["runtime_state"] = WEDGED
        return await gateway.heartbeat(beat, token=self._identity.token)

    async def _rest(self) -> None:
        """Wait for the next beat's time or a change; many changes make few beats."""
        period_s = self._heartbeat_s * (1 - self._jitter() / 10)
        gap_s = min(LEAST_GAP_S, period_s)
        await asyncio.sleep(gap_s)
        try:
            async with asyncio.timeout(period_s - gap_s):
                await self._changed.wait()
        except TimeoutError:
            return

    def _announce(self) -> None:
        log.info("registered workspace=%s url=%s", self._identity.workspace_id, self._presence.url)
        if self._on_ready is not None:
            self._on_ready()
        self._on_ready = None

    def _new_pauses(self) -> Iterator[float]:
        first_s = min(FIRST_PAUSE_S, self._heartbeat_s)
        return pauses(first_s=first_s, most_s=max(first_s, min(MOST_PAUSE_S, self._heartbeat_s)), jitter=self._jitter)

    def _complain(self, problem: Refused | Later | Away) -> None:
        """Say what is wrong once, however long it lasts."""
        if problem.sentence != self._trouble:
            log.warning("gateway_trouble kind=%s sentence=%r", type(problem).__name__.lower(), problem.sentence)
        self._trouble = problem.sentence

    def _calm(self) -> None:
        if self._trouble:
            log.info("gateway_is_back")
        self._trouble = ""
