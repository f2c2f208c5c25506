"""The records of calls in Redis: what they are called, how long they are kept, and how they are read back."""

import math
from dataclasses import replace
from typing import Final

import orjson

from gateway.core.claims import Claim
from gateway.core.journey import Arrival, Journey
from gateway.ports import Orphan, Travelling

ENDLESS_S: Final = 86_400.0
"""How long the record of a call without a limit is kept."""
AFTER_S: Final = 60.0
"""How long a call that has ended is known as the one above those that it has started."""
MONTH_S: Final = 40 * 86_400.0
"""How long what was spent in a month is kept."""


class Keys:
    """The names of everything that replicas share, all of which begin with `prefix`.

    `replicas`: the set of those that may have calls in flight. `leases`, `calls`: what the leases of replicas, and the
    records of calls, begin with.
    """

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.replicas = f"{prefix}:replicas"
        self.leases = f"{prefix}:replica:"
        self.calls = f"{prefix}:call:"

    def bucket(self, payer: str) -> str:
        """Return where the rate of a payer is kept."""
        return f"{self._prefix}:rate:{payer}"

    def call(self, call_id: str) -> str:
        """Return where a call is kept."""
        return f"{self.calls}{call_id}"

    def in_hands_of(self, replica: str) -> str:
        """Return the set of the calls that a replica has in its hands."""
        return f"{self._prefix}:calls:{replica}"

    def lease(self, replica: str) -> str:
        """Return the lease of a replica."""
        return f"{self.leases}{replica}"

    def claim(self, claim: Claim) -> str:
        """Return where it is kept whose call has a message."""
        return f"{self._prefix}:message:{claim.key}"

    def serving(self, trace_id: str, workspace_id: str) -> str:
        """Return where it is kept which call a workspace serves in a trace."""
        return f"{self._prefix}:serving:{trace_id}:{workspace_id}"

    def spend(self, target_id: str, month: str) -> tuple[str, str]:
        """Return where it is kept what was spent in a month, and what is reserved of it."""
        return f"{self._prefix}:spend:{target_id}:{month}", f"{self._prefix}:reserved:{target_id}:{month}"


def read_travelling(
    call_id: str,
    target: bytes,
    caller: bytes,
    method: bytes,
    age_ms: int,
    limit_ms: int,
    journey: bytes,
    ended: bytes,
) -> Travelling:
    """Return a call as the script `find` answers it."""
    return Travelling(
        call_id=call_id,
        target_id=target.decode(),
        caller_id=caller.decode() or None,
        method=method.decode(),
        age_s=age_ms / 1000,
        journey=_within(Journey.from_json(orjson.loads(journey)), limit_ms),
        arrival=Arrival.from_json(orjson.loads(ended)) if ended else None,
    )


def read_orphan(
    call_id: bytes,
    target: bytes,
    caller: bytes,
    method: bytes,
    trace: bytes,
    age_ms: int,
    journey: bytes,
    ended: bytes,
) -> Orphan:
    """Return a call as the script `inherit` answers it."""
    return Orphan(
        call_id=call_id.decode(),
        target_id=target.decode(),
        caller_id=caller.decode() or None,
        method=method.decode(),
        trace_id=trace.decode(),
        age_s=age_ms / 1000,
        journey=Journey.from_json(orjson.loads(journey)) if journey else None,
        arrival=Arrival.from_json(orjson.loads(ended)) if ended else None,
    )


def _within(journey: Journey, limit_ms: int) -> Journey:
    """Return the journey with the limit that it has got, where the call that it serves leaves it less than it wants."""
    if limit_ms < 0 or (journey.limit_s is not None and ms(journey.limit_s) <= limit_ms):
        return journey
    return replace(journey, limit_s=limit_ms / 1000, by_deadline=True)


def ms(seconds: float) -> int:
    """Return whole milliseconds, as scripts take times: a little more rather than less."""
    return math.ceil(seconds * 1000)
