"""How a call travels that is sent to its agent: what it is allowed, and what has been seen of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gateway.core.endings import Ending


class Sign(StrEnum):
    """What sets the idle clock of a call back."""

    SENT = "sent"
    """Nothing since it was sent."""
    ANSWER = "answer"
    """Bytes of its own answer."""
    WORKSPACE = "workspace"
    """A sign of life of its workspace, on any replica."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Journey:
    """What is known of a call's way. None: not known here, or not yet.

    `replica`: who has it in its hands. `limit_s`: the caller's deadline if `by_deadline`, else a ceiling; None for no
    end. `attempts`: how often it was sent, or tried to be. Milliseconds are counted from its beginning. `status`: what
    its caller was answered. orjson writes it as it is stored.
    """

    replica: str
    idle_s: float
    limit_s: float | None
    by_deadline: bool
    sent_bytes: int
    attempts: int = 1
    received_bytes: int | None = None
    first_byte_ms: int | None = None
    reset_by: Sign | None = None
    reset_ms: int | None = None
    status: int | None = None

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Journey":
        """Return what was stored; raises KeyError where it is none."""
        reset_by = stored["reset_by"]
        return cls(
            replica=stored["replica"],
            idle_s=stored["idle_s"],
            limit_s=stored["limit_s"],
            by_deadline=stored["by_deadline"],
            sent_bytes=stored["sent_bytes"],
            attempts=stored["attempts"],
            received_bytes=stored["received_bytes"],
            first_byte_ms=stored["first_byte_ms"],
            reset_by=None if reset_by is None else Sign(reset_by),
            reset_ms=stored["reset_ms"],
            status=stored["status"],
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class Arrival:
    """The one end of a journey; orjson writes it as it is stored."""

    ending: Ending
    duration_ms: int
    journey: Journey

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> "Arrival":
        """Return what was stored; raises KeyError where it is none."""
        return cls(
            ending=Ending(stored["ending"]),
            duration_ms=stored["duration_ms"],
            journey=Journey.from_json(stored["journey"]),
        )
