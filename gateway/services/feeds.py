"""Which feeds this process reads: those that somebody wants, each by one replica alone, while its lease holds."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Final

import structlog

from events.bus import Bus, Spawn, Stamp, unwatched
from gateway import ports
from gateway.core.feeds import State
from gateway.core.ids import new_id
from gateway.services.outage import Outage
from gateway.services.subscription import Manner, Subscription

log = structlog.get_logger("gateway.feeds")

TURN_S: Final = 1.0
"""How often it is looked what is wanted, if nothing happens before ..."""
SPACE_S: Final = 0.2
"""... and how far apart two looks are at least."""
LIST_S: Final = 60.0
"""How often all declared feeds are listed; between that only those that have changed."""
MARGIN_S: Final = 0.5
"""How long before its lease runs out a feed is let go: the other end has to see it, too."""
CLOSE_S: Final = 2.0
"""How long it may take to give them all back in the end."""
_STRIDE: Final = 1000
"""Feeds looked at before others have their turn."""
_CHANGES: Final = 1000
"""Changes that are looked at one by one; of more, all feeds are listed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Seconds: how long a lease lasts, and how long a feed is read that nobody wants any more."""

    lease_s: float
    linger_s: float


class Feeds:
    """Takes feeds, lets them go, and gives account of them.

    is_wanted: whether a call to this workspace is in flight here, or somebody here reads its events. pinned: all are
    wanted always. capacity: how many this process reads at most.
    """

    def __init__(
        self,
        *,
        store: ports.Feeds,
        liveness: ports.Liveness,
        feed: ports.EventFeed,
        bus: Bus,
        vault: ports.Vault | None,
        is_wanted: Callable[[str], bool],
        pinned: bool,
        manner: Manner,
        times: Times,
        capacity: int,
        spawn: Spawn,
    ) -> None:
        self._store = store
        self._liveness = liveness
        self._feed = feed
        self._bus = bus
        self._vault = vault
        self._is_wanted = is_wanted
        self._pinned = pinned
        self._manner = manner
        self._times = times
        self._capacity = capacity
        self._spawn = spawn
        self._me = new_id()
        self._loop = asyncio.get_running_loop()
        self._outage = Outage("keeping the leases of feeds")
        self._declared: dict[str, ports.DeclaredFeed] = {}
        self._changed: set[str] | None = None  # None: any may have
        self._listed_at = 0.0
        self._wanted_at: dict[str, float] = {}
        self._held: dict[str, tuple[Subscription, asyncio.Task[None]]] = {}
        self._wake = asyncio.Event()
        self._turning = asyncio.Lock()
        self._closed = False
        self._past: Counter[str] = Counter()
        self.events = 0

    def __repr__(self) -> str:
        return f"<Feeds declared={len(self._declared)} held={len(self._held)}>"

    def __len__(self) -> int:
        return len(self._held)

    # -- for the metrics

    @property
    def states(self) -> Mapping[str, int]:
        """How many feeds are in each state: those of this process, and those that were given up, by whomever."""
        count = Counter({state.value: 0 for state in State})
        count.update(subscription.standing.state.value for subscription, _ in self._held.values())
        gave_up = sum(one.gave_up for one in self._declared.values() if one.workspace_id not in self._held)
        count[State.GAVE_UP.value] += gave_up
        count[State.STOPPED.value] += len(self._declared.keys() - self._held.keys()) - gave_up
        return count

    def _total(self, name: str) -> int:
        held: list[int] = [getattr(one, name) for one, _ in self._held.values()]
        return self._past[name] + sum(held)

    @property
    def connects(self) -> int:
        """How often this process has connected to a feed, or tried."""
        return self._total("connects")

    @property
    def duplicates(self) -> int:
        """Events that had been told before."""
        return self._total("duplicates")

    @property
    def dropped(self) -> int:
        """Events that were too large."""
        return self._total("dropped")

    # -- what turns

    def doubt(self, workspace_id: str) -> None:
        """Look at the next turn, which is soon, what has become of this workspace."""
        if self._changed is not None:
            self._changed.add(workspace_id)
            if len(self._changed) > _CHANGES:
                self._changed = None
        self._wake.set()

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Turn for ever; while the database is away leases that are not renewed end by themselves."""
        every_s = min(TURN_S, self._times.lease_s / 4)
        while True:
            stamp()
            with self._outage.noted():
                await self.tick()
            await asyncio.sleep(SPACE_S)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(every_s - SPACE_S):
                    await self._wake.wait()

    async def tick(self) -> None:
        """Let go of what has ended or is not ours any more, renew the rest, take what is wanted; raises StoreError."""
        async with self._turning:
            if self._closed:
                return
            self._wake.clear()
            await self._list()
            self._check_held()
            await self._want()
            await self._release()
            await self._renew()
            await self._claim()

    async def _list(self) -> None:
        now = self._loop.time()
        changed, self._changed = self._changed, set()
        if changed is None or now - self._listed_at >= LIST_S:
            changed = None
        elif not changed:
            return
        try:
            found = await self._store.list_declared(changed)
        except BaseException:
            self._changed = None
            raise
        if changed is None:
            self._declared.clear()
            self._listed_at = now
        else:
            for gone in changed:
                self._declared.pop(gone, None)
        self._declared.update((one.workspace_id, one) for one in found)

    def _check_held(self) -> None:
        """Stop what is not declared any more, or elsewhere; try again what was declared anew."""
        for workspace_id, (subscription, task) in self._held.items():
            declared = self._declared.get(workspace_id)
            if declared is None or declared.url != subscription.url:
                _stop(subscription, task)
            elif declared.declared != subscription.declared:
                subscription.declared = declared.declared
                subscription.poke()

    async def _want(self) -> None:
        now, fresh_s = self._loop.time(), self._times.linger_s / 4
        wanted = []
        for number, one in enumerate(list(self._declared.values()), 1):
            if self._pinned or one.pinned or self._is_wanted(one.workspace_id):
                said_at = self._wanted_at.get(one.workspace_id)
                if said_at is None or now - said_at >= fresh_s:
                    wanted.append(one.workspace_id)
            if number % _STRIDE == 0:
                await asyncio.sleep(0)
        if wanted:
            await self._store.want(wanted, linger_s=self._times.linger_s)
            self._wanted_at.update(dict.fromkeys(wanted, now))
        for workspace_id in [one for one, at in self._wanted_at.items() if now - at >= fresh_s]:
            del self._wanted_at[workspace_id]

    async def _release(self) -> None:
        """Give back those that have ended: only now may they be taken anew, by whomever."""
        ended = {one: subscription for one, (subscription, task) in self._held.items() if task.done()}
        if not ended:
            return
        reports = [subscription.report() for subscription in ended.values()]
        try:
            await self._store.release(self._me, reports)
        except BaseException:
            for report, subscription in zip(reports, ended.values(), strict=True):
                subscription.unreport(report)
            raise
        self._count(reports)
        for workspace_id, subscription in ended.items():
            del self._held[workspace_id]
            self._past.update(
                connects=subscription.connects, duplicates=subscription.duplicates, dropped=subscription.dropped
            )
            self.doubt(workspace_id)

    async def _renew(self) -> None:
        now = self._loop.time()
        due = {
            one: subscription
            for one, (subscription, task) in self._held.items()
            if not task.done() and now - subscription.renewed_at >= self._times.lease_s / 4
        }
        if not due:
            return
        reports = {one: subscription.report() for one, subscription in due.items()}
        for subscription in due.values():
            subscription.renewed_at = now
        try:
            lively = [one for one, report in reports.items() if report.events]
            if lively:
                await self._liveness.sign(lively)
            kept = await self._store.renew(self._me, list(reports.values()), lease_s=self._times.lease_s)
        except BaseException:
            for one, subscription in due.items():
                subscription.unreport(reports[one])
            raise
        self._count([reports[one] for one in kept])
        for one, subscription in due.items():
            if kept.get(one):
                subscription.extend(now + self._times.lease_s - MARGIN_S)
            else:
                _stop(*self._held[one])

    def _count(self, reports: Collection[ports.FeedReport]) -> None:
        self.events += sum(one.events for one in reports)

    async def _claim(self) -> None:
        room = self._capacity - len(self._held)
        if room <= 0 or not self._declared:
            return
        now = self._loop.time()
        granted = await self._store.claim(self._me, lease_s=self._times.lease_s, besides=[*self._held], limit=room)
        for grant in granted:
            if self._closed:  # meanwhile; these run out by themselves
                return
            subscription = Subscription(
                grant,
                secret=self._unseal(grant.inbound_secret),
                feed=self._feed,
                publish=self._bus.publish,
                manner=self._manner,
                good_until=now + self._times.lease_s - MARGIN_S,
                stirred=self._wake.set,
            )
            task = self._spawn(subscription.run(), f"feed:{grant.workspace_id}")
            self._held[grant.workspace_id] = (subscription, task)
            task.add_done_callback(lambda _: self._wake.set())

    def _unseal(self, sealed: bytes | None) -> str | None:
        return None if sealed is None or self._vault is None else self._vault.unseal(sealed)

    async def close(self) -> None:
        """Stop reading, and let others have all; what cannot be given back runs out by itself."""
        self._closed = True
        for held in self._held.values():
            _stop(*held)
        try:
            async with asyncio.timeout(CLOSE_S), self._turning:
                if self._held:
                    await asyncio.wait([task for _, task in self._held.values()])
                await self._release()
        except (ports.StoreError, TimeoutError) as error:
            log.warning("feeds_not_released", count=len(self._held), error=type(error).__name__)


def _stop(subscription: Subscription, task: asyncio.Task[None]) -> None:
    """Let it end, once: to ask again would interrupt what it does to end."""
    if not subscription.stopping:
        subscription.stopping = True
        task.cancel()
