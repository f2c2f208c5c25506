"""What a log says of something that is away: once that it went, once that it is back."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

import structlog

from gateway import ports

log = structlog.get_logger("gateway.outage")


class Outage:
    """One outage after the other of one thing; `what` names it in the log."""

    def __init__(self, what: str, *, now: Callable[[], float] = monotonic) -> None:
        self._what = what
        self._now = now
        self._since: float | None = None

    def failed(self, error: BaseException) -> None:
        """Note a failure; the first one is logged."""
        if self._since is None:
            self._since = self._now()
            log.warning("outage_began", what=self._what, error=f"{type(error).__name__}: {error}")

    def worked(self) -> None:
        """Note a success; the first one after a failure is logged."""
        if self._since is not None:
            log.warning("outage_ended", what=self._what, seconds=round(self._now() - self._since, 1))
            self._since = None

    @contextmanager
    def noted(self) -> Iterator[None]:
        """Note whether the block works; when a datastore is away, that is all that comes of it."""
        try:
            yield
        except (ports.StoreError, ports.LiveUnavailable) as error:
            self.failed(error)
        else:
            self.worked()
