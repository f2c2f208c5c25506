"""One connection to Redis on which questions go out together and answers come back in order."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping
from random import random
from typing import Any, Final

import hiredis
import structlog

from events.bus import Stamp, unwatched
from events.redis import ANSWER_S, AWAY, Servers, ask
from gateway.core.backoff import Backoff
from gateway.ports import LiveUnavailable

log = structlog.get_logger("gateway.live")

CHUNK_BYTES: Final = 64 * 1024
WAITING: Final = 50_000
"""Answers waited for at once; past it Redis counts as away."""
SECOND_LOOK_S: Final = 0.05
"""How long an answer that is late has, in which this process may do nothing else."""
RETRY: Final = Backoff(first_s=0.05, growth=2.0, most_s=1.0)
"""The waits between two attempts to connect."""


class Pipe:
    """Asks without waiting for its turn; while Redis is away, nobody waits at all.

    scripts: Lua by name. answer_s: how long Redis may take to answer; longer, and the connection is given up.
    on_up: called after each connect, before anybody else asks.
    """

    def __init__(
        self,
        servers: Servers,
        scripts: Mapping[str, str],
        *,
        answer_s: float,
        on_up: Callable[[], None],
    ) -> None:
        self._servers = servers
        self._scripts = scripts
        self._answer_s = answer_s
        self._on_up = on_up
        self._shas: dict[str, bytes] = {}
        self._writer: asyncio.StreamWriter | None = None
        self._out: list[bytes] = []
        self._waiting: deque[tuple[float, asyncio.Future[Any]]] = deque()
        self._watch: asyncio.TimerHandle | None = None
        self._late = False
        self._loop = asyncio.get_running_loop()

    def __repr__(self) -> str:
        return f"<Pipe up={self.is_up} waiting={len(self._waiting)}>"

    @property
    def is_up(self) -> bool:
        """Whether Redis answers, as far as is known."""
        return self._writer is not None

    def script(self, name: str, keys: tuple[str, ...], *arguments: str | int | float | bytes) -> "asyncio.Future[Any]":
        """Run one of the scripts; as `ask`."""
        if not self.is_up:
            raise LiveUnavailable("Redis is away")
        return self.ask("EVALSHA", self._shas[name], len(keys), *keys, *arguments)

    def ask(self, *command: str | int | float | bytes) -> "asyncio.Future[Any]":
        """Return the answer to come; raises LiveUnavailable at once while Redis is away, as the answer may."""
        if self._writer is None or len(self._waiting) >= WAITING:
            raise LiveUnavailable("Redis is away")
        if not self._out:
            self._loop.call_soon(self._flush)
        self._out.append(hiredis.pack_command(command))  # type: ignore[arg-type]
        answer: asyncio.Future[Any] = self._loop.create_future()
        self._waiting.append((self._loop.time(), answer))
        if self._watch is None:
            self._watch = self._loop.call_later(self._answer_s, self._look)
        return answer

    def _flush(self) -> None:
        out, self._out = self._out, []
        if self._writer is not None and out:
            self._writer.write(b"".join(out))

    def _look(self) -> None:
        """Give the connection up if the oldest answer has been waited for too long."""
        self._watch = None
        if not self._waiting or self._writer is None:
            return
        due = self._waiting[0][0] + self._answer_s
        if self._loop.time() >= due and not self._late:
            self._late = True  # it may be this process that was slow: what has arrived meanwhile is read first
            self._watch = self._loop.call_later(min(SECOND_LOOK_S, self._answer_s), self._look)
        elif self._loop.time() >= due:
            log.warning("live_stalled", waiting=len(self._waiting))
            self._give_up()
        else:
            self._watch = self._loop.call_at(due, self._look)
            self._late = False

    def _give_up(self) -> None:
        """Answer who waits, and let nobody wait any more."""
        writer, self._writer = self._writer, None
        self._out.clear()
        self._late = False
        if self._watch is not None:
            self._watch.cancel()
            self._watch = None
        waiting, self._waiting = self._waiting, deque()
        for _, answer in waiting:
            if not answer.done():
                answer.set_exception(LiveUnavailable("Redis did not answer"))
                answer.exception()  # who does not look is not told off for it
        if writer is not None:
            writer.transport.abort()

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Be connected, for ever."""
        attempts = 0
        while True:
            stamp()
            try:
                connection = await self._servers.connect()
                try:
                    async with asyncio.timeout(ANSWER_S):
                        for name, text in self._scripts.items():
                            self._shas[name] = await ask(connection, "SCRIPT", "LOAD", text)
                    attempts = 0
                    stamp(idle=True)  # an answer that does not come is missed by who asked
                    await self._listen(connection)
                finally:
                    await connection.disconnect(nowait=True)
                log.warning("live_down")
            except AWAY as error:
                log.warning("live_down", error=type(error).__name__)
            attempts += 1
            await asyncio.sleep(RETRY.after_s(attempts, random()))  # noqa: S311 - spreads, keeps no secret

    async def _listen(self, connection: Any) -> None:
        """Take answers until the connection is lost."""
        reader: asyncio.StreamReader = connection._reader
        self._writer = connection._writer
        parser = hiredis.Reader()
        log.info("live_up")
        try:
            self._on_up()
            while chunk := await reader.read(CHUNK_BYTES):
                parser.feed(chunk)
                while self._writer is not None and (reply := parser.gets()) is not False:
                    self._take(reply)
                if self._writer is None:  # given up: nobody waits for what comes now
                    break
        finally:
            self._give_up()

    def _take(self, reply: Any) -> None:
        _, answer = self._waiting.popleft()
        if answer.done():
            return
        if isinstance(reply, hiredis.ReplyError):
            log.error("live_refused", error=str(reply)[:120])
            answer.set_exception(LiveUnavailable("Redis refused"))
            answer.exception()
            if str(reply).startswith("NOSCRIPT"):
                self._teach()
        else:
            answer.set_result(reply)

    def _teach(self) -> None:
        """Teach the scripts again: somebody has flushed them."""
        for text in self._scripts.values():
            self.ask("SCRIPT", "LOAD", text)
