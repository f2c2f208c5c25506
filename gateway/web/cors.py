"""Which other sites' pages may ask, and how their browsers are told (the Fetch standard's CORS protocol)."""

from collections.abc import Collection
from typing import Final

from aiohttp import hdrs, web
from aiohttp.typedefs import Handler, Middleware

HEADERS: Final = (
    "Origin, Content-Type, Authorization, X-Workspace-ID, Last-Event-ID, X-Timeout, A2A-Version, A2A-Extensions, "
    "X-A2A-Call-ID, X-On-Disconnect, Prefer, traceparent, tracestate"
)
"""What a page may send."""
EXPOSED: Final = (
    "Retry-After, X-Request-ID, X-A2A-Call-ID, X-A2A-Resumable, X-RateLimit-Limit, X-RateLimit-Remaining, "
    "X-RateLimit-Reset"
)
"""What a page may read, beside what every page may."""
MAX_AGE_S: Final = 600
"""How long a browser need not ask again."""


class CrossOrigin:
    """The sites in `origins`, as browsers name them, may ask with credentials; all others' pages may not."""

    def __init__(self, origins: Collection[str]) -> None:
        self._origins = frozenset(origins)

    def allows(self, origin: str) -> bool:
        """Return whether pages of this origin may ask."""
        return origin in self._origins

    async def add_headers(self, request: web.Request, response: web.StreamResponse) -> None:
        """Tell the browser that this page may read the answer (a signal: it sees streams too)."""
        if not self._origins:
            return
        response.headers.add(hdrs.VARY, hdrs.ORIGIN)  # also for those without one: caches must not mix the two up
        origin = request.headers.get(hdrs.ORIGIN)
        if origin is not None and self.allows(origin):
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = origin
            response.headers[hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS] = "true"
            response.headers[hdrs.ACCESS_CONTROL_EXPOSE_HEADERS] = EXPOSED

    @property
    def middleware(self) -> Middleware:
        """What answers a browser that asks before it sends a page's request; everything else passes."""

        @web.middleware
        async def preflight(request: web.Request, handler: Handler) -> web.StreamResponse:
            refused = request.match_info.http_exception
            if (
                request.method != hdrs.METH_OPTIONS
                or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers
                or not self.allows(request.headers.get(hdrs.ORIGIN, ""))
                or not isinstance(refused, web.HTTPMethodNotAllowed)  # there is such a path
            ):
                return await handler(request)
            allowed = {
                hdrs.ACCESS_CONTROL_ALLOW_METHODS: ", ".join(sorted(refused.allowed_methods)),
                hdrs.ACCESS_CONTROL_ALLOW_HEADERS: HEADERS,
                hdrs.ACCESS_CONTROL_MAX_AGE: str(MAX_AGE_S),
            }
            return web.Response(status=204, headers=allowed)

        return preflight
