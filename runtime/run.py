"""From an agent to a process: listen or fetch, register, beat, answer, and stop when asked."""

import argparse
import asyncio
import logging
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any, NoReturn

from runtime.agent import Agent
from runtime.beat import Heart, Presence
from runtime.client import connected
from runtime.identity import Identity, IdentityError, find_identity
from runtime.message import new_id
from runtime.poll import Poll
from runtime.serve import Endpoint, serving
from runtime.settings import SettingError, Settings, describe
from runtime.spawn import Tasks
from runtime.store import TaskStore
from runtime.thread import Thread
from runtime.turns import Turns
from runtime.wedge import Wedge

BAD_USE = 2
REFUSED = 1


class Stopped(Exception):
    """The gateway does not want this agent; the sentence is for the person who started it."""


def main(agent: Agent) -> NoReturn:
    """Run `agent` as this process until SIGTERM or SIGINT; exit 0 then, 1 when refused, 2 for a bad setting."""
    argparse.ArgumentParser(
        description=agent.description,
        epilog=f"settings, read from the environment:\n{describe()}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    ).parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    try:
        settings = Settings.from_env(os.environ)
        asyncio.run(run(agent, settings, on_ready=lambda url: print(f"ready {url}", flush=True)))
    except SettingError as error:
        sys.exit(_say(error, BAD_USE))
    except (Stopped, IdentityError) as error:
        sys.exit(_say(error, REFUSED))
    sys.exit(0)


async def run(agent: Agent, settings: Settings, *, on_ready: Callable[[str], None]) -> None:
    """Run until a signal. `on_ready` gets `http://HOST:PORT` once, after the first registration.

    An agent that polls listens nowhere: `on_ready` gets the url at which the gateway takes messages for it.

    Raises `Stopped` when the gateway refuses the agent, `IdentityError` for the state folder, `SettingError` for an
    address that cannot be listened on.
    """
    identity = load_identity(settings)
    sock = None if settings.polls else bind(settings.host, settings.port)
    if sock is None:
        address = url = f"{settings.gateway_url.rstrip('/')}/workspaces/{identity.workspace_id}/a2a"
    else:
        address = address_of(sock)
        url = settings.url or f"{address}/"
    card = agent.card(url)
    async with AsyncExitStack() as stack:
        stop = await stack.enter_async_context(stop_signals(stdin=settings.stop_with_stdin))
        tasks = await stack.enter_async_context(Tasks())
        changed, registered = asyncio.Event(), asyncio.Event()
        loop = asyncio.get_running_loop()

        def announce() -> None:
            loop.call_soon_threadsafe(registered.set)
            on_ready(address)

        async def beat() -> str:
            async with connected(settings.gateway_url) as own:
                return await heart.run(own)

        thread = await stack.enter_async_context(Thread(beat, name="heart"))

        def tell() -> None:
            thread.call(changed.set)

        turns = Turns(agent, spawn=tasks.spawn, store=TaskStore(), on_change=tell)
        wedge = Wedge(after_s=settings.wedged_s, on_free=tell)
        heart = Heart(
            identity=identity,
            state_dir=settings.state_dir,
            presence=Presence(url=None if sock is None else url, card=card),
            vitals=turns.vitals,
            wedged=lambda: wedge.stuck,
            heartbeat_s=settings.heartbeat_s,
            changed=changed,
            on_ready=announce,
        )
        if sock is None:
            poll = Poll(
                gateway=await stack.enter_async_context(connected(settings.gateway_url)),
                workspace_id=identity.workspace_id,
                token=lambda: heart.token,
                turns=turns,
                most=agent.max_active,
                spawn=tasks.spawn,
            )
            stack.push_async_callback(poll.close)
            stack.push_async_callback(turns.close, drain_s=settings.drain_s)
            stack.callback(tasks.spawn(poll.run(after=registered), name="poll").cancel)
        else:
            await stack.enter_async_context(serving(Endpoint(turns=turns, card=card).app(), sock))
            stack.push_async_callback(turns.close, drain_s=settings.drain_s)
        tasks.spawn(wedge.run(), name="wedge")
        beating = thread.start()
        asked = tasks.spawn(stop.wait(), name="stop")
        ends: set[asyncio.Future[Any]] = {beating, asked}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        if beating.done():
            raise Stopped(beating.result())


def load_identity(settings: Settings) -> Identity:
    """The identity to start with: the environment's where it says something, else the kept one, else a new id."""
    kept = find_identity(settings.state_dir, settings.workspace_id)
    identity = kept or Identity(workspace_id=settings.workspace_id or new_id())
    return replace(identity, token=settings.token or identity.token)


def bind(host: str, port: int) -> socket.socket:
    """A listening TCP socket, so that the port is known before anything is registered."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        raise SettingError(
            f"AGENT_HOST {host} and AGENT_PORT {port} cannot be listened on: {error.strerror}"
        ) from error


def address_of(sock: socket.socket) -> str:
    """`http://HOST:PORT` of a bound socket."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if sock.family == socket.AF_INET6 else f"http://{host}:{port}"


@asynccontextmanager
async def stop_signals(*, stdin: bool = False) -> AsyncIterator[asyncio.Event]:
    """An event that the first SIGTERM or SIGINT sets; the second signal ends the process at once.

    stdin: the end of standard input sets it too. A parent that holds the other end takes us along, even by SIGKILL.
    """
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    signals = (signal.SIGTERM, signal.SIGINT)

    def release() -> None:
        for number in signals:
            loop.remove_signal_handler(number)

    def heard() -> None:
        stop.set()
        release()

    def read() -> None:
        if not os.read(sys.stdin.fileno(), 4096):
            loop.remove_reader(sys.stdin)
            stop.set()

    for number in signals:
        loop.add_signal_handler(number, heard)
    if stdin:
        loop.add_reader(sys.stdin, read)
    try:
        yield stop
    finally:
        release()
        if stdin:
            loop.remove_reader(sys.stdin)


def _say(error: Exception, code: int) -> int:
    print(error, file=sys.stderr)
    return code
