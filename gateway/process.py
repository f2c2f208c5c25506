"""The process: it listens, says that it is ready, drains on a signal, and ends."""

import asyncio
import gc
import os
import resource
import signal
from collections.abc import Callable
from dataclasses import replace
from typing import Final

import structlog
from aiohttp import web

from gateway.app import opened
from gateway.settings import Settings
from gateway.web import protocol

log = structlog.get_logger("gateway.process")

KEEPALIVE_S: Final = 75.0
"""How long an idle connection of a client is kept."""
LEFT_S: Final = 0.75
"""How long clients have after the drain to take what was written to them; aiohttp waits twice as long for those who do
not, and the process is to be gone two seconds after the drain."""
BACKLOG: Final = 1024
RESERVED_FILES: Final = 192
"""What is neither a client nor an agent: PostgreSQL, Redis, name servers, libraries, those who are turned away."""
GC_THRESHOLDS: Final = (20_000, 20, 1000)
"""A call makes little garbage that counting references does not free; looking for it less often saves a seventh of the
CPU, and the longest pauses (docs/benchmarks.md)."""


def raise_file_limit() -> int:
    """Raise the soft limit of open files to the hard one, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = hard if hard != resource.RLIM_INFINITY else 1_048_576
    if soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
            soft = wanted
        except (ValueError, OSError):
            log.warning("file_limit_unchanged", soft=soft)
    return soft


def places(files: int, calls: int) -> int:
    """Return how many clients may be connected where so many files may be open; the rest is for calls to agents."""
    left = max(files - RESERVED_FILES, 2)
    return max(left - calls, left // 2)


async def serve(settings: Settings, *, host: str, port: int, dev: bool, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT, then drain and return; a second signal ends the process at once.

    announce: called with the address once it answers.
    """
    gc.set_threshold(*GC_THRESHOLDS)
    files = raise_file_limit()
    settings = replace(settings, max_connections=settings.max_connections or places(files, settings.max_calls))
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def on_signal() -> None:
        if stop.is_set():
            os._exit(1)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)
    async with opened(settings, dev=dev) as gateway:
        runner = protocol.Runner(
            gateway.application,
            doorway=gateway.doorway,
            first_request_s=settings.header_timeout_s,
            write_s=settings.write_timeout_s,
            access_log=None,
            handle_signals=False,
            keepalive_timeout=KEEPALIVE_S,
            shutdown_timeout=LEFT_S,
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port, backlog=BACKLOG)
            await site.start()
            actual = runner.addresses[0][1]
            shown = f"[{host}]" if ":" in host else host
            log.info("listening", host=host, port=actual, open_files=files, max_connections=settings.max_connections)
            announce(f"http://{shown}:{actual}")
            await stop.wait()
            log.info("draining", calls=gateway.calls_out, streams=len(gateway.streams))
            await gateway.drain()
        finally:
            await runner.cleanup()
