"""What we are measured against: the least that aiohttp needs to pass a call on, without checks, records or clocks."""

import asyncio
import sys
from collections.abc import AsyncIterator
from typing import Final

import uvloop
from aiohttp import ClientSession, DummyCookieJar, TCPConnector, web

from bench.processes import serve_until_orphaned

_SESSION: Final = web.AppKey("session", ClientSession)
_AGENT: Final = web.AppKey("agent", str)


async def relay(request: web.Request) -> web.StreamResponse:
    body = await request.read()
    headers = {"Content-Type": request.content_type}
    async with request.app[_SESSION].post(request.app[_AGENT], data=body, headers=headers) as answer:
        response = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
        await response.prepare(request)
        async for chunk in answer.content.iter_any():
            await response.write(chunk)
        return response


async def forward(request: web.Request) -> web.Response:
    body = await request.read()
    headers = {"Content-Type": request.content_type}
    async with request.app[_SESSION].post(request.app[_AGENT], data=body, headers=headers) as answer:
        return web.Response(body=await answer.read(), status=answer.status, content_type=answer.content_type)


async def _session(app: web.Application) -> AsyncIterator[None]:
    async with ClientSession(connector=TCPConnector(limit=0), cookie_jar=DummyCookieJar()) as session:
        app[_SESSION] = session
        yield


async def main(agent_url: str) -> None:
    app = web.Application()
    app[_AGENT] = agent_url
    app.cleanup_ctx.append(_session)
    app.router.add_post("/workspaces/{id}/a2a", forward)
    app.router.add_post("/streams/a2a", relay)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0, backlog=1024).start()
        await serve_until_orphaned(runner.addresses[0][1])
    finally:
        await runner.cleanup()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        loop.run(main(sys.argv[1]))
