"""How many bytes of bodies this process holds, all together, and how many more fit."""

from typing import Final

from gateway.ports import NoRoom

FOR_REQUESTS: Final = 0.5
"""The share of all room that requests may fill: what agents have answered, at a cost, has more of it."""


class Room:
    """Counts bytes, roughly: a body is counted once, though it may be copied. `refused`: how often one did not fit."""

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self.held = 0
        self.refused = 0

    def __repr__(self) -> str:
        return f"<Room held={self.held} of {self._limit_bytes}>"

    @property
    def is_half_empty(self) -> bool:
        """Whether there is room for as much as is held."""
        return 2 * self.held <= self._limit_bytes

    def hold(self) -> "Hold":
        """Return what counts the bytes of one request and its answer; it is to be released."""
        return Hold(self)

    def take(self, count: int, share: float) -> None:
        """Count more bytes; raises NoRoom, and counts none of them, where this share of all room is full."""
        if self.held + count > self._limit_bytes * share:
            self.refused += 1
            raise NoRoom
        self.held += count


class Hold:
    """The bytes of one request and its answer (ports.Hold), until it is released: an answer that comes later, because
    nobody waits for it here any more, is let go at once."""

    __slots__ = ("_held", "_released", "_room")

    def __init__(self, room: Room) -> None:
        self._room = room
        self._held = 0
        self._released = False

    def grow(self, count: int) -> None:
        """Hold so many more bytes of an answer; raises NoRoom."""
        self._take(count, 1.0)

    def grow_by_request(self, count: int) -> None:
        """Hold so many more bytes of a request; raises NoRoom."""
        self._take(count, FOR_REQUESTS)

    def release(self) -> None:
        """Hold nothing any more; may come twice."""
        self._room.held -= self._held
        self._held = 0
        self._released = True

    def _take(self, count: int, share: float) -> None:
        if not self._released:
            self._room.take(count, share)
            self._held += count
