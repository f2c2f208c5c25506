"""Requests that a proxy has passed on: none of them is from this machine, and a proxy that is not named is told of."""

from typing import Final

import structlog
from aiohttp import web

from gateway.core.clients import is_trusted
from gateway.web.parse import TRUSTED_PROXIES

log = structlog.get_logger("gateway.web")

SIGNS: Final = ("Forwarded", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto", "X-Real-IP", "Via")
"""What proxies add to a request."""


def is_passed_on(request: web.Request) -> bool:
    """Return whether a proxy says that it passes this on; its client may be anywhere."""
    return any(name in request.headers for name in SIGNS)


class Unnamed:
    """Warns, once, that a proxy is not named in GATEWAY_TRUSTED_PROXIES: all of its clients count as one address."""

    def __init__(self) -> None:
        self._told = False

    def note(self, request: web.Request) -> None:
        """Look at a request."""
        if self._told or "X-Forwarded-For" not in request.headers:
            return
        if not is_trusted(request.remote, request.app[TRUSTED_PROXIES]):
            self._told = True
            log.warning(
                "proxy_not_trusted",
                peer=request.remote,
                hint="its clients count as one address: name it in GATEWAY_TRUSTED_PROXIES if it is yours",
            )
