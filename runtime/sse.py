"""Server-sent events to one reader, for as long as it reads them."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from aiohttp import web

MEDIA_TYPE: Final = "text/event-stream"
WRITE_LIMIT_S: Final = 60.0
"""How long a reader may take nothing of what is written to it; then it is let go."""
COMMENT: Final = b":\n"
"""Without the blank line that ends an event: published clients take that for an empty one."""


async def send_events(request: web.Request, events: AsyncGenerator[bytes | None]) -> web.StreamResponse:
    """Write each event's JSON as it comes, and a comment for None. A reader that has left ends it."""
    headers = {"Content-Type": MEDIA_TYPE, "Cache-Control": "no-cache", "X-Accel-Buffering": "no"}
    response = web.StreamResponse(headers=headers)
    async with aclosing(events):
        try:
            await response.prepare(request)
            async for event in events:
                async with asyncio.timeout(WRITE_LIMIT_S):
                    await response.write(COMMENT if event is None else b"data: %b\n\n" % event)
        except (ConnectionError, TimeoutError):
            if request.transport is not None:
                request.transport.abort()
    return response
