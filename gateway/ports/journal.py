"""Streams as replicas share them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamHead:
    """How a stream begins: the answer's status and headers. id_json: of the request that it answers. plain: the request
    was one of HTTP+JSON, whose events have no JSON-RPC around them."""

    call_id: str
    workspace_id: str
    status: int
    headers: Mapping[str, str]
    id_json: bytes | None
    plain: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """What a journal has of a stream behind some event: events by their numbers, in order, and whether that is its end.

    number: of the end, where there is one. error: what its last event says if it has not completed. interrupted: the
    replica that relayed it has died, and nobody has said more than that.
    """

    events: Sequence[tuple[int, bytes]] = ()
    ended: bool = False
    number: int = 0
    error: bytes | None = None
    interrupted: bool = False


class Journal(Protocol):
    """`live/journal.py`: streams as all replicas can read them, for a while. What is written is on its way at once, and
    lost while Redis is away. Those that read may raise LiveUnavailable."""

    def begin(self, head: StreamHead) -> None:
        """Let a stream begin."""

    def name(self, workspace_id: str, task_id: str, call_id: str) -> None:
        """Say whose stream tells of a task."""

    def append(self, call_id: str, number: int, raw: bytes) -> None:
        """Write the next event."""

    def end(self, call_id: str, number: int | None, error: bytes | None) -> None:
        """Write the end, unless another process has. number: None where the replica has died that knew it."""

    def is_ahead(self, call_id: str) -> bool:
        """Return whether more of this stream is on its way than should be: others have to wait behind it."""

    async def catch_up(self, call_id: str) -> None:
        """Wait until that is not so, at most until Redis counts as away."""

    def written(self, call_id: str) -> int | None:
        """Return the number of the last event that is known to be there; None once one is not, or after the end."""

    async def find(self, call_id: str) -> StreamHead | None:
        """Return how a stream began; None: there is none, or no more."""

    async def find_call(self, workspace_id: str, task_id: str) -> str | None:
        """Return the call whose stream tells of a task."""

    async def add(self, call_id: str, event: bytes) -> None:
        """Keep an event of a call whose agent polls, for the caller that streams."""

    async def list_added(self, call_id: str, after: str) -> Sequence[tuple[str, bytes]]:
        """Return the events that were kept after one of these places, "" for all, with their places."""

    async def read(self, call_id: str, after: int, *, at_most: int) -> Passage:
        """Return what comes behind an event and fits into so many bytes, at least one event."""
