"""How often somebody may ask: so many requests in a period, all at once or spread over it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum


class Tariff(Enum):
    """What a request counts as. Each has a bucket of its own for everybody, so that calls cannot use up heartbeats."""

    FREE = "free"
    CALL = "call"
    BEAT = "beat"
    REQUEST = "request"
    STRICT = "strict"
    FAILURE = "failure"


@dataclass(frozen=True, kw_only=True, slots=True)
class Rate:
    """A bucket of so many requests that fills within a period (seconds)."""

    requests: int
    period_s: float

    def __str__(self) -> str:
        return f"{self.requests}/{self.period_s:g}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """Where somebody stands: requests left at once, seconds until the bucket is full, and until it has one again."""

    limit: int
    remaining: int
    reset_s: float
    retry_s: float = 0.0

    @property
    def allowed(self) -> bool:
        """Whether the request that was counted may go on."""
        return self.retry_s <= 0

    def headers(self) -> Mapping[str, str]:
        """Return the X-RateLimit-* headers; times are whole seconds, rounded up."""
        return {
            "X-RateLimit-Limit": str(self.limit),
            "X-RateLimit-Remaining": str(self.remaining),
            "X-RateLimit-Reset": str(math.ceil(self.reset_s)),
        }
