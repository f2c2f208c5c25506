"""Heartbeats on their way into the database: the newest of each workspace, once a second, in one statement."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Any

import structlog

from gateway import ports
from gateway.core.workspaces import Beat

log = structlog.get_logger("gateway.heartbeats")


@dataclass(slots=True)
class _Pending:
    beat: Beat
    at: float
    sign_at: float | None


class Heartbeats:
    """Coalesces heartbeats. While the database is away the newest of each workspace waits; nothing else is lost."""

    def __init__(self, liveness: ports.Liveness, *, every_s: float, now: Callable[[], float] = monotonic) -> None:
        self._liveness = liveness
        self._every_s = every_s
        self._now = now
        self._pending: dict[str, _Pending] = {}
        self._writing = asyncio.Lock()
        self._some = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Heartbeats pending={len(self._pending)}>"

    def note(self, workspace_id: str, beat: Beat) -> None:
        """Take a beat; it is written within `every_s` seconds."""
        now = self._now()
        earlier = self._pending.get(workspace_id)
        sign_at = now if not beat.wedged else earlier.sign_at if earlier else None
        self._pending[workspace_id] = _Pending(beat=beat, at=now, sign_at=sign_at)
        self._some.set()

    async def run(self) -> None:
        """Write for ever."""
        while True:
            await self._some.wait()
            await asyncio.sleep(self._every_s)
            try:
                await self.flush()
            except ports.StoreError as error:
                log.warning("heartbeats_unwritten", pending=len(self._pending), error=type(error).__name__)

    async def flush(self) -> None:
        """Write what is pending; on StoreError it stays pending, unless something newer has come."""
        async with self._writing:
            batch, self._pending = self._pending, {}
            self._some.clear()
            if not batch:
                return
            try:
                await self._liveness.record([self._row(key, pending) for key, pending in batch.items()])
            except BaseException:
                for key, pending in batch.items():
                    newer = self._pending.setdefault(key, pending)
                    if newer.sign_at is None:
                        newer.sign_at = pending.sign_at
                self._some.set()
                raise

    def _row(self, workspace_id: str, pending: _Pending) -> dict[str, Any]:
        now, beat = self._now(), pending.beat
        return {
            "workspace_id": workspace_id,
            "age_s": now - pending.at,
            "sign_age_s": None if pending.sign_at is None else now - pending.sign_at,
            "active_tasks": beat.active_tasks,
            "current_task": beat.current_task,
            "error_rate": beat.error_rate,
            "sample_error": beat.sample_error,
            "uptime_seconds": beat.uptime_seconds,
            "monthly_spend": beat.monthly_spend,
            "runtime_state": beat.runtime_state,
        }
