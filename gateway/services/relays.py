"""A stream on its way through this process: taken from the agent as it comes, kept for a while, read by whoever wants.

The agent is never held up by a reader. What has just come is kept here, and all of it goes to the stream's journal: a
reader that falls behind reads it there. What the journal does not have is kept for those who read it here.
"""

import asyncio
from bisect import bisect_right
from collections.abc import Callable
from math import ceil
from typing import Final, Protocol

from gateway import ports
from gateway.core import farewells, streams
from gateway.core.answers import Ended
from gateway.core.relay import LINE_COST, Comment, Event, Framer
from gateway.core.usage import Usage

BETWEEN: Final = 0.5
"""Where a comment stands: behind the event before it."""


class Reader(Protocol):
    """Who reads a relay. `place`: how far it is, None if nobody knows."""

    place: int | None

    def take(self) -> None:
        """Take what has come, in the turn in which it comes: of one that keeps up."""


class Shared:
    """What all relays of a process take together; past `limit_bytes` each keeps no more than its newest event, and none
    may take more than its share."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.bytes = 0
        self.relays = 0

    def __repr__(self) -> str:
        return f"<Shared bytes={self.bytes} of {self.limit_bytes}>"

    @property
    def is_full(self) -> bool:
        """Whether they take all that they may."""
        return self.bytes > self.limit_bytes

    @property
    def share(self) -> int:
        """What each of them may have when it is full."""
        return self.limit_bytes // max(1, self.relays)


class Relay:
    """One stream (ports.Sink). kept_bytes: what of it is kept here; unwritten_bytes: the same, of what its journal does
    not have and a reader here has not read. `body` is all that has come for as long as that is no longer than
    answer_bytes, then None. names: whether it is the stream of the tasks of which it tells, not the rest of one."""

    def __init__(
        self,
        head: ports.StreamHead,
        journal: ports.Journal,
        shared: Shared,
        *,
        event_bytes: int,
        kept_bytes: int,
        unwritten_bytes: int,
        answer_bytes: int,
        names: bool = True,
        hold: ports.Hold | None = None,
    ) -> None:
        self.head = head
        self._journal = journal
        self._shared = shared
        self._kept_bytes = kept_bytes
        self._unwritten_bytes = max(kept_bytes, unwritten_bytes)
        self._answer_bytes = answer_bytes
        self._names = names
        self._hold = hold
        self._framer = Framer(event_bytes)
        self._parts: list[bytes] = []
        self._numbers: list[float] = []
        self._bytes = 0
        self._incomplete = 0
        self._trimmed = 0
        self._said: list[bytes] | None = []
        self._said_bytes = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._pushing: dict[Reader, None] = {}
        self.readers: set[Reader] = set()
        self.events = 0
        self.complete = False
        self._for_now = False
        self.over = False
        self._resumable = True
        self.task_id: str | None = None
        self.usage = Usage()
        self.on_usage: Callable[[Usage], None] = lambda _: None
        self.last: bytes = b""
        """The data of the last event."""
        shared.relays += 1
        journal.begin(head)

    def __repr__(self) -> str:
        return f"<Relay {self.head.call_id} events={self.events} over={self.over}>"

    # -- from the agent

    def feed(self, chunk: bytes) -> bool:
        """Take the next bytes; return whether they were more than comments. Raises TooLong, and NoRoom where all relays
        take what they may and this one has more than its share, events that are not whole yet among it."""
        before = self.events
        for part in self._framer.feed(chunk):
            if isinstance(part, Comment):
                self._keep(part.raw, self.events + BETWEEN)
            else:
                self._take(part)
        self._wake()
        self._count(self._framer.held_bytes)
        if self._shared.is_full and self._bytes + self._incomplete > max(self._kept_bytes, self._shared.share):
            raise ports.NoRoom
        return self.events != before or not self._framer.idle

    def _count(self, incomplete: int) -> None:
        """Count what is held of an event that is not whole yet."""
        self._shared.bytes += incomplete - self._incomplete
        self._incomplete = incomplete

    def finish(self) -> None:
        """Take note that no more bytes will come: an event that lacks but its end counts if all is said with it.

        A long one that may have said it is read now, once.
        """
        if not self.complete and len(self.last) > streams.READ_BYTES:
            self.complete = streams.read(self.last, long=True).last
        event = self._framer.finish()
        if event is not None and streams.read(event.data, long=True).last:
            self._take(event)
            self._wake()

    def _take(self, event: Event) -> None:
        self.events += 1
        said = streams.read(event.data)
        if said.last:
            self._for_now = said.for_now and (self._for_now or not self.complete)
            self.complete = True
        elif said.goes_on and self._for_now:  # its task was taken up again, and is to end once more
            self.complete = self._for_now = False
        if said.task_id is not None and said.task_id != self.task_id:
            self.task_id = said.task_id
            if self._names:
                self._journal.name(self.head.workspace_id, said.task_id, self.head.call_id)
        if said.usage.input_tokens or said.usage.output_tokens:
            self.usage = said.usage
            self.on_usage(said.usage)
        self.last = event.data
        self._journal.append(self.head.call_id, self.events, event.raw)
        self._keep(streams.numbered(event.raw, self.head.call_id, self.events), self.events)
        if self._said is not None:
            self._said.append(event.raw)
            self._said_bytes += len(event.raw)
            if self._said_bytes > self._answer_bytes or not self._has_room(len(event.raw)):
                self._said = None

    def _has_room(self, count: int) -> bool:
        try:
            if self._hold is not None:
                self._hold.grow(count)
        except ports.NoRoom:
            return False
        return True

    @property
    def is_ahead(self) -> bool:
        """Whether it comes faster than its journal takes it, so that all others' would have to wait. Not while Redis is
        away, nor for longer than that takes to be known: nobody is held up by it."""
        return self._journal.is_ahead(self.head.call_id)

    async def rest(self) -> None:
        """Wait until that is not so."""
        await self._journal.catch_up(self.head.call_id)

    @property
    def resumable(self) -> bool:
        """Whether its journal has it all, as far as is known, or was when it ended."""
        return self._resumable if self.over else self._journal.written(self.head.call_id) is not None

    @property
    def body(self) -> bytes | None:
        """All events that have come, if they are not too long."""
        return None if self._said is None else b"".join(self._said)

    def end(self, ended: Ended) -> None:
        """End it for its readers: a stream that has not completed says so in its last event."""
        self._resumable = self.resumable
        plain = self.head.plain
        said = farewells.of_ended(
            ended, call_id=self.head.call_id, last=self.events, resumable=self._resumable, plain=plain
        )
        self._journal.end(self.head.call_id, self.events + 1, said)
        if said is not None:
            raw = farewells.error_event(said, self.head.id_json, plain=plain)
            self.events += 1
            self._keep(streams.numbered(raw, self.head.call_id, self.events), self.events)
        self.over = True
        self._count(0)
        self._framer = Framer(0)
        self._shared.relays -= 1
        self._wake()

    def close(self) -> None:
        """Keep nothing any more, once it is over: its journal has it all."""
        self._shared.bytes -= self._bytes
        self._bytes = 0

    # -- for readers

    def _keep(self, wire: bytes, number: float) -> None:
        weight = _weight(wire)
        self._parts.append(wire)
        self._numbers.append(number)
        self._bytes += weight
        self._shared.bytes += weight
        room = not self._shared.is_full
        limit = self._kept_bytes if room else 0
        if self._bytes <= limit or len(self._parts) == 1:
            return
        drop = 0
        if self._bytes > (self._unwritten_bytes if room else 0):
            most = len(self._parts) - 1
        else:
            most = min(self._settled(), len(self._parts) - 1)
        while self._bytes > limit // 2 and drop < most:
            freed = _weight(self._parts[drop])
            self._bytes -= freed
            self._shared.bytes -= freed
            drop += 1
        del self._parts[:drop], self._numbers[:drop]
        self._trimmed += drop

    def _settled(self) -> int:
        """How many of the parts nobody here needs: the journal has them, or all have read them."""
        read = min((reader.place or 0 for reader in self.readers), default=self.position) - self._trimmed
        written = self._journal.written(self.head.call_id) or 0
        return max(read, bisect_right(self._numbers, written))

    @property
    def position(self) -> int:
        """The place behind all that has come."""
        return self._trimmed + len(self._parts)

    def place(self, number: int) -> int | None:
        """Return the place behind an event; None if what comes next is not kept here any more."""
        if self._trimmed and (not self._numbers or number < ceil(self._numbers[0]) - 1):
            return None
        return self._trimmed + bisect_right(self._numbers, number)

    def since(self, place: int, at_most: int) -> tuple[list[bytes], int] | None:
        """Return what fits into so many bytes from a place on, at least one part, and the place behind that.

        None if it is not kept any more.
        """
        if place < self._trimmed:
            return None
        start = place - self._trimmed
        found = self._parts[start:]
        size = 0
        for count, part in enumerate(found, 1):
            size += len(part)
            if size > at_most and count > 1:
                return found[: count - 1], place + count - 1
        return found, place + len(found)

    def bytes_since(self, place: int) -> int:
        """Return what there is from a place on, in bytes."""
        return sum(map(len, self._parts[max(0, place - self._trimmed) :]))

    def number(self, place: int) -> int:
        """Return the number of the event before a place, which is kept or the first one."""
        at = place - self._trimmed
        return int(self._numbers[at - 1]) if at > 0 else 0

    async def wait(self, place: int, within_s: float) -> None:
        """Wait until there is something behind this place, it is over, or this time has passed."""
        if self.position > place or self.over:
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.add(woken)
        try:
            await asyncio.wait([woken], timeout=within_s)
        finally:
            self._waiting.discard(woken)

    def push_to(self, reader: Reader) -> None:
        """Have a reader take all that comes at once, from where it is now: behind all that has come."""
        self._pushing[reader] = None

    def push_no_more(self, reader: Reader) -> None:
        """Let a reader fetch by itself again; may come twice."""
        self._pushing.pop(reader, None)

    def _wake(self) -> None:
        for reader in tuple(self._pushing):
            reader.take()
        for woken in self._waiting:
            if not woken.done():
                woken.set_result(None)
        self._waiting.clear()


def _weight(wire: bytes) -> int:
    """What it counts that a piece is kept."""
    return max(len(wire), LINE_COST)
