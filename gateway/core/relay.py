"""An agent's event stream, cut into whole events as it comes: no reader ever gets a part of one.

An event keeps its own bytes but for what a relay must not pass on: its `id:` lines, because ids are the relay's own. Of
what stands between events only comments are passed on, without the blank line after them: published clients take that
for the end of an empty event, and crash. So they do with events that have no data, which are left out.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

_LINE_END: Final = re.compile(rb"\r\n|\n|\r")
"""Not what is before it: a search for that would begin anew at each byte of a long line."""
_DATA: Final = b"data:"
_BOM: Final = b"\xef\xbb\xbf"
LINE_COST: Final = 64
"""What a line counts at least: a million short ones take more than their bytes."""


class TooLong(Exception):
    """An event is longer than one may be."""


@dataclass(frozen=True, slots=True)
class Event:
    """A whole event: its bytes up to the blank line that ends it, and what its data says (UTF-8)."""

    raw: bytes
    data: bytes


@dataclass(frozen=True, slots=True)
class Comment:
    """A line between two events that says nothing, but that somebody is there."""

    raw: bytes


class Framer:
    """Cuts one stream. No event may be longer than limit_bytes."""

    __slots__ = (
        "_comment",
        "_crlf",
        "_data",
        "_held",
        "_limit_bytes",
        "_lines",
        "_parts",
        "_started",
        "_swallow",
        "last_id",
    )

    def __init__(self, limit_bytes: int) -> None:
        self._limit_bytes = limit_bytes
        self._parts: list[bytes] = []
        self._lines: list[bytes] = []
        self._data: list[bytes] = []
        self._held = 0
        self._started = False
        self._swallow = False
        self._crlf = False
        self._comment = b""
        self.last_id: bytes | None = None
        """The id that the agent itself gave last."""

    def __repr__(self) -> str:
        return f"<Framer held={self._held}>"

    @property
    def held_bytes(self) -> int:
        """What is held of an event that is incomplete."""
        return self._held

    @property
    def idle(self) -> bool:
        """Whether nothing of an event is held."""
        return not self._held

    def feed(self, chunk: bytes) -> Iterator[Event | Comment]:
        """Take the next bytes, and yield what is complete with them; raises TooLong.

        Where a line ends with CR at the end of a chunk it has ended: an LF that follows belongs to it. Clients that
        know no CR get that LF all the same, where the lines of this stream end so.
        """
        if self._comment and chunk:
            comment, self._comment = self._comment, b""
            if chunk[0] == 10:
                chunk = chunk[1:]
                comment += b"\n"
                self._crlf = True
            yield Comment(comment)
        if self._swallow and chunk:
            self._swallow = False
            if chunk[0] == 10:
                chunk = chunk[1:]
                self._crlf = True
                if self._lines and self._lines[-1].endswith(b"\r"):
                    self._lines[-1] += b"\n"
        if not self._started:
            chunk = b"".join((*self._parts, chunk))
            self._parts = [chunk]
            if _BOM.startswith(chunk) and chunk != _BOM:
                return
            self._started = True
            self._parts.clear()
            chunk = chunk.removeprefix(_BOM)
        if not self._held and self._is_plain(chunk):
            yield Event(chunk, chunk[len(_DATA) : -2].removeprefix(b" "))
            return
        at = 0
        for match in _LINE_END.finditer(chunk):
            line = chunk[at : match.end()]
            at = match.end()
            if line.endswith(b"\r\n"):
                self._crlf = True
            elif self._crlf and at == len(chunk) and line.endswith(b"\r"):
                line += b"\n"
            if self._parts:
                self._held -= sum(map(len, self._parts))
                line = b"".join((*self._parts, line))
                self._parts.clear()
            if not self._crlf and at == len(chunk) and line.endswith(b"\r") and self._is_comment(line):
                self._take(line)  # which may be too long
                self._comment = line  # it waits for its LF, if it has one
            elif (done := self._take(line)) is not None:
                yield done
        if at < len(chunk):
            self._hold(len(chunk) - at)
            self._parts.append(chunk[at:])
        elif chunk.endswith(b"\r") and not self._comment:
            self._swallow = True

    def _is_plain(self, chunk: bytes) -> bool:
        """Whether this is one event of one line of data, as nearly all are: then there is nothing to look for."""
        return (
            chunk.startswith(_DATA)
            and chunk.endswith(b"\n\n")
            and chunk.find(b"\n") == len(chunk) - 2
            and b"\r" not in chunk
            and max(len(chunk), LINE_COST) <= self._limit_bytes
        )

    def _is_comment(self, line: bytes) -> bool:
        """Whether a line is a comment between two events."""
        return line.startswith(b":") and not self._lines

    def finish(self) -> Event | None:
        """Return the event that lacked nothing but the end of its last line, or the blank line; None if none is held.

        Whether it is whole is for whoever reads its data to say.
        """
        if self._parts:
            line = b"".join(self._parts)
            self._parts.clear()
            self._take(line + b"\n")
        return self._end(b"\r" if self._lines and self._lines[-1].endswith(b"\r") else b"\n")

    def _hold(self, count: int) -> None:
        self._held += count
        if self._held > self._limit_bytes:
            raise TooLong

    def _take(self, line: bytes) -> Event | Comment | None:
        """Take a line with its end; return what is complete with it."""
        text = line.rstrip(b"\r\n")
        if not text:
            return self._end(line)
        if self._held + len(text) > self._limit_bytes:  # one that is not kept, too: in pieces it would have been
            raise TooLong
        if self._is_comment(line):
            return Comment(line)
        name, _, value = text.partition(b":")
        if name == b"id":
            self.last_id = value.removeprefix(b" ")
            return None
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
        self._hold(max(len(line), LINE_COST))
        self._lines.append(line)
        return None

    def _end(self, blank: bytes) -> Event | None:
        lines, data = self._lines, self._data
        self._held = 0
        if not lines:
            return None
        self._lines, self._data = [], []
        if not data:
            return None
        if blank == b"\n" and lines[-1].endswith(b"\r"):
            blank = b"\r"  # there was an id between them: together they would be the end of one line
        return Event(b"".join(lines) + blank, data[0] if len(data) == 1 else b"\n".join(data))
