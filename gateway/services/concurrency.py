"""How many calls one process has in its hands at once: a limit for all of them, and one for each payer."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

from gateway.core.refusals import Code, Refusal
from gateway.services.flights import Flights


class Concurrency:
    """`capacity` bounds the calls in flight, `share` those of one payer; past it callers come back later."""

    def __init__(self, flights: Flights, *, capacity: int, share: int) -> None:
        self._flights = flights
        self._capacity = capacity
        self._share = share
        self._of_payer: Counter[str] = Counter()
        self._closed = False

    def __repr__(self) -> str:
        return f"<Concurrency in_flight={len(self._flights)} payers={len(self._of_payer)}>"

    def __len__(self) -> int:
        """Return how many payers have a place."""
        return len(self._of_payer)

    def check(self, payer: str) -> None:
        """Refuse one more call of a payer with draining or overloaded, if there is no place for it."""
        if self._closed:
            raise Refusal(Code.DRAINING, "the gateway is shutting down", retry_after_s=5)
        if len(self._flights) >= self._capacity:
            raise Refusal(Code.OVERLOADED, "too many calls in flight", retry_after_s=2)
        if self._of_payer[payer] >= self._share:
            raise Refusal(Code.OVERLOADED, "too many calls in flight of this caller", retry_after_s=2)

    def take(self, payer: str) -> None:
        """Have a place, whether there is one or not, until it is given back."""
        self._of_payer[payer] += 1

    def give_back(self, payer: str) -> None:
        """Let a place go."""
        self._of_payer[payer] -= 1
        if not self._of_payer[payer]:
            del self._of_payer[payer]

    @contextmanager
    def joined(self, payer: str) -> Iterator[None]:
        """A place for who waits for the answer of an earlier call: they are shared as those in flight are.

        Refuses as `check` does.
        """
        self.check(payer)
        self.take(payer)
        try:
            yield
        finally:
            self.give_back(payer)

    def close(self) -> None:
        """Refuse new calls from now on."""
        self._closed = True
