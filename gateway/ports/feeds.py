"""Agents' event feeds: as they are kept, and as they are read."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from gateway.core.feeds import How
from gateway.core.feeds import State as FeedState
from gateway.core.sse import ServerEvent


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredFeed:
    """A workspace that tells of its own events at this url. `declared`: when that was said last, for comparing.

    pinned: its runtime wants it to be read always. gave_up: nobody reads it for now.
    """

    workspace_id: str
    url: str
    declared: str
    pinned: bool
    gave_up: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class GrantedFeed:
    """A feed that one process reads alone; it goes on after `last_id` ("": from now). The secret is sealed."""

    workspace_id: str
    url: str
    declared: str
    last_id: str
    inbound_secret: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedReport:
    """How the subscription to a feed stands; `events` have been told on since the last report.

    rests_s: for how long nobody takes it, unless it is declared anew; None: not at all.
    """

    workspace_id: str
    state: FeedState
    reason: str | None
    last_id: str
    events: int
    rests_s: float | None = None


class Feeds(Protocol):
    """`store/feeds.py`: who reads which feed. Every method may raise StoreError."""

    async def list_declared(self, workspace_ids: Collection[str] | None) -> Sequence[DeclaredFeed]:
        """Return the feeds of those of these workspaces (None: all) whose agent may be there."""

    async def want(self, workspace_ids: Collection[str], *, linger_s: float) -> None:
        """Say that somebody wants these now; they are read for as long as this after it was said last, roughly."""

    async def claim(
        self, holder: str, *, lease_s: float, besides: Collection[str], limit: int
    ) -> Sequence[GrantedFeed]:
        """Take feeds that somebody wants and nobody reads, but for these; each is given to one process only."""

    async def renew(self, holder: str, reports: Sequence[FeedReport], *, lease_s: float) -> Mapping[str, bool]:
        """Let leases begin anew; return those that are still this one's, and whether somebody wants each."""

    async def release(self, holder: str, reports: Sequence[FeedReport]) -> None:
        """Let others have them, those that are still this one's."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedSource:
    """Where the events of a workspace's agent come from, and where to go on ("": from now)."""

    workspace_id: str
    url: str
    last_id: str
    secret: str | None = field(default=None, repr=False)


class FeedListener(Protocol):
    """Who reads a feed."""

    def opened(self) -> None:
        """Learn that the agent has begun its stream."""

    async def heard(self, came: ServerEvent) -> None:
        """Take an event; the next one is not read before this returns."""

    def passed(self, last_id: str, dropped: int) -> None:
        """Learn where to go on, after what has come, and how many events have been too large since it was opened."""


class EventFeed(Protocol):
    """`net/event_feed.py`."""

    async def read(self, source: FeedSource, listener: FeedListener) -> How:
        """Read until the connection ends and return how; raises what the listener raises."""
