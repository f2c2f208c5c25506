"""The services' surroundings in memory, for tests of the order of the steps: they can be away, or refuse."""

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from itertools import accumulate
from typing import Any

import orjson

from events.bus import Bus
from events.event import CHANGED, Event
from gateway.core.calls import Call
from gateway.core.claims import Claim
from gateway.core.outcomes import Outcome, Streamed
from gateway.core.rates import Rate, Standing
from gateway.core.workspaces import Workspace
from gateway.ports import (
    Begin,
    Change,
    Earlier,
    Entered,
    Entry,
    Left,
    LiveUnavailable,
    NewCall,
    NewQueued,
    OpenSession,
    Orphan,
    Outbound,
    Owner,
    Passage,
    Placed,
    Same,
    StoreUnavailable,
    StreamHead,
    Travelling,
    Waiting,
)
from gateway.services.streams import Sizes, Streams


class Clock:
    """A clock that the test turns. Seconds."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class Away:
    """What can be away: `turn` is passed before each answer."""

    def __init__(self) -> None:
        self.away = False

    async def turn(self) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise StoreUnavailable("away")


class Workspaces(Away):
    """Those that exist; `fails` is raised instead of an answer."""

    def __init__(self, *some: Workspace) -> None:
        super().__init__()
        self.rows = {one.id: one for one in some}
        self.asked: list[str] = []
        self.fails: Exception | None = None

    async def find(self, workspace_id: str) -> Workspace | None:
        self.asked.append(workspace_id)
        await self.turn()
        if self.fails is not None:
            raise self.fails
        return self.rows.get(workspace_id)


class Gate:
    """`ports.Gate` that answers what the test wants; `away` says nothing. `looks`: what is seen of a claim, in turn."""

    def __init__(self) -> None:
        self.away = False
        self.answer = Entered(barred=None, standing=None, depth=1, left_s=None)
        self.standing = Standing(limit=10, remaining=9, reset_s=1.0)
        self.entries: list[Entry] = []
        self.taken: list[tuple[str, Rate]] = []
        self.left: list[Left] = []
        self.settled: list[str] = []
        self.orphans: dict[str, list[Orphan]] = {}
        self.ups = 1
        self.told = 1
        self.remembered: list[Waiting] = []
        self.looks: list[Earlier | None] = []
        self.looked = 0
        self.lost: set[str] = set()
        self.travelling: dict[str, Travelling] = {}

    async def take(self, payer: str, rate: Rate) -> Standing:
        await asyncio.sleep(0)
        if self.away:
            raise LiveUnavailable("away")
        self.taken.append((payer, rate))
        return self.standing

    async def enter(self, entry: Entry) -> Entered:
        await asyncio.sleep(0)
        if self.away:
            raise LiveUnavailable("away")
        self.entries.append(entry)
        return self.answer

    async def look(self, claim: Claim) -> Earlier | None:
        """The next of `looks`, and the last of them ever after."""
        await asyncio.sleep(0)
        self.looked += 1
        if self.away:
            raise LiveUnavailable("away")
        return self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]

    async def remember(self, waiting: Waiting) -> None:
        await asyncio.sleep(0)
        if self.away:
            raise LiveUnavailable("away")
        self.remembered.append(waiting)

    def let_go(self, call_ids: Collection[str]) -> None:
        self.settled += call_ids

    async def has_lost(self, call_id: str, age_s: float) -> bool:
        return call_id in self.lost

    def leave(self, left: Left) -> None:
        self.left.append(left)

    async def find(self, call_id: str) -> Travelling | None:
        await asyncio.sleep(0)
        if self.away:
            raise LiveUnavailable("away")
        return self.travelling.get(call_id)

    async def lapsed(self) -> Sequence[str]:
        await asyncio.sleep(0)
        if self.away:
            raise LiveUnavailable("away")
        return list(self.orphans)

    async def inherit(self, replica: str) -> tuple[Sequence[Orphan], bool]:
        found = self.orphans.pop(replica, [])
        return found, bool(found)


class Tokens(Away):
    """Whose they are, by hash."""

    def __init__(self) -> None:
        super().__init__()
        self.owners: dict[bytes, str | None] = {}
        self.used: list[set[bytes]] = []
        self.asked = 0

    async def find_owner(self, token_hash: bytes) -> Owner | None:
        self.asked += 1
        await self.turn()
        if token_hash not in self.owners:
            return None
        return Owner(token_id="t", workspace_id=self.owners[token_hash])

    async def note_used(self, hashes: Sequence[bytes]) -> None:
        await self.turn()
        self.used.append(set(hashes))


class Sessions(Away):
    """Those that are open, by hash."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: dict[bytes, OpenSession] = {}

    async def find(self, session_hash: bytes) -> OpenSession | None:
        await self.turn()
        return self.rows.get(session_hash)


class Batches(Away):
    """Takes batches of heartbeats or rows; refuses one in which `refuses` finds a row, with the error it returns."""

    def __init__(self) -> None:
        super().__init__()
        self.taken: list[list[Mapping[str, Any]]] = []
        self.tries = 0
        self.refuses: Any = lambda row: None
        self.during: Any = lambda: None

    async def record(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.tries += 1
        self.during()
        await self.turn()
        for row in rows:
            error = self.refuses(row)
            if error is not None:
                raise error
        self.taken.append(list(rows))

    @property
    def rows(self) -> list[Mapping[str, Any]]:
        return [row for batch in self.taken for row in batch]


class Inbox(Away):
    """Takes calls, as many as there is room for; `same` is the earlier call that the next ones are the same as."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[NewCall] = []
        self.same: Same | None = None
        self.ledgered: dict[str, float] = {}

    async def park(self, call: NewCall, row: Mapping[str, Any], *, room: int, kept_s: float) -> bool | Same:
        await self.turn()
        if self.same is not None:
            return self.same
        if len(self.calls) >= room:
            return False
        self.calls.append(call)
        return True

    async def find(self, workspace_id: str, call_id: str) -> Call | None:
        await self.turn()
        return None if self.same is None else self.same.call

    async def find_same(self, claim: Claim, *, kept_s: float) -> Same | None:
        await self.turn()
        return self.same

    async def list_ledgered(self, call_ids: Collection[str]) -> Mapping[str, float]:
        await self.turn()
        return {call_id: left_s for call_id, left_s in self.ledgered.items() if call_id in call_ids}


class Queue(Away):
    """Takes calls that have to wait, as many as there is room for; `same` is the earlier call that they are."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[NewQueued] = []
        self.same: Same | None = None

    async def position(self, workspace_id: str, call_id: str) -> int | None:
        await self.turn()
        return 7

    async def hold(
        self, call: NewQueued, row: Mapping[str, Any], *, error: str, room: int, kept_s: float
    ) -> Placed | Same | None:
        await self.turn()
        if self.same is not None:
            return self.same
        if len(self.calls) >= room:
            return None
        self.calls.append(call)
        return Placed(depth=len(self.calls), expires_at=datetime.now(UTC))


class Changes(Away):
    """A list of changes that the test fills: each look returns one of the given batches."""

    def __init__(self, *looks: Sequence[Change]) -> None:
        super().__init__()
        self.looks = list(looks)
        self.since: list[str] = []
        self.cleaned = 0
        self.called_off: list[str] = []

    async def horizon(self) -> str:
        await self.turn()
        return "0"

    async def list_since(self, horizon: str) -> tuple[Sequence[Change], str]:
        await self.turn()
        self.since.append(horizon)
        return self.looks.pop(0) if self.looks else [], str(len(self.since))

    async def call_off(self, call_id: str) -> None:
        await self.turn()
        self.called_off.append(call_id)

    async def forget_old(self) -> None:
        self.cleaned += 1


class Dispatcher:
    """Calls no agent: each call ends as `outcome` says, once `gate` is open; of a stream these are the `chunks`."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome: Outcome | Exception = outcome
        self.chunks: list[bytes] = []
        self.sent: list[Outbound] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def send(self, outbound: Outbound, begin: Begin | None = None) -> Outcome:
        self.sent.append(outbound)
        await self.gate.wait()
        if isinstance(self.outcome, Streamed):
            assert begin is not None
            sink = begin(self.outcome.status, self.outcome.headers)
            for chunk in self.chunks:
                sink.feed(chunk)
            sink.finish()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class Journal:
    """A journal in memory."""

    def __init__(self) -> None:
        self.heads: dict[str, StreamHead] = {}
        self.tasks: dict[tuple[str, str], str] = {}
        self.added: dict[str, list[bytes]] = {}
        self.events: dict[str, list[tuple[int, bytes]]] = {}
        self.ends: dict[str, tuple[int | None, bytes | None]] = {}
        self.away = False

    def begin(self, head: StreamHead) -> None:
        self.heads[head.call_id] = head
        self.events[head.call_id] = []

    def name(self, workspace_id: str, task_id: str, call_id: str) -> None:
        self.tasks[workspace_id, task_id] = call_id

    def append(self, call_id: str, number: int, raw: bytes) -> None:
        self.events[call_id].append((number, raw))

    def end(self, call_id: str, number: int | None, error: bytes | None) -> None:
        self.ends.setdefault(call_id, (number, error))

    def is_ahead(self, call_id: str) -> bool:
        return False

    async def catch_up(self, call_id: str) -> None:
        return

    def written(self, call_id: str) -> int | None:
        return None if self.away or call_id in self.ends else len(self.events[call_id])

    async def find(self, call_id: str) -> StreamHead | None:
        self._check()
        return self.heads.get(call_id)

    async def find_call(self, workspace_id: str, task_id: str) -> str | None:
        self._check()
        return self.tasks.get((workspace_id, task_id))

    async def read(self, call_id: str, after: int, *, at_most: int) -> Passage:
        self._check()
        found = [(number, raw) for number, raw in self.events.get(call_id, ()) if number > after]
        sizes = accumulate(len(raw) for _, raw in found)
        fits = max(1, sum(size <= at_most for size in sizes))
        if fits < len(found):
            return Passage(events=found[:fits])
        if call_id not in self.ends:
            return Passage(events=found)
        number, error = self.ends[call_id]
        if number is None:
            return Passage(events=found, ended=True, number=1 + len(self.events[call_id]), interrupted=True)
        return Passage(events=found, ended=True, number=number, error=error)

    async def add(self, call_id: str, event: bytes) -> None:
        self._check()
        self.added.setdefault(call_id, []).append(event)

    async def list_added(self, call_id: str, after: str) -> Sequence[tuple[str, bytes]]:
        self._check()
        found = [(str(number), event) for number, event in enumerate(self.added.get(call_id, ()), 1)]
        return found[int(after or 0) :]

    def _check(self) -> None:
        if self.away:
            raise LiveUnavailable("away")


def agent_streams(
    journal: Journal | None = None, *, event: int = 10**6, kept: int = 10**5, all_kept: int = 10**7
) -> Streams:
    """Streams of agents with a journal in memory."""
    sizes = Sizes(event=event, kept=kept, unwritten=10**6, all_kept=all_kept, answer=10**5)
    return Streams(journal or Journal(), sizes)


class Channel:
    """A link to nowhere that keeps what it was sent."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    async def send(self, events: Sequence[Event], first_sequence: int) -> None:
        self.events += events


class Heard:
    """What was published since the last look, without the wake-ups of the caches, which are counted."""

    def __init__(self, bus: Bus, channel: Channel) -> None:
        self._bus = bus
        self._channel = channel
        self.wake_ups = 0

    async def __call__(self) -> list[Event]:
        assert await self._bus.drain(5)
        events, self._channel.events = self._channel.events, []
        self.wake_ups += sum(one.type == CHANGED for one in events)
        return [one for one in events if one.type != CHANGED]

    async def names(self) -> list[str]:
        return [one.type for one in await self()]

    async def one(self, type_: str) -> tuple[Event, Any]:
        """The only one of this type, and its payload."""
        [found] = [one for one in await self() if one.type == type_]
        return found, orjson.loads(found.payload)
