"""Event streams and sockets in this process, over a hub that the test feeds: for what real traffic makes too rarely."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from time import monotonic
from typing import Any, Final

import aiohttp
from aiohttp import web

from events.bodies import Bodies
from events.event import event
from events.frame import ORIGIN, Frame
from events.hub import Hub
from events.ring import Ring
from gateway.core.callers import Admin
from gateway.core.refusals import Refusal
from gateway.services.directory import Directory
from gateway.services.tasks import Tasks
from gateway.services.visibility import Visibility
from gateway.web import events, parse, protocol, render, sockets
from gateway.web.cors import CrossOrigin
from gateway.web.places import Places
from tests.harness.reader import Reader
from tests.harness.world import eventually

FRIEND: Final = "http://friend.example"
"""The other site whose pages may ask."""


class _NoWorkspaces:
    async def find(self, _: str) -> None:
        return None


class Hall:
    """Everybody in it is the operator.

    told: how many events there have been. fetches: of wholes of large ones. requests: who answers requests.
    """

    requests: web.Server

    def __init__(
        self, tasks: Tasks, *, frames: int, capacity: int, keepalive_s: float, drain_s: float, ping_s: float
    ) -> None:
        self._tasks = tasks
        self.hub = Hub(Ring(max_frames=frames, max_bytes=2**30), on_sign=lambda _: None, on_change=lambda: None)
        self.hub.ring.begin(ORIGIN)
        self.hub.loaded.set()
        none: Any = _NoWorkspaces()
        visibility = Visibility(Directory(none, ttl_s=1), none, none)
        self.wholes: dict[str, bytes] = {}
        self.fetches = 0
        self.bodies = bodies = Bodies(self._fetch, tasks.spawn, max_bytes=2**30)
        places = Places(capacity)
        self.streams = events.EventStreams(
            self.hub, bodies, visibility, tasks.spawn, places=places, keepalive_s=keepalive_s, drain_s=drain_s
        )
        self.sockets = sockets.EventSockets(
            self.hub,
            bodies,
            visibility,
            CrossOrigin([FRIEND]),
            tasks.spawn,
            places=places,
            drain_s=drain_s,
            ping_s=ping_s,
        )
        self.told = 0
        self.url = ""
        self._session: aiohttp.ClientSession | None = None
        self._slow_session: aiohttp.ClientSession | None = None

    async def _confirm(self) -> None:
        """Say now and then, as probes do, that all has been heard."""
        while True:
            await asyncio.sleep(1)
            self.hub.confirm(monotonic())

    @property
    def unread_bytes(self) -> int:
        """What waits here for those who do not read."""
        return sum(stream._transport.get_write_buffer_size() for stream in self.streams._open)

    async def _fetch(self, reference: str) -> bytes | None:
        self.fetches += 1
        return self.wholes.get(reference)

    def tell(self, text: str = "") -> None:
        """Let something happen: the next event, numbered."""
        self.told += 1
        happened = event("A2A_RESPONSE", "00000000-0000-4000-8000-00000000000a", {"number": self.told, "text": text})
        if happened.whole is not None:
            self.wholes[happened.reference or ""] = happened.whole
        self.hub.hear(Frame(place=(self.told, 0), prev=(self.told - 1, 0), event=happened))

    @asynccontextmanager
    async def reading(
        self, query: str = "", *, since: str | None = None, slow: bool = False
    ) -> AsyncIterator["Listener"]:
        """Open a stream; a slow reader begins to read when it is told to, and little waits for it on its side."""
        headers = {} if since is None else {"Last-Event-ID": since}
        session = self._slow_session if slow else self._session
        assert session is not None
        async with session.get(f"{self.url}/events/stream{query}", headers=headers) as response:
            listener = Listener(response, self._tasks)
            if not slow:
                listener.begin()
                await eventually(lambda: listener.opened)
            try:
                yield listener
            finally:
                listener.leave()

    @asynccontextmanager
    async def request(self, path: str) -> AsyncIterator[aiohttp.ClientResponse]:
        """Ask for something that ends by itself."""
        assert self._session is not None
        async with self._session.get(f"{self.url}{path}") as response:
            yield response

    @asynccontextmanager
    async def socket(self, **options: Any) -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
        """Open a WebSocket."""
        slow = options.pop("slow", False)
        query = options.pop("query", "")
        session = self._slow_session if slow else self._session
        assert session is not None
        async with session.ws_connect(f"{self.url}/ws{query}", **options) as opened:
            yield opened

    @asynccontextmanager
    async def open(self, tls: ssl.SSLContext | None) -> AsyncIterator[None]:
        """Serve while the block lasts."""

        @web.middleware
        async def as_operator(request: web.Request, handler: Any) -> web.StreamResponse:
            request[parse.PRINCIPAL] = Admin()
            try:
                answer: web.StreamResponse = await handler(request)
            except Refusal as refused:
                return render.refusal(refused)
            return answer

        application = web.Application(middlewares=[as_operator])
        application[parse.PUBLIC_ORIGIN] = ""
        application[events.STREAMS], application[sockets.SOCKETS] = self.streams, self.sockets
        application.router.add_get("/events/stream", events.stream_of_all)
        application.router.add_get("/ws", sockets.socket)
        runner = protocol.Runner(application, access_log=None, shutdown_timeout=1)
        await runner.setup()
        assert runner.server is not None
        self.requests = runner.server
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        self._tasks.spawn(self._confirm(), "confirm")
        self._tasks.spawn(self.hub.run(), "serve")
        self._tasks.spawn(self.streams.feed(), "feed")
        self._tasks.spawn(self.streams.run(), "sweep")
        patient = aiohttp.ClientTimeout()
        narrow = aiohttp.TCPConnector(socket_factory=_narrow)
        try:
            async with (
                aiohttp.ClientSession(timeout=patient) as self._session,
                aiohttp.ClientSession(timeout=patient, connector=narrow, read_bufsize=4096) as self._slow_session,
            ):
                yield
        finally:
            await self.streams.close()
            await self.sockets.close()
            await runner.cleanup()


class Listener(Reader):
    """A reader of the hall. `cursors`: the ids that came without an event."""

    def __init__(self, response: aiohttp.ClientResponse, tasks: Tasks) -> None:
        super().__init__()
        self._response = response
        self._tasks = tasks
        self._reading: asyncio.Task[None] | None = None
        self.cursors: list[str] = []

    def begin(self) -> None:
        """Read from now on."""
        self._reading = self._tasks.spawn(self.read(self._response.content), "reader")

    def leave(self) -> None:
        """Read no more."""
        if self._reading is not None:
            self._reading.cancel()

    def _take(self, block: str) -> None:
        super()._take(block)
        if block.startswith("id: ") and "\n" not in block:
            self.cursors.append(block.removeprefix("id: "))

    @property
    def numbers(self) -> list[int]:
        """The numbers of the events, as they were read."""
        return [event["data"]["number"] for event in self.events]


def _narrow(address: Any) -> socket.socket:
    family, kind, protocol, *_ = address
    opened = socket.socket(family, kind, protocol)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    return opened


@asynccontextmanager
async def running(
    *,
    frames: int = 10_000,
    capacity: int = 100,
    keepalive_s: float = 100.0,
    drain_s: float = 30.0,
    ping_s: float = 25.0,
    tls: ssl.SSLContext | None = None,
) -> AsyncIterator[Hall]:
    """Run a hall; nothing in it may break. Its own clients do not speak TLS."""
    async with Tasks() as tasks:
        hall = Hall(tasks, frames=frames, capacity=capacity, keepalive_s=keepalive_s, drain_s=drain_s, ping_s=ping_s)
        async with hall.open(tls):
            yield hall
        assert tasks.deaths == 0
