"""What requests take out of their buckets, on all replicas together; while Redis is away they go free."""

import math
from collections.abc import Callable, Mapping
from time import monotonic
from typing import Final

from gateway import ports
from gateway.core.clients import bucket
from gateway.core.rates import Rate, Standing, Tariff
from gateway.core.refusals import Code, Refusal
from gateway.services.outage import Outage

BARRED: Final = 100_000
"""Payers remembered as barred; the oldest are forgotten, and told again by Redis."""

Rates = Mapping[Tariff, Rate | None]


class Toll:
    """What one request pays, out of whose bucket, and where that stands once it has."""

    __slots__ = ("free", "payer", "standing", "tariff")

    def __init__(self, tariff: Tariff, payer: str, *, free: bool = False) -> None:
        self.tariff = tariff
        self.payer = f"{tariff.value}:{payer}"
        self.free = free or tariff is Tariff.FREE
        self.standing: Standing | None = None


class Tolls:
    """Takes tolls. A payer whose bucket is empty is refused here until it has something again, without asking Redis."""

    def __init__(self, gate: ports.Gate, rates: Rates, *, now: Callable[[], float] = monotonic) -> None:
        self._gate = gate
        self._rates = rates
        self._now = now
        self._barred: dict[str, tuple[float, Standing]] = {}
        self._outage = Outage("counting requests")
        self.unchecked = 0
        """Requests that nobody counted, because Redis was away."""
        self.refused = 0
        """Requests refused for their number."""

    def __repr__(self) -> str:
        return f"<Tolls barred={len(self._barred)} refused={self.refused} unchecked={self.unchecked}>"

    def rate(self, toll: Toll) -> Rate | None:
        """Return the rate that holds for a request, None if none does."""
        return None if toll.free else self._rates[toll.tariff]

    def check(self, toll: Toll) -> None:
        """Refuse a request whose payer is known to have nothing left."""
        barred = self._barred.get(toll.payer)
        if barred is None:
            return
        left_s = barred[0] - self._now()
        if left_s <= 0:
            del self._barred[toll.payer]
            return
        was = barred[1]
        late_s = was.retry_s - left_s
        self._refuse(
            toll, Standing(limit=was.limit, remaining=0, reset_s=max(0.0, was.reset_s - late_s), retry_s=left_s)
        )

    async def take(self, toll: Toll) -> None:
        """Take what a request costs; refuses if there is nothing left."""
        rate = self.rate(toll)
        if rate is None:
            return
        self.check(toll)
        try:
            standing = await self._gate.take(toll.payer, rate)
        except ports.LiveUnavailable as error:
            self.missed(error)
            return
        self.settle(toll, standing)

    def settle(self, toll: Toll, standing: Standing) -> None:
        """Note where a payer stands; refuses if there was nothing left."""
        self._outage.worked()
        toll.standing = standing
        if standing.allowed:
            return
        while len(self._barred) >= BARRED:
            del self._barred[next(iter(self._barred))]
        self._barred[toll.payer] = (self._now() + standing.retry_s, standing)
        self._refuse(toll, standing)

    def missed(self, error: Exception) -> None:
        """Count a request that nobody counted."""
        self.unchecked += 1
        self._outage.failed(error)

    def _refuse(self, toll: Toll, standing: Standing) -> None:
        self.refused += 1
        toll.standing = standing
        retry_s = max(1, math.ceil(standing.retry_s))
        raise Refusal(Code.RATE_LIMITED, "too many requests", retry_after_s=retry_s, retry_after=retry_s)


def of_credential(token_hash: bytes) -> str:
    """Return the payer of who shows this credential."""
    return token_hash.hex()


def of_workspace(workspace_id: str) -> str:
    """Return the payer of who shows a token of this workspace, whichever: it can make itself as many as it likes."""
    return f"workspace:{workspace_id}"


def of_address(address: str) -> str:
    """Return the payer of who shows none."""
    return bucket(address)
