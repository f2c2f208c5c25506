"""That a replica lives: its lease, which it renews, and the calls of those that have not renewed theirs."""

import asyncio
import math
from collections.abc import Sequence
from time import monotonic
from typing import Final

from events.bus import Stamp, unwatched
from gateway.live.pipe import Pipe
from gateway.live.records import ENDLESS_S, Keys, ms, read_orphan
from gateway.ports import Orphan

RENEWALS: Final = 3
"""A replica that has missed so many renewals of its lease holds no budget any more."""
INHERITED: Final = 100
"""Calls taken over at once."""


class Leases:
    """`ports.Leases` for the replica of this name. renew_s: how often its lease is renewed."""

    def __init__(self, pipe: Pipe, keys: Keys, *, replica: str, renew_s: float) -> None:
        self._pipe = pipe
        self._keys = keys
        self._replica = replica
        self._renew_s = renew_s
        self._renewed_at = self._lapsed_at = -math.inf

    def __repr__(self) -> str:
        return f"<Leases of {self._replica}>"

    def renew(self) -> None:
        """Say that this replica lives, and may have calls in flight; raises LiveUnavailable."""
        now = monotonic()
        self._note_lapse(now)
        self._renewed_at = now
        self._pipe.ask("SET", self._keys.lease(self._replica), 1, "PX", ms(RENEWALS * self._renew_s))
        self._pipe.ask("SADD", self._keys.replicas, self._replica)
        self._pipe.ask("PEXPIRE", self._keys.replicas, ms(ENDLESS_S))

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Renew the lease, for ever."""
        while True:
            stamp()
            if self._pipe.is_up:
                self.renew()
            await asyncio.sleep(self._renew_s)

    def _note_lapse(self, now: float) -> None:
        if now - self._renewed_at >= RENEWALS * self._renew_s:
            self._lapsed_at = now

    async def has_lost(self, call_id: str, age_s: float) -> bool:
        """Return whether another replica has taken over a call of this one that began so long ago.

        It may, once this process was held up for longer than its lease lasts; who never was asks nobody. Raises
        LiveUnavailable.
        """
        now = monotonic()
        self._note_lapse(now)
        if now - age_s > self._lapsed_at:
            return False
        self.renew()  # from here on nobody takes over anything
        keys = (self._keys.call(call_id), self._keys.in_hands_of(self._replica))
        lost: int = await self._pipe.script("lost", keys, call_id)
        return lost == 1

    async def lapsed(self) -> Sequence[str]:
        """Return the replicas that may have calls in flight and have no lease. Raises LiveUnavailable."""
        replicas = [one.decode() for one in await self._pipe.ask("SMEMBERS", self._keys.replicas)]
        leases = [self._pipe.ask("EXISTS", self._keys.lease(one)) for one in replicas]
        return [one for one, lease in zip(replicas, leases, strict=True) if not await lease]

    async def inherit(self, replica: str) -> tuple[Sequence[Orphan], bool]:
        """Take over some calls of a replica without a lease; return them, and whether there may be more.

        Raises LiveUnavailable.
        """
        keys = (
            self._keys.replicas,
            self._keys.in_hands_of(replica),
            self._keys.in_hands_of(self._replica),
            self._keys.lease(replica),
        )
        count, *found = await self._pipe.script("inherit", keys, replica, self._keys.calls, INHERITED)
        return [read_orphan(*fields) for fields in found], count > 0
