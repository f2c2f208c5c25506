"""A reader's place among the events: written to at once while it keeps up, pulling from the ring while it does not."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Protocol

import orjson

from events.event import GAP, gap
from events.frame import Frame, Position, show
from events.ring import Lane, Ring

PART_BYTES: Final = 64 * 1024
"""What is written at once of an event that is larger."""
OK: Final = "ok"
"""How well a process hears that hears everything."""
SCAN_FRAMES: Final = 1000
"""How many frames one `pull` looks at: who wants few of many does not keep the loop from everything else."""


@dataclass(frozen=True, kw_only=True)
class Style:
    """How readers of one kind want their events. Each function returns bytes ready for the wire, once wrapped."""

    name: str
    block: Callable[[Frame], bytes]
    parts: Callable[[Frame], list[bytes]]
    """A large event's block, in parts of PART_BYTES or so."""
    wrap: Callable[[bytes], bytes]
    bus: Callable[[str], bytes]
    gap: Callable[[str, str, str, str], bytes]
    """Frames a loss: the reason, the id before it, the id after it, and where to read again."""


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a reader wants to hear: of these workspaces, events of these types; None for all.

    `resync` is where one who wants more than one workspace reads again after a loss.
    """

    workspaces: frozenset[str] | None = None
    types: frozenset[str] | None = None
    resync: str = "/workspaces"

    @property
    def only(self) -> str | None:
        """The one workspace that is wanted, if it is one."""
        return next(iter(self.workspaces)) if self.workspaces is not None and len(self.workspaces) == 1 else None

    def has(self, frame: Frame) -> bool:
        """Return whether this frame is wanted; a gap always is."""
        event = frame.event
        if event.type == GAP:
            return True
        if self.workspaces is not None and event.workspace_id not in self.workspaces:
            return False
        return self.types is None or event.type in self.types


class Sink(Protocol):
    """Where a reader's bytes go. Called in the hub's own turn: must not wait and must not raise."""

    def write(self, blob: bytes) -> bool:
        """Write at once; False if enough is waiting to be read there: the rest is fetched with `pull`."""

    def stir(self) -> None:
        """Learn that there is something to pull."""


class Subscription:
    """One reader's place. It keeps up (`cursor` is None), or has a cursor into its channel's lane and pulls.

    `joined` is the cursor at which it last came to keep up: the next window may begin before that.
    """

    __slots__ = ("_channel", "_since", "_told", "cursor", "joined", "sink")

    def __init__(self, channel: "Channel", sink: Sink) -> None:
        self._channel = channel
        self._since = channel.newest
        self._told = OK
        self.sink = sink
        self.cursor: int | None = None
        self.joined = 0

    @property
    def channel(self) -> "Channel":
        """Those who want the same."""
        return self._channel

    @property
    def keeps_up(self) -> bool:
        """Whether it is written to at once."""
        return self.cursor is None

    @property
    def at_rest(self) -> bool:
        """Whether all that it wants has been written, so that its cursor may be moved to the present."""
        return self.cursor is None and not self._channel.window and not self._channel.being_served

    def gap(self, reason: str, since: str) -> bytes:
        """Return the block that tells of a loss up to the present, and go on from here by pulling."""
        self.hold()
        channel = self._channel
        return channel.style.gap(reason, since, show(channel.newest), channel.resync)

    def hold(self) -> None:
        """Stop being written to, here in the present; go on by pulling."""
        self.fall_behind(self._channel.lane.end, self._channel.newest)

    def rewind(self, place: Position) -> None:
        """Go back to just after this place."""
        self.fall_behind(self._channel.lane.after(place), place)

    def fall_behind(self, cursor: int, since: Position) -> None:
        """Stop being written to; go on by pulling from this cursor, which comes just after this place."""
        self._channel.current.pop(self, None)
        self.cursor = cursor
        self._since = since

    def rejoin(self) -> None:
        """Pull what it already has a part of: the window that has just been written to others."""
        self.fall_behind(self.joined, self._since)

    def keep_up(self) -> None:
        """Be written to from the next window on."""
        self._channel.settle()
        self.joined = self._channel.lane.end if self.cursor is None else self.cursor
        self.cursor = None
        self._channel.current[self] = None

    def tell(self) -> None:
        """Write how well this process hears, unless that is known; who pulls learns it by pulling, between blocks."""
        channel = self._channel
        if self.keeps_up and self._told != channel.told:
            self._told = channel.told
            self.sink.write(channel.style.wrap(channel.style.bus(channel.told)))

    @property
    def due(self) -> Frame | None:
        """What comes next, if it is wanted and by reference: its whole is elsewhere, and `pull` stops before it."""
        if self.cursor is None or not self._channel.lane.start <= self.cursor < self._channel.served:
            return None
        frame = self._channel.lane[self.cursor]
        return frame if frame.event.reference is not None and self._channel.wanted.has(frame) else None

    def take(self) -> None:
        """Count what is due as pulled."""
        assert self.cursor is not None, "who keeps up has nothing due"
        frame = self._channel.lane[self.cursor]
        assert frame.place is not None, "only frames of the journal are held"
        self.cursor += 1
        self._since = frame.place

    def pull(self, limit_bytes: int) -> bytes:
        """Return the blocks that come next, of `limit_bytes` and one more at most.

        Nothing if it keeps up again; if an event by reference is `due`; or if none of the next SCAN_FRAMES frames is
        wanted: then there is more to pull.
        """
        channel, lane = self._channel, self._channel.lane
        assert self.cursor is not None, "who keeps up has nothing to pull"
        blocks: list[bytes] = []
        if self._told != channel.told:
            self._told = channel.told
            blocks.append(channel.style.bus(channel.told))
        if self.cursor < lane.start:
            reached = lane[lane.start].prev if len(lane) else channel.newest
            overrun = Frame(place=reached, prev=self._since, event=gap("overrun"))
            blocks.append(channel.block(overrun))
            self.cursor, self._since = lane.start, reached
        size, scan_to = 0, min(channel.served, self.cursor + SCAN_FRAMES)
        while self.cursor < scan_to and size < limit_bytes:
            frame = lane[self.cursor]
            assert frame.place is not None, "only frames of the journal are held"
            wanted = channel.wanted.has(frame)
            if wanted and frame.event.reference is not None:
                break
            self.cursor += 1
            self._since = frame.place
            if wanted:
                block = channel.block(frame)
                blocks.append(block)
                size += len(block)
        if not blocks and self.cursor >= channel.served:
            self.keep_up()
        return b"".join(blocks)


class Channel:
    """Readers who want the same in the same style; what those who keep up get is framed once, for all of them together.

    `served` is the lane's cursor up to which they have been served, and `reached` the place before it; `window` is what
    has come since. `told` is how well this process hears.
    """

    def __init__(self, ring: Ring, wanted: Wanted, style: Style) -> None:
        self._ring = ring
        self.wanted = wanted
        self.style = style
        self.lane: Lane = ring.pin(wanted.only) if wanted.only is not None else ring.everything
        self.served = self.lane.end
        self.reached = ring.newest
        self.window: list[Frame] = []
        self.being_served = False
        self.current: dict[Subscription, None] = {}
        self.subscriptions: dict[Subscription, None] = {}
        self.told = OK

    @property
    def newest(self) -> Position:
        """The last place that this process has heard of."""
        return self._ring.newest

    def close(self) -> None:
        """Let go of the lane."""
        if self.wanted.only is not None:
            self._ring.unpin(self.wanted.only)

    @property
    def resync(self) -> str:
        """Where these readers read again after a loss."""
        return self.wanted.resync if self.wanted.only is None else f"/workspaces/{self.wanted.only}"

    def block(self, frame: Frame) -> bytes:
        """Return a frame's block, made once."""
        if frame.event.type == GAP:
            reason = orjson.loads(frame.event.payload)["reason"]
            return self.style.gap(reason, show(frame.prev), frame.id or "", self.resync)
        block = frame.blocks.get(self.style.name)
        if block is None:
            block = frame.blocks[self.style.name] = self.style.block(frame)
        return block

    def settle(self) -> None:
        """Count what nobody here wanted as served."""
        if not self.window:
            self.served, self.reached = self.lane.end, self.newest

    def take_window(self) -> bytes | None:
        """Return what has come since the last time, for those who keep up: now it counts as served.

        None if some of it is by reference: then they all have to pull it.
        """
        window, self.window = self.window, []
        self.served, self.reached = self.lane.end, self.newest
        if any(frame.event.reference is not None for frame in window):
            return None
        return self.style.wrap(b"".join(map(self.block, window)))
