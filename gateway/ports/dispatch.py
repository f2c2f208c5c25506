"""The way out to an agent."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from gateway.core.http_json import Operation
from gateway.core.journey import Sign
from gateway.core.outcomes import Outcome


class NoRoom(Exception):
    """This process holds as many bytes of bodies as it may."""


class Hold(Protocol):
    """Counts the bytes that one request and its answer take here."""

    def grow(self, count: int) -> None:
        """Hold so many more bytes; raises NoRoom."""


class Clockwork(Protocol):
    """`net/clocks.Watch`: the clocks of one call."""

    def last_reset(self) -> tuple[Sign, float]:
        """Return what set the idle clock back last, and when: seconds after the call was sent."""


@dataclass(kw_only=True, slots=True)
class Meter:
    """What is seen of one call on its way, by whoever sends it. `first_byte_s`: when its answer began, seconds after
    it was sent; None before."""

    attempts: int = 0
    first_byte_s: float | None = None
    received_bytes: int = 0
    clockwork: Clockwork | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outbound:
    """A call as it goes out. Times are seconds; `limit_s` is the caller's deadline if `by_deadline`, else a ceiling.

    hold: what counts the bytes of the answer. meter: what says how far it is. operation: how it is asked for by
    HTTP+JSON, below the url; None for JSON-RPC.
    """

    call_id: str
    workspace_id: str
    url: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    idle_s: float
    limit_s: float | None
    by_deadline: bool
    hold: Hold = field(repr=False)
    meter: Meter = field(default_factory=Meter, repr=False)
    operation: Operation | None = None


class Sink(Protocol):
    """Takes an answer that is a stream, as it comes (services/relays.py)."""

    def feed(self, chunk: bytes) -> bool:
        """Take the next bytes; return whether they were more than comments. Raises NoRoom, and TooLong
        (core/relay.py)."""

    def finish(self) -> None:
        """Take note that no more bytes will come."""

    @property
    def events(self) -> int:
        """How many whole events have come."""

    @property
    def complete(self) -> bool:
        """Whether the agent has said all that it had to say."""

    @property
    def is_ahead(self) -> bool:
        """Whether the agent should not be read on for a moment."""

    async def rest(self) -> None:
        """Wait until that moment is over."""


Begin = Callable[[int, Mapping[str, str]], Sink]
"""Called when an answer turns out to be a stream, with its status and the headers that its caller gets."""


class Dispatcher(Protocol):
    """`net/dispatch.py`."""

    async def send(self, outbound: Outbound, begin: Begin | None = None) -> Outcome:
        """Make the call and return what happened; never raises but when it is itself cancelled.

        An answer that is a stream goes, as it comes, to what `begin` returns; without it streams are read to their end.
        """
