"""How an event travels through Redis: a header of eight words, then its exact JSON bytes."""

import re
from dataclasses import dataclass, field
from typing import Final

from events.event import Event

VERSION: Final = b"1"
_SIGN: Final = b"s"
_OTHER: Final = b"-"
LIVE: Final = b"-"
"""In the place of an id: the event is not in the journal."""
_PLACE: Final = rb"\d{1,20}-\d{1,20}"
_WORD: Final = rb"[0-9A-Za-z._*-]+"
_HEADER: Final = re.compile(
    rb"%b (-|%b) (%b) (%b) (%b) ([s-]) (\d{1,20}) (?=.)" % (VERSION, _PLACE, _PLACE, _WORD, _WORD)
)
"""No word of it can end a line or a JSON string: they may be put into an SSE block as they are."""


class MalformedFrame(ValueError):
    """Bytes on the channel that are no frame of this version."""


Position = tuple[int, int]
"""A place in the journal, comparable: the two numbers of a Redis stream id."""

ORIGIN: Final[Position] = (0, 0)
"""The place before the first entry."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Frame:
    """An event as it was heard. `place` is its own in the journal, None if it is not kept; `prev` the one before it."""

    place: Position | None
    prev: Position
    event: Event
    blocks: dict[str, bytes] = field(default_factory=dict, compare=False, repr=False)
    """How it looks to readers, by style, once somebody has asked."""

    @property
    def id(self) -> str | None:
        """The place as readers know it."""
        return None if self.place is None else show(self.place)


def before(place: Position) -> Position:
    """Return the place just before this one, where nothing else can be."""
    return (place[0], place[1] - 1) if place[1] else (place[0] - 1, 2**64 - 1)


def is_place(id_: str | None) -> bool:
    """Whether a reader may come back to this id: none, or the place before all, would give it everything once more."""
    return id_ not in (None, "", show(ORIGIN))


def show(place: Position) -> str:
    """Return a place as Redis and readers write it."""
    return f"{place[0]}-{place[1]}"


def _read(text: bytes) -> Position:
    left, _, right = text.partition(b"-")
    return int(left), int(right)


def find_position(text: str) -> Position | None:
    """Return the place that an id names, or None if it is not an id of the journal."""
    left, dash, right = text.partition("-")
    if not dash or not (left.isascii() and left.isdigit() and right.isascii() and right.isdigit()):
        return None
    if len(left) > 20 or len(right) > 20:
        return None
    return int(left), int(right)


def body(event: Event) -> bytes:
    """Return what the publisher knows of a frame: all but version, id and prev, which the script puts before it."""
    flag = _SIGN if event.sign else _OTHER
    return b"%b %b %b %d %b" % (event.workspace_id.encode(), event.type.encode(), flag, event.at_ms, event.payload)


def parse(raw: bytes) -> Frame:
    """Return the frame in these bytes; raises MalformedFrame."""
    words = _HEADER.match(raw)
    if words is None or b"\n" in raw or b"\r" in raw:
        raise MalformedFrame(raw[:80])
    id_, prev, workspace_id, type_, flag, at_ms = words.groups()
    event = Event(
        type=type_.decode(),
        workspace_id=workspace_id.decode(),
        payload=raw[words.end() :],
        sign=flag == _SIGN,
        at_ms=int(at_ms),
    )
    return Frame(place=None if id_ == LIVE else _read(id_), prev=_read(prev), event=event)


def entry(id_: bytes, prev: bytes, rest: bytes) -> Frame:
    """Return the frame of a journal entry; raises MalformedFrame."""
    return parse(b" ".join((VERSION, id_, prev, rest)))
