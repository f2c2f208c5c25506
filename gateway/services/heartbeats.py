"""Heartbeats on their way into the database: the newest of each workspace, once a second, in one statement."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from time import monotonic
from typing import Any

import structlog

from events.bus import Stamp, unwatched
from gateway import ports
from gateway.core.workspaces import Beat
from gateway.services.outage import Outage

log = structlog.get_logger("gateway.heartbeats")


@dataclass(frozen=True, kw_only=True, slots=True)
class _Pending:
    beat: Beat
    at: float
    sign_at: float | None


class Heartbeats:
    """Coalesces heartbeats. While the database is away the newest of each workspace waits; nothing else is lost."""

    def __init__(self, liveness: ports.Liveness, *, every_s: float, now: Callable[[], float] = monotonic) -> None:
        self._liveness = liveness
        self._every_s = every_s
        self._outage = Outage("writing heartbeats")
        self._now = now
        self._pending: dict[str, _Pending] = {}
        self._writing = asyncio.Lock()
        self._some = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Heartbeats pending={len(self._pending)}>"

    def note(self, workspace_id: str, beat: Beat) -> None:
        """Take a beat; it is written within `every_s` seconds."""
        now = self._now()
        newer = _Pending(beat=beat, at=now, sign_at=None if beat.wedged else now)
        earlier = self._pending.get(workspace_id)
        self._pending[workspace_id] = newer if earlier is None else _joined(earlier, newer)
        self._some.set()

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Write for ever."""
        while True:
            stamp(idle=True)
            await self._some.wait()
            stamp()
            await asyncio.sleep(self._every_s)
            with self._outage.noted():
                await self.flush()

    async def flush(self) -> None:
        """Write what is pending; on StoreError it stays pending, unless something newer has come."""
        async with self._writing:
            batch, self._pending = self._pending, {}
            self._some.clear()
            if not batch:
                return
            try:
                await self._write(list(batch.items()))
            except BaseException:
                for key, pending in batch.items():
                    newer = self._pending.get(key)
                    self._pending[key] = pending if newer is None else _joined(pending, newer)
                self._some.set()
                raise

    async def _write(self, batch: list[tuple[str, _Pending]]) -> None:
        try:
            await self._liveness.record([self._row(key, pending) for key, pending in batch])
        except (ports.StoreUnavailable, ports.StoreTimeout):
            raise
        except ports.StoreError as error:
            if len(batch) > 1:
                for beat in batch:  # one bad beat does not take the others with it
                    await self._write([beat])
                return
            log.error("heartbeat_refused", workspace_id=batch[0][0], error=type(error).__name__)

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


def _joined(earlier: _Pending, newer: _Pending) -> _Pending:
    """Return the newer beat, with what it does not say of the earlier one: its sign of life, and what was spent."""
    spend = newer.beat.monthly_spend
    return _Pending(
        beat=replace(newer.beat, monthly_spend=earlier.beat.monthly_spend if spend is None else spend),
        at=newer.at,
        sign_at=earlier.sign_at if newer.sign_at is None else newer.sign_at,
    )
