"""One reader's connection, once its answer has begun: no task waits for it, and nothing of its request is kept."""

import asyncio
import socket
from collections.abc import Iterable, Iterator
from typing import Any, Final, Protocol, cast

from aiohttp import web

from events.frame import Frame
from events.readers import Subscription

BUFFER_BYTES: Final = 64 * 1024
"""A reader with more than this unread does not keep up: it is fed from the ring, as fast as it reads."""
HEARD_BYTES: Final = 64 * 1024
"""What a reader may send after its request; none of it is read, and who sends more is let go."""


class Keeper(Protocol):
    """Who looks after streams. `now` is its clock, in seconds and no finer than it needs."""

    now: float

    def stir(self, stream: "Stream") -> None:
        """Learn that there may be something to pull for a stream, and room for it."""

    def fetch(self, stream: "Stream", due: Frame) -> None:
        """Bring a stream the parts of a large event, by `give`, and stir it."""

    def leave(self, stream: "Stream") -> None:
        """Learn that nothing more is to be written to a stream; may come twice."""

    def lose(self, stream: "Stream") -> None:
        """Learn that a stream's connection is closed."""


class Stream(asyncio.Protocol):
    """A sink of the hub, and the protocol of its own connection. `end` is what a stream of its style ends with."""

    __slots__ = (
        "_end",
        "_full",
        "_heard",
        "_keeper",
        "_parts",
        "_taken_at",
        "_transport",
        "_unread",
        "_waits",
        "_written_at",
        "subscription",
    )

    _transport: asyncio.Transport

    def __init__(self, keeper: Keeper, *, end: bytes) -> None:
        self._keeper = keeper
        self._end = end
        self._full = False
        self._heard = 0
        self._unread = 0
        self._waits = False
        self._parts: Iterator[bytes] | None = None
        self._taken_at = self._written_at = keeper.now
        self.subscription: Subscription | None = None

    # -- from the connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to be written to."""
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own do not inherit from it
        self._transport.set_write_buffer_limits(high=BUFFER_BYTES)

    def data_received(self, data: bytes) -> None:
        """Pay no heed to what a reader says, up to HEARD_BYTES."""
        self._heard += len(data)
        if self._heard > HEARD_BYTES:
            self._transport.abort()

    def pause_writing(self) -> None:
        """Learn that more is unread than a reader that keeps up may have."""
        self._full = True
        self._unread = self._transport.get_write_buffer_size()
        self._taken_at = self._keeper.now

    def resume_writing(self) -> None:
        """Learn that the reader has taken nearly all of it."""
        self._full = False
        self._keeper.stir(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """Leave at once, whatever else is going on."""
        self._keeper.lose(self)

    # -- from the hub

    def write(self, blob: bytes) -> bool:
        """Write at once; False if more is unread than a reader that keeps up may have."""
        self._transport.write(blob)
        self._written_at = self._keeper.now
        return not self._full

    def stir(self) -> None:
        """Learn that there is something to pull."""
        self._keeper.stir(self)

    # -- from its keeper

    @property
    def gone(self) -> bool:
        """Whether nothing can be written any more."""
        return self._transport.is_closing()

    def bound_silence(self, within_s: float) -> None:
        """Have the kernel find out when nobody is at the other end any more."""
        bound_silence(self._transport, within_s)

    def write_block(self, block: bytes) -> bool:
        """Write a block of this reader's own; False as `write`."""
        assert self.subscription is not None, "who has left is not written to"
        return self.write(self.subscription.channel.style.wrap(block))

    def pull(self) -> bool:
        """Write what comes next, for a reader that does not keep up; True if there is more that it has room for."""
        subscription = self.subscription
        if subscription is None or subscription.keeps_up or self._full or self._waits:
            return False
        if self._parts is not None:
            part = next(self._parts, None)
            if part is not None:
                return self.write_block(part)
            self._parts = None
        blocks = subscription.pull(BUFFER_BYTES)
        if blocks:
            return self.write_block(blocks)
        due = subscription.due
        if due is not None:
            subscription.take()
            self._waits = True
            self._keeper.fetch(self, due)
            return False
        return not subscription.keeps_up

    def hold(self) -> None:
        """Have nothing written until something is given: what its reader has missed comes first."""
        assert self.subscription is not None, "who has left is not held"
        self.subscription.hold()
        self._waits = True

    def give(self, parts: Iterable[bytes]) -> None:
        """Take the parts of the large event that it waits for, or nothing: they come before anything else."""
        self._waits = False
        self._parts = iter(parts)

    def is_stuck(self, drain_s: float) -> bool:
        """Whether much is unread, and nothing of it was taken for so long; each time that it is asked is a look."""
        if not self._full and not self.gone:
            return False
        unread, now = self._transport.get_write_buffer_size(), self._keeper.now
        if unread < self._unread:
            self._taken_at = now
        self._unread = unread
        return now - self._taken_at >= drain_s

    def is_silent(self, keepalive_s: float) -> bool:
        """Whether its reader has got all there is, and has heard nothing for so long."""
        if self.subscription is None or not self.subscription.at_rest:
            return False
        return self._keeper.now - self._written_at >= keepalive_s

    def end(self) -> None:
        """End the stream, after what waits for its reader if that keeps up; one that comes back resumes."""
        if self.gone:
            return
        self._keeper.leave(self)
        if self._full:
            self.abort()
        else:
            self._taken_at = self._keeper.now
            self._transport.write(self._end)
            self._transport.close()

    def abort(self) -> None:
        """Break the connection, with what still waits for its reader."""
        self._keeper.leave(self)
        self._transport.abort()


def take_over(request: web.Request, successor: asyncio.Protocol) -> bool:
    """Give the connection of a request whose answer has begun to another protocol; False if it is gone already.

    To aiohttp the connection is lost from then on: it lets go of all that it has made for it, the request too, as soon
    as the handler returns, and can write nothing more.
    """
    protocol: Any = request.protocol
    transport = protocol.transport
    if transport is None or transport.is_closing():
        return False
    full = protocol.writing_paused
    transport.set_protocol(successor)
    protocol.transport = None  # or it would close it
    protocol.connection_lost(None)
    if not transport.is_reading():  # it was held up by requests that came before their turn
        transport.resume_reading()
    successor.connection_made(transport)
    if full:
        successor.pause_writing()
    return True


def bound_silence(transport: asyncio.BaseTransport, within_s: float) -> None:
    """Let the kernel find out that nobody is at the other end any more: bytes that are not acknowledged (Linux)."""
    opened = transport.get_extra_info("socket")
    option = getattr(socket, "TCP_USER_TIMEOUT", None)
    if option is not None and opened is not None and opened.family in (socket.AF_INET, socket.AF_INET6):
        opened.setsockopt(socket.IPPROTO_TCP, option, int(within_s * 1000))
