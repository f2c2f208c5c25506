"""Signs of life of agents, as they are kept."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """One workspace waits for a call that it made to another, `age_s` seconds ago at the latest."""

    caller_id: str
    target_id: str
    age_s: float


class Liveness(Protocol):
    """`store/liveness.py`. Every method may raise StoreError."""

    async def record(self, beats: Sequence[Mapping[str, Any]]) -> None:
        """Write a batch of heartbeats, at most one a workspace."""

    async def touch(self, workspace_id: str) -> None:
        """Write a sign of life that is no heartbeat."""

    async def wait(self, waits: Sequence[Wait]) -> None:
        """Write that these wait, and with it the signs of life of those they wait for."""

    async def sign(self, workspace_ids: Sequence[str]) -> None:
        """Write that these have shown life just now, each by an event of its own."""

    async def silence(self, workspace_ids: Sequence[str]) -> Mapping[str, float]:
        """Return how many seconds each has been silent; one that was never heard is left out."""


class Silence(Protocol):
    """`services/silence.py`. May raise StoreError."""

    async def silence(self, workspace_ids: Sequence[str]) -> Mapping[str, float]:
        """Return how many seconds each has been silent; one that was never heard is left out."""
