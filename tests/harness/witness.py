"""A reader that writes down all it sees, and comes back with its last id whatever becomes of its connection."""

import asyncio
import socket
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from random import Random
from typing import Final

import orjson

from tests.harness.invariant import Came, Reading, Received, Seen, Told

BUFFER_BYTES: Final = 16 * 1024
"""What this side of a connection holds unread, so that the gateway feels that a reader is slow."""
SLOW_S: Final = 0.25
"""How long a slow reader rests after each read ..."""
SLOW_BYTES: Final = 8 * 1024
"""... of this much."""
START: Final = "0-0"
"""The id before the first."""
CONNECT_S: Final = 10.0
AGAIN_S: Final = 0.05


class Pace(Enum):
    """How a reader reads while a connection lasts."""

    PROMPT = "all that comes"
    SLOW = "a little at a time"
    DEAD = "nothing"


@dataclass(frozen=True, kw_only=True)
class Manner:
    """How a reader behaves: the paces it chooses from for each connection, and how long one may last."""

    paces: tuple[Pace, ...]
    stays_s: tuple[float, float]


class Witness:
    """One reader of `path`. choose: returns name and url of a gateway to connect to."""

    def __init__(
        self, name: str, path: str, token: str, *, manner: Manner, choose: Callable[[], tuple[str, str]], random: Random
    ) -> None:
        self.name = name
        self._path = path
        self._token = token
        self._manner = manner
        self._choose = choose
        self._random = random
        self._unread = b""
        self.cursor = START
        self.log: list[Seen] = []
        self.states: list[tuple[str, float]] = []
        """What was said of the bus, and when (monotonic seconds)."""
        self.types: Counter[str] = Counter()
        """Events by type."""
        self.paces: Counter[Pace] = Counter()
        """Connections by pace."""
        self.healed = asyncio.Event()

    def reading(self, workspaces: frozenset[str]) -> Reading:
        """Return what it saw."""
        return Reading(reader=self.name, workspaces=workspaces, log=tuple(self.log))

    def heal(self) -> None:
        """Read promptly from now on, on a new connection that stays."""
        self.healed.set()

    async def run(self) -> None:
        """Read for ever."""
        while True:
            healed = self.healed.is_set()
            pace = self._random.choice(self._manner.paces) if self.cursor != START and not healed else Pace.PROMPT
            stays_s = None if healed else self._random.uniform(*self._manner.stays_s)
            try:
                async with asyncio.timeout(stays_s), asyncio.TaskGroup() as group:
                    connection = group.create_task(self._connection(pace))
                    if not healed:
                        await self.healed.wait()
                        connection.cancel()
            except* (OSError, EOFError, TimeoutError):
                pass
            await asyncio.sleep(AGAIN_S)

    async def _connection(self, pace: Pace) -> None:
        gateway, url = self._choose()
        host, port = url.removeprefix("http://").split(":")
        with socket.socket() as door:
            door.setblocking(False)
            door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
            async with asyncio.timeout(CONNECT_S):
                await asyncio.get_running_loop().sock_connect(door, (host, int(port)))
            reader, writer = await asyncio.open_connection(sock=door, limit=BUFFER_BYTES)
            try:
                await self._open(reader, writer)
                self.paces[pace] += 1
                self.log.append(Came(to=gateway, since=self.cursor, at_ms=_now_ms()))
                await self._read(reader, pace)
            finally:
                writer.transport.abort()

    async def _open(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (
            f"GET {self._path} HTTP/1.1",
            "Host: gateway",
            f"Authorization: Bearer {self._token}",
            f"Last-Event-ID: {self.cursor}",
        )
        writer.write("\r\n".join(head).encode() + b"\r\n\r\n")
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 "), answer
        self._unread = b""

    async def _read(self, reader: asyncio.StreamReader, pace: Pace) -> None:
        if pace is Pace.DEAD:
            await asyncio.Event().wait()
        while True:
            left = int(await reader.readuntil(b"\r\n"), 16)
            if not left:  # the gateway has ended the stream
                raise EOFError
            while left:
                part = await reader.read(min(left, SLOW_BYTES))
                if not part:
                    raise EOFError
                left -= len(part)
                self._hear(part)
                if pace is Pace.SLOW:
                    await asyncio.sleep(SLOW_S)
            await reader.readexactly(2)

    def _hear(self, part: bytes) -> None:
        *blocks, self._unread = (self._unread + part).split(b"\n\n")
        for block in blocks:
            self._take(block)

    def _take(self, block: bytes) -> None:
        """Do what an EventSource does: the id counts once its whole block is there."""
        fields = dict(line.split(b": ", 1) for line in block.split(b"\n") if line and not line.startswith(b":"))
        if b"id" in fields:
            self.cursor = fields[b"id"].decode()
        match fields.get(b"event"):
            case b"gap":
                self.log.append(Told(reason=orjson.loads(fields[b"data"])["reason"], at_ms=_now_ms()))
            case b"bus":
                self.states.append((orjson.loads(fields[b"data"])["state"], time.monotonic()))
            case _:
                if b"data" in fields:
                    self._take_event(fields)

    def _take_event(self, fields: dict[bytes, bytes]) -> None:
        event = orjson.loads(fields[b"data"])
        self.types[event["type"]] += 1
        match event["type"], event["data"]:
            case "TASK_UPDATED", {"current_task": str(text)}:
                said = text
            case "AGENT_CARD_UPDATED", {"agent_card": {"description": str(text)}}:
                said = text
            case _:
                return
        serial, via, *_ = said.split()
        left, _, right = fields[b"id"].decode().partition("-")
        place = (int(left), int(right))
        self.log.append(Received(place=place, workspace=event["workspace_id"], serial=int(serial), via=via))


def _now_ms() -> float:
    return time.time() * 1000
