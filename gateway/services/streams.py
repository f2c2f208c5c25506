"""Streams of agents for whoever reads them: from this process while it relays them, else from their journal."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from time import monotonic
from typing import Final

from gateway import ports
from gateway.core import answers, farewells, outcomes, streams
from gateway.core.answers import Ended
from gateway.core.endings import Ending
from gateway.services.relays import Relay, Shared
from gateway.services.room import Room

SOON_S: Final = 0.02
LATER_S: Final = 0.5
"""How soon a journal is looked at again, at first and after a while in which nothing has come."""
LOOK_S: Final = 5.0
"""How long a journal may say nothing until it is looked whether it is there at all."""
BLIND_S: Final = 15.0
"""How long Redis may be away until a reader of a journal is told that it cannot go on."""
READ_BYTES: Final = 256 * 1024
"""What is written to a reader at once, about ..."""
SHORT_BYTES: Final = 64 * 1024
"""... and when much is on its way to readers; no more than that is written without counting it."""
LOST: Final = "events_lost"
UNAVAILABLE: Final = "journal_unavailable"
OVERLOADED: Final = Ending.OVERLOADED.value
SHUTDOWN: Final = Ending.GATEWAY_SHUTDOWN.value


@dataclass(frozen=True, kw_only=True, slots=True)
class Sizes:
    """Bytes: of the longest event, of what a relay keeps, of what it keeps because no journal does, of all that relays
    keep, of an answer that is kept whole."""

    event: int
    kept: int
    unwritten: int
    all_kept: int
    answer: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """An answer that is a stream: how it begins, and its relay if it is here. id_json: the JSON-RPC id under which it
    is wanted, None for its own; `after`: the number of the last event that is known."""

    head: ports.StreamHead
    relay: Relay | None = field(default=None, repr=False)
    id_json: bytes | None = None
    after: int = 0


class Streams:
    """All streams that this process relays, and readers of any."""

    def __init__(self, journal: ports.Journal, sizes: Sizes) -> None:
        self._journal = journal
        self._sizes = sizes
        self._shared = Shared(sizes.all_kept)
        self._relays: dict[str, Relay] = {}
        self.room = Room(sizes.all_kept)
        self.readers = 0
        self.closed = False

    def __repr__(self) -> str:
        return f"<Streams relays={len(self._relays)} readers={self.readers}>"

    def __len__(self) -> int:
        return len(self._relays)

    @property
    def read_bytes(self) -> int:
        """What a reader is given at once, about."""
        return READ_BYTES if self.room.is_half_empty else SHORT_BYTES // 2

    @property
    def bytes(self) -> int:
        """What relays keep, all together."""
        return self._shared.bytes

    def close(self) -> None:
        """Send readers of what others relay elsewhere: this process is going away, and those streams are not."""
        self.closed = True

    def begin(
        self,
        head: ports.StreamHead,
        *,
        hold: ports.Hold | None = None,
        answer_bytes: int | None = None,
        names: bool = True,
    ) -> Relay:
        """Relay a stream from now on. hold: what counts the bytes of an answer that is kept whole, which may be longer
        than most. names: whether it is found by its tasks."""
        relay = self._relays[head.call_id] = Relay(
            head,
            self._journal,
            self._shared,
            event_bytes=self._sizes.event,
            kept_bytes=self._sizes.kept,
            unwritten_bytes=self._sizes.unwritten,
            answer_bytes=self._sizes.answer if answer_bytes is None else answer_bytes,
            hold=hold,
            names=names,
        )
        return relay

    def end(self, relay: Relay, ended: Ended) -> None:
        """End a stream for all who read it; who comes later reads its journal."""
        relay.end(ended)
        self._relays.pop(relay.head.call_id, None)
        if not relay.readers:
            relay.close()

    def interrupt(self, call_id: str) -> None:
        """End the stream of a call whose replica has died, if it has one, for all who follow it elsewhere."""
        self._journal.end(call_id, None, None)

    async def find(self, call_id: str) -> Opened | None:
        """Return a stream, wherever it is relayed; None: there is none, or no more. Raises LiveUnavailable."""
        relay = self._relays.get(call_id)
        if relay is not None:
            return Opened(head=relay.head, relay=relay)
        head = await self._journal.find(call_id)
        return None if head is None else Opened(head=head)

    async def find_call(self, workspace_id: str, task_id: str) -> str | None:
        """Return the call whose stream tells of a task. Raises LiveUnavailable."""
        return await self._journal.find_call(workspace_id, task_id)

    def read(self, opened: Opened) -> "Reading":
        """Return a reader of a stream."""
        return Reading(self, self._journal, opened)

    def enter(self, reading: "Reading", relay: Relay | None) -> None:
        """Count a reader."""
        self.readers += 1
        if relay is not None:
            relay.readers.add(reading)

    def leave(self, reading: "Reading", relay: Relay | None) -> None:
        """Count one less."""
        self.readers -= 1
        if relay is not None:
            relay.readers.discard(reading)
            if relay.over and not relay.readers:
                relay.close()


class Reading:
    """One reader of a stream, as the block in which it reads. `over`: it has read all, the last event too. `place`: how
    far it is in what the relay keeps; None if it has not begun there, or reads the journal.

    What it was given last counts until it asks for more: readers may be many, and take nothing.
    """

    def __init__(self, owner: Streams, journal: ports.Journal, opened: Opened) -> None:
        self.head = opened.head
        self.over = False
        self.number = opened.after
        self._owner = owner
        self._journal = journal
        self._relay = opened.relay
        other = opened.id_json != opened.head.id_json and not opened.head.plain  # HTTP+JSON has no such ids
        self._id_json = opened.id_json if other else None
        self.place: int | None = None
        self._write: Callable[[bytes], bool] = lambda _: False
        self._rested: asyncio.Future[None] | None = None
        self._hold = owner.room.hold()
        self._pause_s = SOON_S
        self._seen_at = self._said_at = monotonic()

    def __repr__(self) -> str:
        return f"<Reading {self.head.call_id} number={self.number} over={self.over}>"

    def __enter__(self) -> "Reading":
        self._owner.enter(self, self._relay)
        return self

    def __exit__(self, *_: object) -> None:
        self._hold.release()
        self._owner.leave(self, self._relay)

    @property
    def keeps_up(self) -> bool:
        """Whether it has read all that its relay has, so that more can be pushed."""
        return self._relay is not None and self.place == self._relay.position and not self.over

    async def push(self, write: Callable[[bytes], bool], within_s: float) -> None:
        """Have what comes written in the turn in which it comes, for so long, or until that does not do any more.

        write: returns whether more may come. Only for a reader that keeps up.
        """
        relay = self._relay
        assert relay is not None, "who reads a journal fetches"
        self._hold.release()
        self._write = write
        rested = self._rested = asyncio.get_running_loop().create_future()
        relay.push_to(self)
        try:
            await asyncio.wait([rested], timeout=within_s)
        finally:
            relay.push_no_more(self)

    def take(self) -> None:
        """Write what has come; where that does not do any more, whoever waits in `push` goes on by reading."""
        relay, place = self._relay, self.place
        assert relay is not None
        assert place is not None
        found = self._kept(relay, place) if relay.bytes_since(place) <= SHORT_BYTES else None
        goes_on = found is not None and (not found or self._write(found))
        if not goes_on or not self.keeps_up:
            relay.push_no_more(self)
            self.rest()

    def rest(self) -> None:
        """Let who waits in `push` go on, and look what has become of its reader."""
        if self._rested is not None and not self._rested.done():
            self._rested.set_result(None)

    async def read(self, within_s: float) -> bytes:
        """Return what comes next; b"" if nothing has within this time, or nothing will."""
        number = self.number
        self._hold.release()
        block = await self._read(within_s)
        if len(block) > SHORT_BYTES:
            self._hold = self._owner.room.hold()
            try:
                self._hold.grow(len(block))
            except ports.NoRoom:
                self.number = number
                return self.fail(OVERLOADED, "too much is on its way to readers who do not read", retriable=True)
        return block

    async def _read(self, within_s: float) -> bytes:
        if self.over:
            return b""
        if self._relay is not None:
            if self.place is None:
                self.place = self._relay.place(self.number)
            if self.place is not None:
                await self._relay.wait(self.place, within_s)
                found = self._kept(self._relay, self.place)
                if found is not None:
                    return found
                self.place = None
        return await self._journalled(within_s)

    def _kept(self, relay: Relay, place: int) -> bytes | None:
        """What the relay has of it; None if it does not keep that any more."""
        found = relay.since(place, self._owner.read_bytes)
        if found is None:
            return None
        parts, self.place = found
        if parts:
            self.number = relay.number(self.place)
        self.over = relay.over and self.place == relay.position
        if self._id_json is not None:
            return b"".join(streams.address_one(part, self._id_json) for part in parts)
        return b"".join(parts)

    async def _journalled(self, within_s: float) -> bytes:
        until = monotonic() + within_s
        while True:
            try:
                passage = await self._journal.read(self.head.call_id, self.number, at_most=self._owner.read_bytes)
            except ports.LiveUnavailable:
                if monotonic() - self._seen_at > BLIND_S:
                    return self.fail(UNAVAILABLE, "the stream's journal cannot be read")
            else:
                self._seen_at = monotonic()
                found = self._told(passage)
                if self._owner.closed and self._relay is None and not self.over:
                    return found + self.fail(SHUTDOWN, "the gateway is shutting down", retriable=True)
                if found or self.over:
                    self._pause_s = SOON_S
                    self._said_at = monotonic()
                    return found
                if monotonic() - self._said_at > LOOK_S and await self._is_gone():
                    return self.fail(LOST, "the stream's journal is not there any more")
            left_s = until - monotonic()
            if left_s <= 0:
                return b""
            await asyncio.sleep(min(self._pause_s, left_s))
            self._pause_s = min(2 * self._pause_s, LATER_S)

    async def _is_gone(self) -> bool:
        """Whether Redis has forgotten the stream, so that nothing more will come."""
        self._said_at = monotonic()
        try:
            return await self._journal.find(self.head.call_id) is None
        except ports.LiveUnavailable:
            return False

    def _told(self, passage: ports.Passage) -> bytes:
        """What a passage says, for this reader."""
        parts: list[bytes] = []
        for number, raw in passage.events:
            if number != self.number + 1:
                return b"".join((*parts, self.fail(LOST, "events of the stream were lost, or are not kept any more")))
            self.number = number
            parts.append(self._wire(raw, number))
        if passage.ended:
            self.over = True
            if passage.number > self.number + 1:
                return b"".join((*parts, self.fail(LOST, "events of the stream were lost, or are not kept any more")))
            if passage.number == self.number:  # it has heard that, too
                pass
            elif passage.interrupted:
                parts.append(self._interrupted())
            elif passage.error is not None:
                parts.append(self._farewell(passage.error))
        return b"".join(parts)

    def _wire(self, raw: bytes, number: int) -> bytes:
        if self._id_json is not None:
            raw = streams.address_one(raw, self._id_json)
        return streams.numbered(raw, self.head.call_id, number)

    def _farewell(self, error: bytes) -> bytes:
        self.number += 1
        raw = farewells.error_event(error, self._id_json or self.head.id_json, plain=self.head.plain)
        return streams.numbered(raw, self.head.call_id, self.number)

    def _interrupted(self) -> bytes:
        """Say that the replica that relayed it has died, and has written no more than this."""
        ended, head = answers.classify(outcomes.Orphaned()), self.head
        said = farewells.of_ended(ended, call_id=head.call_id, last=self.number, plain=head.plain)
        assert said is not None
        return self._farewell(said)

    def fail(self, code: str, sentence: str, *, retriable: bool = False) -> bytes:
        """Say that there is more, and that it is not to be had here; without an id, that nobody goes on behind it.

        retriable: it is to be had elsewhere.
        """
        self.over = True
        call_id, plain = self.head.call_id, self.head.plain
        error = farewells.failure(code, sentence, call_id=call_id, last=self.number, retriable=retriable, plain=plain)
        return farewells.error_event(error, self._id_json or self.head.id_json, plain=plain)
