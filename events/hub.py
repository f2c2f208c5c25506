"""Who hears what in this process: every frame goes to the readers of its workspace."""

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Protocol

from events.event import CHANGED
from events.frame import Frame


class Reader(Protocol):
    """Somebody who listens. Called in the bus's own turn: must not wait and must not raise."""

    def deliver(self, frame: Frame) -> None:
        """Take one frame."""

    def resync(self, reason: str) -> None:
        """Learn that frames may be missing from here on."""


class Hub:
    """The readers of one process, by workspace.

    on_sign hears every sign of life, on_change every wake-up for caches, and each of `taps` all events of one type.
    """

    def __init__(
        self,
        *,
        on_sign: Callable[[str], None],
        on_change: Callable[[], None],
        taps: Mapping[str, Callable[[Frame], None]] | None = None,
    ) -> None:
        self._on_sign = on_sign
        self._on_change = on_change
        self._taps = dict(taps or {})
        self._readers: defaultdict[str, dict[Reader, None]] = defaultdict(dict)
        self.cursor: str | None = None
        """The journal's last id as this process has heard it."""

    def __repr__(self) -> str:
        return f"<Hub workspaces={len(self._readers)} readers={self.readers}>"

    @property
    def readers(self) -> int:
        """How many listen."""
        return sum(len(readers) for readers in self._readers.values())

    @contextmanager
    def listening(self, workspace_id: str, reader: Reader) -> Iterator[None]:
        """Let this reader hear one workspace for as long as the block lasts."""
        self._readers[workspace_id][reader] = None
        try:
            yield
        finally:
            readers = self._readers[workspace_id]
            readers.pop(reader, None)
            if not readers:
                del self._readers[workspace_id]

    def hear(self, frame: Frame) -> None:
        """Give one frame to everybody it concerns."""
        event = frame.event
        self.cursor = frame.id or frame.prev
        if event.type == CHANGED:
            self._on_change()
            return
        if event.sign:
            self._on_sign(event.workspace_id)
        tap = self._taps.get(event.type)
        if tap is not None:
            tap(frame)
        readers = self._readers.get(event.workspace_id)
        if readers:
            for reader in list(readers):
                if reader in readers:  # one before it may have ended its listening
                    reader.deliver(frame)

    def lost(self, reason: str) -> None:
        """Tell every reader, and the caches, that frames may have been missed."""
        self._on_change()
        for readers in list(self._readers.values()):
            for reader in list(readers):
                reader.resync(reason)
