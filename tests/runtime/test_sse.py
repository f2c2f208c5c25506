"""runtime.sse: events go out as they come, and a reader that does not read is let go."""

import asyncio
import socket

import pytest
from aiohttp import web

from runtime import sse
from runtime.sse import send_events


class Source:
    """Events until they end, or one large one after the other for ever."""

    def __init__(self, *events):
        self.events = events
        self.closed = False

    async def __call__(self):
        try:
            for event in self.events:
                yield event
            while not self.events:
                yield b"x" * 65536
        finally:
            self.closed = True


@pytest.fixture
def serve(aiohttp_server):
    async def make(source):
        async def handle(request):
            return await send_events(request, source())

        app = web.Application()
        app.add_routes([web.get("/", handle)])
        return await aiohttp_server(app)

    return make


async def test_events_and_comments_as_a_reader_gets_them(serve, aiohttp_client):
    client = await aiohttp_client(await serve(Source(b"1", None, b"2")))
    response = await client.get("/")
    assert (response.content_type, response.headers["Cache-Control"]) == ("text/event-stream", "no-cache")
    assert await response.read() == b"data: 1\n\n:\ndata: 2\n\n"


async def test_a_reader_that_reads_nothing_is_let_go(serve, wait_until, monkeypatch):
    monkeypatch.setattr(sse, "WRITE_LIMIT_S", 0.05)
    source = Source()
    server = await serve(source)
    with socket.socket() as reader:
        reader.setblocking(False)
        await asyncio.get_running_loop().sock_connect(reader, (server.host, server.port))
        await asyncio.get_running_loop().sock_sendall(reader, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        await wait_until(lambda: source.closed)


async def test_a_reader_that_leaves_ends_it(serve, aiohttp_client, wait_until):
    source = Source()
    client = await aiohttp_client(await serve(source))
    response = await client.get("/")
    await response.content.readany()
    response.close()
    await wait_until(lambda: source.closed)
