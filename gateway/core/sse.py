"""Server-sent events out of bytes, however they were cut (WHATWG HTML, 9.2).

What the standard leaves open: an event has a size bound, and keeps its data as bytes.
"""

from dataclasses import dataclass
from typing import Final

MAX_ID_CHARS: Final = 1024
"""A longer id is not kept as the place to go on from."""
MAX_RETRY_DIGITS: Final = 9
_BOM: Final = b"\xef\xbb\xbf"
_COMMENT: Final = ord(":")


@dataclass(frozen=True, kw_only=True, slots=True)
class ServerEvent:
    """One event. `data`: its bytes, lines joined by LF, not looked at; `id`: its own, None where it names none."""

    type: str
    data: bytes
    id: str | None = None


class EventParser:
    """Takes bytes as they come and gives the events that they complete; what is incomplete at the end is none.

    limit_bytes: the largest event, all its lines together. Of a larger one nothing is kept; it is counted in `dropped`.
    `last_id`: the place to go on from, "" for none. `retry_ms`: how long the server wants to be left alone between two
    connections, None if it has not said. `comments`: how many there were.
    """

    def __init__(self, *, limit_bytes: int, last_id: str = "") -> None:
        self._limit_bytes = limit_bytes
        self._line = bytearray()
        self._cut = False  # the line is longer than kept
        self._begun = False
        self._after_cr = False
        self._next_id = last_id
        self._forget()
        self.last_id = last_id
        self.retry_ms: int | None = None
        self.comments = 0
        self.dropped = 0

    def __repr__(self) -> str:
        return f"<EventParser held={self.held_bytes} dropped={self.dropped}>"

    @property
    def held_bytes(self) -> int:
        """What is held of an event that is incomplete."""
        return len(self._line) + self._size

    def feed(self, data: bytes) -> list[ServerEvent]:
        """Return the events that these bytes complete, in order."""
        if self._after_cr and data:
            self._after_cr = False
            if data.startswith(b"\n"):
                data = data[1:]
        if b"\r" in data:
            self._after_cr = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if b"\n" not in data:
            self._hold(data)
            return []
        end, *lines, rest = data.split(b"\n")
        self._hold(end)
        first, self._line, cut, self._cut = bytes(self._line), bytearray(), self._cut, False
        if not self._begun:
            self._begun = True
            first = first.removeprefix(_BOM)
        events: list[ServerEvent] = []
        self._take(first, cut, events)
        for line in lines:
            self._take(line, False, events)
        self._hold(rest)
        return events

    def _hold(self, piece: bytes) -> None:
        """Hold a piece of a line; of one that is too long no more than says what it is."""
        room = self._limit_bytes + 1 - len(self._line)
        if len(piece) > room:
            self._cut = True
            piece = piece[:room]
        self._line += piece

    def _forget(self) -> None:
        self._data: list[bytes] = []
        self._type = ""
        self._id: str | None = None
        self._size = 0
        self._too_large = False

    def _take(self, line: bytes, cut: bool, events: list[ServerEvent]) -> None:
        if not line:
            self._end(events)
        elif line[0] == _COMMENT:
            self.comments += 1
        else:
            self._size += len(line) + 1
            if cut or self._size > self._limit_bytes:
                self._too_large, self._data, self._size = True, [], self._limit_bytes
            name, _, value = line.partition(b":")
            if not cut:
                self._field(name, value.removeprefix(b" "))

    def _field(self, name: bytes, value: bytes) -> None:
        if name == b"data":
            if not self._too_large:
                self._data.append(value)
        elif name == b"event":
            self._type = value.decode("utf-8", "replace")
        elif name == b"id":
            if b"\0" not in value and len(value) <= MAX_ID_CHARS:
                self._id = self._next_id = value.decode("utf-8", "replace")
        elif name == b"retry" and value.isdigit() and len(value) <= MAX_RETRY_DIGITS:
            self.retry_ms = int(value)

    def _end(self, events: list[ServerEvent]) -> None:
        self.last_id = self._next_id
        if self._too_large:
            self.dropped += 1
        elif self._data:
            events.append(ServerEvent(type=self._type or "message", data=b"\n".join(self._data), id=self._id))
        self._forget()
