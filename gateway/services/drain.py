"""The drain: calls that wait are sent when they may be, each by one process, and each to one end."""

import asyncio
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

import structlog

from gateway import ports
from gateway.core.refusals import Refusal
from gateway.services.attempts import Attempt, Attempts
from gateway.services.directory import Directory
from gateway.services.outage import Outage
from gateway.services.room import Room
from gateway.services.settling import Settling

log = structlog.get_logger("gateway.drain")

Spawn = Callable[[Coroutine[Any, Any, None], str], "asyncio.Task[None]"]
BATCH: Final = 32
"""Calls that are claimed at once."""
RENEWALS: Final = 3
"""How often a lease is renewed before it would run out."""
CLOSE_S: Final = 5.0
"""How long what is called off may take to be written down."""


class Drain:
    """Sends what waits: for a busy agent, or, as delegations do, for the first time.

    `capacity` bounds what this process has out; each of these is leased for `lease_s` seconds.
    """

    def __init__(
        self,
        *,
        queue: ports.Claims,
        directory: Directory,
        attempts: Attempts,
        settling: Settling,
        room: Room,
        capacity: int,
        lease_s: float,
        spawn: Spawn,
    ) -> None:
        self._queue = queue
        self._directory = directory
        self._attempts = attempts
        self._settling = settling
        self._room = room
        self._capacity = capacity
        self._lease_s = lease_s
        self._spawn = spawn
        self._outage = settling.outage
        self._waiting: frozenset[str] = frozenset()
        self._turning: dict[str, bool | None] = {}
        self._out: dict[str, Attempt] = {}
        self._answered: set[str] = set()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Drain waiting={len(self._waiting)} out={len(self._out)}>"

    @property
    def out(self) -> int:
        """Calls that this process has out."""
        return len(self._out)

    # -- when to look

    async def tick(self) -> None:
        """Free what dead processes had and did not send, and send what is due; raises StoreError."""
        freed = await self._queue.free_lost(limit=BATCH)
        if freed:
            log.warning("queued_calls_freed", calls=len(freed))
        waiting = await self._queue.list_waiting()
        self._waiting = frozenset(waiting)
        for workspace_id, due in waiting.items():
            if due:
                self._stir(workspace_id, eager=False)

    async def renew(self) -> None:
        """Keep the leases on what is out; to be done every `renew_s` seconds. Raises StoreError."""
        claims = {call_id: attempt.one.claim for call_id, attempt in self._out.items()}
        if claims:
            await self._queue.renew(claims, lease_s=self._lease_s)

    @property
    def renew_s(self) -> float:
        """Seconds after which the leases want to be renewed: soon enough to try again."""
        return self._lease_s / RENEWALS

    @property
    def outage(self) -> Outage:
        """What the log says while nothing can be sent."""
        return self._outage

    def waits(self, workspace_id: str) -> bool:
        """Whether calls waited for this workspace when it was last looked."""
        return workspace_id in self._waiting

    def freed(self, workspace_id: str) -> None:
        """Note that an agent has ended a call, and may have time for another one."""
        if self.waits(workspace_id):
            self._stir(workspace_id, eager=True)

    def beat(self, workspace_id: str, active_tasks: int) -> None:
        """Note what an agent says that it works on."""
        if self.waits(workspace_id):
            self._spawn(self._weigh(workspace_id, active_tasks), f"queue:weigh:{workspace_id}")

    async def _weigh(self, workspace_id: str, active_tasks: int) -> None:
        with suppress(Refusal):  # whoever claims finds out what is wrong
            target = await self._directory.get(workspace_id)
            if active_tasks < target.max_concurrent_tasks:
                self._stir(workspace_id, eager=True)

    def came(self, workspace_id: str) -> None:
        """Note that something has just been written that may be sent to this workspace."""
        self._stir(workspace_id, eager=False)

    def _stir(self, workspace_id: str, *, eager: bool) -> None:
        """Look once more, now or when the look that is under way has ended."""
        if self._closed:
            return
        if workspace_id in self._turning:
            self._turning[workspace_id] = bool(self._turning[workspace_id]) or eager
            return
        self._turning[workspace_id] = None
        self._spawn(self._turn(workspace_id, eager), f"queue:turn:{workspace_id}")

    async def _turn(self, workspace_id: str, eager: bool) -> None:
        again: bool | None = eager
        try:
            while again is not None and not self._closed:
                self._turning[workspace_id] = None
                full = await self._claim(workspace_id, eager=again)
                asked = self._turning[workspace_id]
                again = again or bool(asked) if full else asked
        except ports.StoreError as error:
            self._outage.failed(error)
        finally:
            del self._turning[workspace_id]

    async def _claim(self, workspace_id: str, *, eager: bool) -> bool:
        """Take what may be sent now; return whether there may be more."""
        limit = min(BATCH, self._capacity - len(self._out))
        if limit <= 0:
            return False
        taken = await self._queue.claim(
            workspace_id, eager=eager, limit=limit, lease_s=self._lease_s, answered=self._answered
        )
        for one in taken:
            attempt = self._out[one.call.id] = Attempt(one)
            attempt.task = self._spawn(self._run(attempt), f"queued:{one.call.id}")
        return len(taken) == limit

    async def _run(self, attempt: Attempt) -> None:
        """Try a call once; whatever becomes of it, it ends or waits again.

        The next one is looked for as soon as the agent has answered, while the answer is written down.
        """
        hold, call_id, workspace_id = self._room.hold(), attempt.one.call.id, attempt.one.call.workspace_id

        def answered() -> None:
            self._answered.add(call_id)
            self._stir(workspace_id, eager=True)

        try:
            await self._attempts.make(attempt, hold, answered)
        finally:
            hold.release()
            del self._out[call_id]
            if call_id in self._answered:
                self._answered.remove(call_id)
            else:
                self._stir(workspace_id, eager=False)

    # -- how it ends before its time

    def call_off(self, call_id: str) -> None:
        """End a call as cancelled if this process has it out: somebody says so, here or on another replica."""
        attempt = self._out.get(call_id)
        if attempt is not None:
            attempt.call_off()

    async def close(self, within_s: float) -> None:
        """Claim no more; let what is out end by itself within this time, and end the rest as gateway_shutdown."""
        self._closed = True
        self._settling.close()
        tasks = [attempt.task for attempt in self._out.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=within_s)
        left = [task for task in tasks if not task.done()]
        for task in left:
            task.cancel()
        if left:
            await asyncio.wait(left, timeout=CLOSE_S)
        await self._settling.wait(CLOSE_S)
