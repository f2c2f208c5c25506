"""What handlers find in the application, and in a request."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from typing import Final

from aiohttp import web

from gateway.services.admission import Admission
from gateway.services.backlog import Backlog
from gateway.services.calls import Calls
from gateway.services.delegation import Delegations
from gateway.services.edits import Edits
from gateway.services.identity import Identity
from gateway.services.inbox import Inbox
from gateway.services.loops import Loops
from gateway.services.peers import Peers
from gateway.services.proxy import Proxy
from gateway.services.readiness import Readiness
from gateway.services.registry import Registry
from gateway.services.sessions import Sessions
from gateway.services.streams import Streams
from gateway.services.timeline import Timeline
from gateway.services.tokens import TokenService
from gateway.services.tolls import Toll, Tolls
from gateway.services.vigils import Vigils
from gateway.services.visibility import Visibility
from gateway.services.workspaces import WorkspaceService
from gateway.web.cors import CrossOrigin
from gateway.web.places import Places

AGENT_STREAMS: Final = web.AppKey("agent_streams", Streams)
ADMISSION: Final = web.AppKey("admission", Admission)
BACKLOG: Final = web.AppKey("backlog", Backlog)
CALLS: Final = web.AppKey("calls", Calls)
DELEGATIONS: Final = web.AppKey("delegations", Delegations)
EDITS: Final = web.AppKey("edits", Edits)
IDENTITY: Final = web.AppKey("identity", Identity)
KEEPALIVE_S: Final = web.AppKey("keepalive_s", float)
"""Seconds of silence after which a stream gets a comment."""
PLACES: Final = web.AppKey("places", Places)
"""What bounds the streams that are open, of events and of agents."""
INBOX: Final = web.AppKey("inbox", Inbox)
LOOPS: Final = web.AppKey("loops", Loops)
PEERS: Final = web.AppKey("peers", Peers)
PROXY: Final = web.AppKey("proxy", Proxy)
READINESS: Final = web.AppKey("readiness", Readiness)
REGISTRY: Final = web.AppKey("registry", Registry)
SESSIONS: Final = web.AppKey("sessions", Sessions)
TIMELINE: Final = web.AppKey("timeline", Timeline)
TOKENS: Final = web.AppKey("tokens", TokenService)
TOLLS: Final = web.AppKey("tolls", Tolls)
TEST_TOKENS: Final = web.AppKey("test_tokens", bool)
"""Whether tokens for tests are given out."""
CROSS_ORIGIN: Final = web.AppKey("cross_origin", CrossOrigin)
VIGILS: Final = web.AppKey("vigils", Vigils)
VISIBILITY: Final = web.AppKey("visibility", Visibility)
WORKSPACES: Final = web.AppKey("workspaces", WorkspaceService)
PUBLIC_URL: Final = web.AppKey("public_url", str)
"""How agents reach this gateway; empty: as the request came."""
METRICS: Final[web.AppKey[Callable[[], Awaitable[bytes]]]] = web.AppKey("metrics")
"""Returns the text of /metrics."""
OPENAPI: Final = web.AppKey("openapi", bytes)
"""The document of /openapi.json."""

REQUEST_ID: Final = web.RequestKey("request_id", str)
CALL_ID: Final = web.RequestKey("call_id", str)
Telling = Callable[[Callable[[], None]], AbstractContextManager[None]]
TELLING: Final[web.RequestKey[Telling]] = web.RequestKey("telling")
"""How to be told that the connection is lost (web/protocol.py); only behind our own server."""
TOLL: Final = web.RequestKey("toll", Toll)
"""What the request pays."""
