"""Whether a frame is the next one: a rule over the places that a journal's entries name."""

from collections.abc import Callable
from enum import Enum

from events.frame import Frame, Position


class Verdict(Enum):
    """What a frame is to a process that has heard everything up to a place."""

    NEXT = "it follows what was heard last, or belongs beside it"
    KNOWN = "it was heard before: the journal is read faster than the channel"
    DOUBT = "something is missing before it, or was taken back: the journal must be asked"


def judge(newest: Position, said: Position, frame: Frame, holds: Callable[[Position], bool]) -> Verdict:
    """Return what this frame is. `holds` tells whether a place is among those that were heard.

    A frame that is not in the journal names the journal's last id as its `prev`, so it tells of a lost last event.
    `said` is the last place that the same connection has named: it goes back only when the journal was taken back.
    """
    if frame.prev == newest and (frame.place is None or frame.place > newest):
        return Verdict.NEXT
    if frame.prev < said:
        return Verdict.DOUBT
    if frame.place is None:
        return Verdict.NEXT if frame.prev < newest and holds(frame.prev) else Verdict.DOUBT
    return Verdict.KNOWN if frame.place <= newest and holds(frame.place) else Verdict.DOUBT
