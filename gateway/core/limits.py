"""How long a call may take in all, or be waited for, by who calls and what they ask for."""

import re
from dataclasses import dataclass
from typing import Final

from gateway.core.refusals import bad_field

_SECONDS: Final = re.compile(r"[0-9]{1,9}(?:\.[0-9]{1,9})?")

_WAIT: Final = re.compile(r'(?:^|,)\s*wait\s*=\s*"?([0-9]{1,9})"?\s*(?=[,;]|$)', re.IGNORECASE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Limit:
    """A total time in seconds, None for no end; `by_deadline` if it is the caller's own."""

    seconds: float | None
    by_deadline: bool = False


def read_timeout(header: str | None) -> float | None:
    """Return the seconds of an X-Timeout header, None without one; refuses what is no time."""
    if header is None:
        return None
    if _SECONDS.fullmatch(header) is None:
        raise bad_field("X-Timeout", "must be a number of seconds, 0 or more")
    return float(header)


def read_wait(header: str | None) -> float:
    """Return the seconds that a Prefer header would wait (RFC 7240, 4.3), 0 where it says nothing of it."""
    found = None if header is None else _WAIT.search(header)
    return 0.0 if found is None else float(found[1])


def decide_limit(wanted_s: float | None, *, by_workspace: bool, ceiling_s: float, max_s: float) -> Limit:
    """Return the total time of a call.

    wanted_s: X-Timeout; 0 lifts the ceiling. by_workspace: a workspace calls, so `max_s` holds whatever it asks for,
    because a wedged agent that still heartbeats is stopped by nothing else.
    """
    if wanted_s is None:
        return Limit(seconds=ceiling_s if by_workspace else None)
    if wanted_s == 0:
        return Limit(seconds=max_s if by_workspace else None)
    if by_workspace and wanted_s > max_s:
        return Limit(seconds=max_s)
    return Limit(seconds=wanted_s, by_deadline=True)
