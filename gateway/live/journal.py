"""The journals of streams in Redis: the events of each by their numbers, for every replica to read, and for a while.

One Redis stream a call, whose entries have the numbers of the events for ids, so that a hole shows. Its end is an entry
behind all others, of which there can be only one: who writes it first has said how the stream ended.
"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict
from importlib.resources import files
from typing import Any, Final

import orjson
import structlog

from events.bus import Stamp, unwatched
from events.redis import Servers
from gateway.live.pipe import Pipe
from gateway.live.records import ms
from gateway.ports import LiveUnavailable, Passage, StreamHead

log = structlog.get_logger("gateway.live")

END: Final = 2**53
"""The number behind all others: the end's."""
HOLE: Final = END - 1
"""The one before: where nothing more can be written though it has not ended."""
RENEWALS: Final = 3
"""How often a journal is renewed before it would be forgotten."""
LATER: Final = 40_000
"""What is to be said of ends, and waits for Redis."""
TASKS: Final = 8
"""Tasks of which one stream may tell, and by which it is found: the newest."""
AHEAD_BYTES: Final = 4 * 1024 * 1024
"""What may be on its way to Redis: whatever is behind more than that may come too late to be waited for."""
COUNT: Final = 256
"""Entries that are read at once, at most."""
_SCRIPTS: Final = {"passage": files("gateway.live").joinpath("passage.lua").read_text()}


class _Sizes:
    """What the journal of one stream holds, as far as this process has written it; `written` is what Redis has said
    to have, and `ahead` counts the bytes behind it. `tasks`: the keys under which it is found."""

    __slots__ = ("ahead", "bytes", "entries", "tasks", "written")

    def __init__(self) -> None:
        self.entries: deque[tuple[int, int]] = deque()
        self.ahead = 0
        self.bytes = 0
        self.written = 0
        self.tasks: tuple[str, ...] = ()


class Journal:
    """`ports.Journal`. kept_s: how long a journal is kept after its end, or without a word. Of each no more is kept
    than `entries` events and `limit_bytes`, the newest.

    `lost`: streams of which an event could not be written.
    """

    def __init__(
        self, servers: Servers, *, prefix: str, answer_s: float, kept_s: float, entries: int, limit_bytes: int
    ) -> None:
        self._pipe = Pipe(servers, _SCRIPTS, answer_s=answer_s, on_up=self._say_ends)
        self._prefix = prefix
        self._kept_s = kept_s
        self._kept_ms = ms(kept_s)
        self._entries = entries
        self._limit_bytes = limit_bytes
        self._sizes: dict[str, _Sizes] = {}
        self._ahead = 0
        self._moved = asyncio.Event()
        self._ends: deque[tuple[str | int | bytes, ...]] = deque(maxlen=LATER)
        self.lost = 0

    def __repr__(self) -> str:
        return f"<Journal writing={len(self._sizes)}>"

    def _head(self, call_id: str) -> str:
        return f"{self._prefix}:stream:{call_id}:head"

    def _events(self, call_id: str) -> str:
        return f"{self._prefix}:stream:{call_id}"

    def _added(self, call_id: str) -> str:
        return f"{self._prefix}:stream:{call_id}:added"

    def _task(self, workspace_id: str, task_id: str) -> str:
        return f"{self._prefix}:task:{workspace_id}:{task_id}"

    # -- writing

    def _tell(self, call_id: str, *command: str | int | bytes, number: int = 0, size: int = 0) -> None:
        """Send a command; one that is lost makes a hole in the journal, which whoever reads it sees."""
        try:
            answer = self._pipe.ask(*command)
        except LiveUnavailable:
            self._lose(call_id)
            return
        self._go_ahead(call_id, size)
        answer.add_done_callback(lambda one: self._told(call_id, number, size, one.exception()))

    def _go_ahead(self, call_id: str, size: int) -> None:
        self._ahead += size
        if (sizes := self._sizes.get(call_id)) is not None:
            sizes.ahead += size

    def _told(self, call_id: str, number: int, size: int, why: BaseException | None) -> None:
        self._go_ahead(call_id, -size)
        self._moved.set()
        if why is not None:
            self._lose(call_id)
        elif number and (sizes := self._sizes.get(call_id)) is not None:
            sizes.written = number

    def _lose(self, call_id: str) -> None:
        """Write no more of a stream, and let those who follow it know as soon as Redis is back."""
        if self._sizes.pop(call_id, None) is not None:
            self.lost += 1
            log.warning("stream_unjournalled", call_id=call_id, consequence="it cannot be resumed past what is held")
            self._say_end("XADD", self._events(call_id), f"{HOLE}-0", "hole", b"")
            self._say_end("PEXPIRE", self._events(call_id), self._kept_ms)

    def begin(self, head: StreamHead) -> None:
        """Let a stream begin."""
        self._sizes[head.call_id] = _Sizes()
        said = asdict(head) | {"id_json": None if head.id_json is None else head.id_json.decode()}
        if not head.plain:
            del said["plain"]  # a release that does not know the word reads all others
        self._tell(head.call_id, "SET", self._head(head.call_id), orjson.dumps(said), "PX", self._kept_ms)

    def name(self, workspace_id: str, task_id: str, call_id: str) -> None:
        """Say whose stream tells of a task."""
        sizes = self._sizes.get(call_id)
        if sizes is not None:
            task = self._task(workspace_id, task_id)
            sizes.tasks = (*sizes.tasks, task)[-TASKS:]
            self._tell(call_id, "SET", task, call_id, "PX", self._kept_ms)

    def append(self, call_id: str, number: int, raw: bytes) -> None:
        """Write the next event."""
        sizes = self._sizes.get(call_id)
        if sizes is None:
            return
        sizes.entries.append((number, len(raw)))
        sizes.bytes += len(raw)
        trim: tuple[str | int, ...] = ()
        if sizes.bytes > self._limit_bytes or len(sizes.entries) > self._entries:
            while len(sizes.entries) > 1 and (sizes.bytes > self._limit_bytes or len(sizes.entries) > self._entries):
                sizes.bytes -= sizes.entries.popleft()[1]
            trim = ("MINID", sizes.entries[0][0])
        self._tell(call_id, "XADD", self._events(call_id), *trim, f"{number}-0", "e", raw, number=number, size=len(raw))

    def written(self, call_id: str) -> int | None:
        """Return the number of the last event that Redis has said to have; None once it lacks one, or after the end."""
        sizes = self._sizes.get(call_id)
        return None if sizes is None else sizes.written

    def is_ahead(self, call_id: str) -> bool:
        """Return whether as much is on its way to Redis as may be, and this stream has more than its share of it."""
        if self._ahead <= AHEAD_BYTES or (sizes := self._sizes.get(call_id)) is None:
            return False
        return sizes.ahead * len(self._sizes) > AHEAD_BYTES

    async def catch_up(self, call_id: str) -> None:
        """Wait until Redis has taken more of it, or counts as away."""
        while self.is_ahead(call_id):
            self._moved.clear()
            await self._moved.wait()

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Be connected, for ever."""
        await self._pipe.run(stamp)

    @property
    def renew_s(self) -> float:
        """Seconds after which `renew` wants to be done again."""
        return self._kept_s / RENEWALS

    async def renew(self) -> None:
        """Keep what is being written, though nothing may be written for long."""
        for call_id, sizes in list(self._sizes.items()):
            for key in (self._events(call_id), self._head(call_id), *sizes.tasks):
                self._tell(call_id, "PEXPIRE", key, self._kept_ms)

    def end(self, call_id: str, number: int | None, error: bytes | None) -> None:
        """Write the end, unless another process has."""
        sizes = self._sizes.pop(call_id, None)
        said = orjson.dumps({"number": number, "error": None if error is None else error.decode()})
        where: tuple[str, ...] = (self._events(call_id),)
        if sizes is None:  # another replica's, or one with a hole: only if it has a journal at all
            where = (*where, "NOMKSTREAM")
        self._say_end("XADD", *where, f"{END}-0", "end", said)
        for key in (self._events(call_id), self._head(call_id), *(() if sizes is None else sizes.tasks)):
            self._say_end("PEXPIRE", key, self._kept_ms)

    def _say_end(self, *command: str | int | bytes) -> None:
        """Send what is said again once Redis is back: readers elsewhere wait. What it refuses it refuses again."""
        try:
            answer = self._pipe.ask(*command)
        except LiveUnavailable:
            self._ends.append(command)
            return
        answer.add_done_callback(lambda one: None if one.exception() is None else self._ends.append(command))

    def _say_ends(self) -> None:
        ends, self._ends = self._ends, deque(maxlen=LATER)
        for command in ends:
            self._say_end(*command)

    async def add(self, call_id: str, event: bytes) -> None:
        """Keep an event of a call whose agent polls, for the caller that streams. Raises LiveUnavailable."""
        most = max(1, min(self._entries, self._limit_bytes // max(1, len(event))))
        key = self._added(call_id)
        adding = self._pipe.ask("XADD", key, "MAXLEN", most, "*", "e", event)
        self._pipe.ask("PEXPIRE", key, self._kept_ms)
        await adding

    # -- reading

    async def list_added(self, call_id: str, after: str) -> Sequence[tuple[str, bytes]]:
        """Return the events that were kept after one of these places, "" for all, with their places. Raises
        LiveUnavailable."""
        since = f"({after}" if after else "-"
        entries = await self._pipe.ask("XRANGE", self._added(call_id), since, "+", "COUNT", COUNT)
        return [(id_.decode(), event) for id_, (_, event) in entries]

    async def find(self, call_id: str) -> StreamHead | None:
        """Return how a stream began; None: there is none, or no more. Raises LiveUnavailable."""
        said = await self._pipe.ask("GET", self._head(call_id))
        if said is None:
            return None
        fields: dict[str, Any] = orjson.loads(said)
        id_json = fields["id_json"]
        return StreamHead(**fields | {"id_json": None if id_json is None else id_json.encode()})

    async def find_call(self, workspace_id: str, task_id: str) -> str | None:
        """Return the call whose stream tells of a task. Raises LiveUnavailable."""
        said = await self._pipe.ask("GET", self._task(workspace_id, task_id))
        return None if said is None else said.decode()

    async def read(self, call_id: str, after: int, *, at_most: int) -> Passage:
        """Return what comes behind an event and fits into so many bytes, at least one event. Raises LiveUnavailable."""
        entries = await self._pipe.script("passage", (self._events(call_id),), after, at_most, COUNT)
        events: list[tuple[int, bytes]] = []
        broken = False
        for id_, (name, value) in entries:
            if name == b"end":
                return await self._ended(call_id, tuple(events), orjson.loads(value))
            if name == b"hole":
                broken = True
                continue
            events.append((int(id_.partition(b"-")[0]), value))
        return Passage(events=tuple(events), ended=broken, number=HOLE if broken else 0)

    async def _ended(self, call_id: str, events: tuple[tuple[int, bytes], ...], said: dict[str, Any]) -> Passage:
        """The last of a stream, which ends behind its last event where nobody knew its number."""
        number, error = said["number"], said["error"]
        if number is not None:
            return Passage(events=events, ended=True, number=number, error=None if error is None else error.encode())
        last = await self._pipe.ask("XREVRANGE", self._events(call_id), f"({END}-0", "-", "COUNT", 1)
        return Passage(
            events=events, ended=True, number=1 + (int(last[0][0].partition(b"-")[0]) if last else 0), interrupted=True
        )


@asynccontextmanager
async def opened(
    url: str, *, prefix: str, answer_s: float, kept_s: float, entries: int, limit_bytes: int
) -> AsyncIterator[Journal]:
    """Prepare the way to this URL, as `gate.opened` does."""
    servers = Servers(url)
    try:
        yield Journal(
            servers, prefix=prefix, answer_s=answer_s, kept_s=kept_s, entries=entries, limit_bytes=limit_bytes
        )
    finally:
        await servers.close()
