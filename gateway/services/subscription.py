"""One feed as the process reads it that has it: what comes is told on, and what breaks is tried again."""

import asyncio
import math
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from random import random
from typing import Final

import structlog

from events.event import Event, event
from gateway import ports
from gateway.core import feeds, upstream
from gateway.core.feeds import Recent, Rules, Standing, State
from gateway.core.sse import ServerEvent

log = structlog.get_logger("gateway.feeds")

RECENT: Final = 1000
"""Ids that are remembered of each feed, so that no event is told twice."""
BURST_S: Final = 1.0
"""What a feed may bring at once, in seconds of what it may bring."""


class LeaseOver(Exception):
    """The feed may be somebody else's by now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Manner:
    """How all feeds are read. per_s: events that one may bring in a second, on average; then it is read more slowly.

    keeps: types that may stay what they are (core/upstream.py). gave_up_s: for how long one is left that was given up.
    """

    rules: Rules
    keeps: Collection[str]
    per_s: float
    gave_up_s: float


class Subscription:
    """Reads one feed until it is stopped, given up, or its lease runs out. `stirred` hears of each change of state.

    Its task must be started by whoever makes it; it never ends by an exception.
    """

    def __init__(
        self,
        grant: ports.GrantedFeed,
        *,
        secret: str | None,
        feed: ports.EventFeed,
        publish: Callable[[Event], None],
        manner: Manner,
        good_until: float,
        stirred: Callable[[], None],
    ) -> None:
        self.url = grant.url
        self.declared = grant.declared
        self.stopping = False
        """Whether whoever holds it has asked it to end."""
        self.standing = Standing()
        self.renewed_at = -math.inf
        """When its lease was renewed with all that had happened up to then; -inf: there is news."""
        self.duplicates = self.dropped = self.connects = 0
        self._workspace_id = grant.workspace_id
        self._secret = secret
        self._last_id = grant.last_id
        self._feed = feed
        self._publish = publish
        self._manner = manner
        self._good_until = good_until
        self._stirred = stirred
        self._loop = asyncio.get_running_loop()
        self._lease: asyncio.Timeout | None = None
        self._poked = asyncio.Event()
        self._recent = Recent(capacity=RECENT)
        self._events = 0
        self._dropped_before = 0
        self._opened_at = math.inf
        self._heard = False
        self._paid_until = 0.0

    def __repr__(self) -> str:
        return f"<Subscription {self._workspace_id} {self.standing.state.value} {self.standing.reason}>"

    # -- for whoever holds it

    def extend(self, good_until: float) -> None:
        """Read on until then, seconds of the loop's clock: the lease was renewed."""
        self._good_until = good_until
        if self._lease is not None and not self._lease.expired():
            self._lease.reschedule(good_until)

    def poke(self) -> None:
        """Try again now, if it waits: something has been said of it."""
        self._poked.set()

    def report(self) -> ports.FeedReport:
        """Return how it stands, with what was told on since the last report."""
        count, self._events = self._events, 0
        gave_up = self.standing.state is State.GAVE_UP
        return ports.FeedReport(
            workspace_id=self._workspace_id,
            state=self.standing.state,
            reason=self.standing.reason,
            last_id=self._last_id,
            events=count,
            rests_s=self._manner.gave_up_s if gave_up else None,
        )

    def unreport(self, report: ports.FeedReport) -> None:
        """Take back a report that nobody got."""
        self._events += report.events

    # -- its life

    async def run(self) -> None:
        """Read for as long as it may."""
        try:
            async with asyncio.timeout_at(self._good_until) as self._lease:
                await self._follow()
        except (TimeoutError, LeaseOver):
            log.warning("feed_lease_over", workspace_id=self._workspace_id)
            self._stand(feeds.stopped(self.standing, "lease_over"))
        except asyncio.CancelledError:
            self._stand(feeds.stopped(self.standing, None))
            raise
        except Exception:  # a bug of ours must not connect again and again
            log.exception("feed_broke", workspace_id=self._workspace_id)
            self._stand(replace(self.standing, state=State.GAVE_UP, reason="internal"))
        finally:
            self._lease = None

    async def _follow(self) -> None:
        while self.standing.state is not State.GAVE_UP:
            self._stand(feeds.connecting(self.standing))
            self._poked.clear()
            how = await self._connect()
            now = self._loop.time()
            healthy = self._heard or now - self._opened_at >= self._manner.rules.healthy_s
            after = feeds.ended(
                self.standing,
                how,
                now=now,
                healthy=healthy,
                spread=random(),  # noqa: S311 - spreads, keeps no secret
                rules=self._manner.rules,
            )
            self._stand(after)
            if after.state is State.BACKOFF:
                await self._rest(after.wait_s)

    async def _connect(self) -> feeds.How:
        self.connects += 1
        self._opened_at, self._heard, self._dropped_before = math.inf, False, 0
        source = ports.FeedSource(
            workspace_id=self._workspace_id, url=self.url, last_id=self._last_id, secret=self._secret
        )
        return await self._feed.read(source, self)

    async def _rest(self, wait_s: float) -> None:
        try:
            async with asyncio.timeout(wait_s):
                await self._poked.wait()
        except TimeoutError:
            return

    def _stand(self, standing: Standing) -> None:
        told = (standing.state, standing.reason) != (self.standing.state, self.standing.reason)
        self.standing = standing
        if told:
            if standing.state in (State.BACKOFF, State.GAVE_UP) and standing.reason != "closed":
                log.info(
                    "feed_down",
                    workspace_id=self._workspace_id,
                    state=standing.state.value,
                    reason=standing.reason,
                    failures=standing.failures,
                )
            self.renewed_at = -math.inf
            self._stirred()

    # -- from the connection

    def opened(self) -> None:
        """Learn that the agent has begun its stream."""
        self._opened_at = self._loop.time()
        self._stand(feeds.live(self.standing))

    async def heard(self, came: ServerEvent) -> None:
        """Tell an event on, unless it was told before; then wait, if this feed brings too many."""
        if self._loop.time() >= self._good_until:  # this process was held up, and its timers with it
            raise LeaseOver
        self._heard = True
        if came.id and not self._recent.is_new(came.id):
            self.duplicates += 1
        else:
            told = upstream.told(came, self._workspace_id, keeps=self._manner.keeps, secret=self._secret)
            self._publish(event(told.type, self._workspace_id, told.data, sign=True))
            self._events += 1
        if came.id is not None:
            self._last_id = came.id
        now = self._loop.time()
        self._paid_until = max(self._paid_until, now) + 1 / self._manner.per_s
        ahead_s = self._paid_until - now - BURST_S
        if ahead_s > 0:
            await asyncio.sleep(ahead_s)

    def passed(self, last_id: str, dropped: int) -> None:
        """Learn where to go on, and how many events were too large since it was opened."""
        self._last_id = last_id
        self.dropped += dropped - self._dropped_before
        self._dropped_before = dropped
