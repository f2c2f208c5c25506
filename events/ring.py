"""The newest events, held once in this process for everybody who reads."""

from bisect import bisect_right
from collections import deque
from typing import Final

from events.event import EVERYWHERE
from events.frame import ORIGIN, Frame, Position, before

_FRAME_BYTES: Final = 900
"""What a frame costs in memory beside its payload and the block that is made of it, roughly."""


class Lane:
    """Frames in order: those of one workspace, or all. A cursor is a frame's number, counted from the first ever.

    `start` is the cursor of the oldest frame held, `end` the one that the next frame will have.
    """

    __slots__ = ("_base", "_frames", "_head")

    def __init__(self) -> None:
        self._frames: list[Frame | None] = []
        self._head = 0
        self._base = 0

    def __len__(self) -> int:
        return len(self._frames) - self._head

    def __getitem__(self, cursor: int) -> Frame:
        frame = self._frames[cursor - self._base]
        assert frame is not None, "a cursor before the start"
        return frame

    @property
    def start(self) -> int:
        """The cursor of the oldest frame held."""
        return self._base + self._head

    @property
    def end(self) -> int:
        """The cursor that the next frame will have."""
        return self._base + len(self._frames)

    def after(self, place: Position) -> int:
        """Return the cursor of the first frame after this place."""
        return self._base + bisect_right(self._frames, place, lo=self._head, key=_place)

    def append(self, frame: Frame) -> None:
        """Add the newest frame."""
        self._frames.append(frame)

    def drop_oldest(self) -> None:
        """Let go of the oldest frame; the numbers of the others stay."""
        self._frames[self._head] = None
        self._head += 1
        if self._head > 32 and self._head * 2 > len(self._frames):
            del self._frames[: self._head]
            self._base += self._head
            self._head = 0


def _place(frame: Frame | None) -> Position:
    assert frame is not None
    assert frame.place is not None, "only frames of the journal are held"
    return frame.place


class Ring:
    """The frames of the journal that this process holds: at most `max_frames`, of at most `max_bytes` in all.

    From `floor` on it has everything up to `newest`, or a gap where something is missing; places only go up, so a
    reader who was before a gap is told of it in its place. What concerns everywhere (gaps) stands in every lane.
    """

    def __init__(self, *, max_frames: int, max_bytes: int) -> None:
        self._max_frames = max_frames
        self._max_bytes = max_bytes
        self._lanes: dict[str, Lane] = {}
        self._readers: dict[str, int] = {}
        self._everywhere: deque[Frame] = deque()
        self._begun = False
        self.everything = Lane()
        self.bytes = 0
        self.floor = ORIGIN
        self.newest = ORIGIN

    def __len__(self) -> int:
        return len(self.everything)

    def __repr__(self) -> str:
        return f"<Ring frames={len(self)} bytes={self.bytes} lanes={len(self._lanes)}>"

    def begin(self, at: Position) -> None:
        """Let the empty ring begin after this place; before that it covers none."""
        assert not len(self), "only an empty ring can begin"
        self._begun = True
        self.floor = self.newest = at

    def append(self, frame: Frame) -> None:
        """Add the frame after the newest, and let go of what is too old or too much."""
        assert frame.place is not None, "only frames of the journal are held"
        assert frame.prev == self.newest, "frames are added without holes"
        assert frame.place > self.newest, "places go up"
        workspace_id = frame.event.workspace_id
        if workspace_id == EVERYWHERE:
            for lane in self._lanes.values():
                lane.append(frame)
            self._everywhere.append(frame)
        else:
            self._lane(workspace_id).append(frame)
        self.everything.append(frame)
        self.newest = frame.place
        self.bytes += _size(frame)
        while len(self) > self._max_frames or (self.bytes > self._max_bytes and len(self) > 1):
            self._drop_oldest()

    def _lane(self, workspace_id: str) -> Lane:
        lane = self._lanes.get(workspace_id)
        if lane is None:
            lane = self._lanes[workspace_id] = Lane()
            for gap in self._everywhere:
                lane.append(gap)
        return lane

    def _drop_oldest(self) -> None:
        cursor = self.everything.start
        frame = self.everything[cursor]
        assert frame.place is not None
        self.everything.drop_oldest()
        self.bytes -= _size(frame)
        self.floor = frame.place
        if frame.event.workspace_id == EVERYWHERE:
            self._everywhere.popleft()
            shortened = list(self._lanes)
        else:
            shortened = [frame.event.workspace_id]
        for workspace_id in shortened:
            self._lanes[workspace_id].drop_oldest()
            self._tidy(workspace_id)

    def _tidy(self, workspace_id: str) -> None:
        lane = self._lanes.get(workspace_id)
        if lane is not None and not lane and workspace_id not in self._readers:
            del self._lanes[workspace_id]

    def covers(self, place: Position) -> bool:
        """Return whether all that came after this place is held, with a gap for each loss; one unheard of is not."""
        if place == self.floor:
            return self._begun
        cursor = self.everything.after(place)
        if cursor == self.everything.start:
            return len(self) > 0 and place == before(_place(self.everything[cursor]))
        return self.everything[cursor - 1].place == place

    def pin(self, workspace_id: str) -> Lane:
        """Return the lane of a workspace, kept until `unpin` though it be empty, so that cursors into it stay good."""
        self._readers[workspace_id] = self._readers.get(workspace_id, 0) + 1
        return self._lane(workspace_id)

    def unpin(self, workspace_id: str) -> None:
        """Let go of a lane."""
        self._readers[workspace_id] -= 1
        if not self._readers[workspace_id]:
            del self._readers[workspace_id]
            self._tidy(workspace_id)


def _size(frame: Frame) -> int:
    return _FRAME_BYTES + 2 * len(frame.event.payload)
