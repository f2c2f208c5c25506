"""Whether the bus has kept its promise: a rule over what was published, what readers saw, and what was done to it."""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise, zip_longest
from typing import Final


class Act(Enum):
    """What was done to the bus."""

    LISTENERS_CUT = "CLIENT KILL TYPE pubsub"
    PUBLISHERS_CUT = "CLIENT KILL TYPE normal"
    STALL = "SIGSTOP of Valkey"
    RESTART = "SIGKILL and restart of Valkey"
    FLUSH = "FLUSHALL"
    DEATH = "SIGKILL of a gateway"


class Kind(Enum):
    """How the promise can be broken."""

    SILENT_LOSS = "neither received nor inside an announced gap"
    DISORDER = "received after what came later"
    DUPLICATE = "received twice"
    DISAGREEMENT = "another event than other readers received under this id"
    GROUNDLESS_GAP = "a gap was announced and nothing was lost"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """One act, from when to when (Unix milliseconds); `via` names the gateway that died."""

    act: Act
    began_ms: float
    ended_ms: float
    via: str = ""


@dataclass(frozen=True, kw_only=True)
class Published:
    """An event whose publisher was answered 200 at this time. Serials of a workspace go up with time."""

    workspace: str
    serial: int
    via: str
    at_ms: float


@dataclass(frozen=True, kw_only=True)
class Received:
    """An event as a reader saw it. `via` is the gateway that took it from its publisher, not the reader's."""

    place: tuple[int, int]
    workspace: str
    serial: int
    via: str


@dataclass(frozen=True, kw_only=True)
class Told:
    """A gap as a reader was told of it."""

    reason: str
    at_ms: float


@dataclass(frozen=True, kw_only=True)
class Came:
    """A reader's new connection: to which gateway, and with which last id."""

    to: str
    since: str
    at_ms: float


Seen = Received | Told | Came


@dataclass(frozen=True, kw_only=True)
class Reading:
    """All that one reader saw, over all its connections, in order. `workspaces` are those it asked for."""

    reader: str
    workspaces: frozenset[str]
    log: Sequence[Seen]

    @property
    def story(self) -> Iterator[str]:
        """The log in short, line by line: connections and gaps in full, of the events between the first and last."""
        before: Seen | None = None
        for seen, following in zip_longest(self.log, self.log[1:]):
            if not (isinstance(before, Received) and isinstance(seen, Received) and isinstance(following, Received)):
                yield str(seen)
            before = seen


@dataclass(frozen=True, kw_only=True)
class Violation:
    """One broken promise."""

    kind: Kind
    reader: str
    what: str


SETTLED_MS: Final = 1000.0
"""A gateway that is killed sooner after its answer may take the event along unheard ..."""
SETTLED_AWAY_MS: Final = 3500.0
"""... and if Redis was away: an answer of Redis is awaited for 2 s, then the next renewal of the lease says it."""
AFTERMATH_MS: Final = 2500.0
"""Redis counts as away for this long after it is back: connecting again, and the lease that still says so."""

REWRITTEN: Final = frozenset({"taken_back", "missing", "unknown_id"})
"""How a reader is told that the journal does not go on from where it was."""


def find_violations(
    published: Sequence[Published], faults: Sequence[Fault], readings: Sequence[Reading]
) -> list[Violation]:
    """Return every broken promise; none is what a sound bus shows."""
    owed = [one for one in published if is_owed(one, faults)]
    found = list(_find_disagreements(readings))
    for reading in readings:
        found += _find_losses(reading, owed)
        found += _find_disorder(reading)
        found += _find_duplicates(reading)
        found += _find_groundless(reading, faults)
    return found


def is_owed(publication: Published, faults: Sequence[Fault]) -> bool:
    """Whether readers must get it or be told: its gateway lived long enough after its answer to have passed it on."""
    deaths = [fault for fault in faults if fault.act is Act.DEATH and fault.via == publication.via]
    return all(death.began_ms - publication.at_ms > _settled_ms(death, faults) for death in deaths)


def _settled_ms(death: Fault, faults: Sequence[Fault]) -> float:
    away = is_away(death.began_ms, faults) or is_away(death.began_ms - SETTLED_AWAY_MS, faults)
    return SETTLED_AWAY_MS if away else SETTLED_MS


def is_away(at_ms: float, faults: Sequence[Fault]) -> bool:
    """Whether gateways could be without Redis at this time."""
    return any(
        fault.began_ms <= at_ms <= fault.ended_ms + AFTERMATH_MS
        for fault in faults
        if fault.act in (Act.STALL, Act.RESTART, Act.PUBLISHERS_CUT)
    )


Lane = tuple[str, str]
"""A workspace and the gateway that took its events: what came this way is in the order of its serials."""


def _lanes(log: Sequence[Seen]) -> Mapping[Lane, list[tuple[int, int]]]:
    """Return by lane the serials received and where each stands in the log."""
    lanes: dict[Lane, list[tuple[int, int]]] = defaultdict(list)
    for index, seen in enumerate(log):
        if isinstance(seen, Received):
            lanes[seen.workspace, seen.via].append((seen.serial, index))
    return lanes


def _find_losses(reading: Reading, owed: Sequence[Published]) -> Iterator[Violation]:
    """An event that is missing must have a gap between its neighbours, which came the same way before and after it."""
    lanes = {lane: sorted(seen) for lane, seen in _lanes(reading.log).items()}
    gaps = [index for index, seen in enumerate(reading.log) if isinstance(seen, Told)]
    for one in owed:
        if one.workspace not in reading.workspaces:
            continue
        lane = lanes.get((one.workspace, one.via), [])
        at = bisect_left(lane, (one.serial, -1))
        if at < len(lane) and lane[at][0] == one.serial:
            continue
        before = lane[at - 1][1] if at else -1
        after = lane[at][1] if at < len(lane) else len(reading.log)
        following = bisect_left(gaps, before)
        if following == len(gaps) or gaps[following] > after:
            yield Violation(kind=Kind.SILENT_LOSS, reader=reading.reader, what=f"{one}")


def _find_disorder(reading: Reading) -> Iterator[Violation]:
    for (workspace, via), seen in _lanes(reading.log).items():
        for (earlier, _), (later, _) in pairwise(seen):
            if later < earlier:
                what = f"{workspace} via {via}: {later} after {earlier}"
                yield Violation(kind=Kind.DISORDER, reader=reading.reader, what=what)
    last: Received | None = None
    for one in reading.log:
        match one:
            case Received():
                if last is not None and one.place < last.place:
                    yield Violation(kind=Kind.DISORDER, reader=reading.reader, what=f"{one} after {last}")
                last = one
            case Told():  # a journal that was written anew counts anew
                last = None
            case Came():
                continue


def _find_duplicates(reading: Reading) -> Iterator[Violation]:
    times = Counter((seen.workspace, seen.serial) for seen in reading.log if isinstance(seen, Received))
    for (workspace, serial), count in times.items():
        if count > 1:
            yield Violation(kind=Kind.DUPLICATE, reader=reading.reader, what=f"{workspace} {serial}: {count} times")


def _find_disagreements(readings: Sequence[Reading]) -> Iterator[Violation]:
    """An id names one event, and an event has one id, whoever reads."""
    by_place: dict[tuple[int, int], Received] = {}
    by_event: dict[tuple[str, int], Received] = {}
    for reading in readings:
        for seen in reading.log:
            if not isinstance(seen, Received):
                continue
            first = by_place.setdefault(seen.place, seen), by_event.setdefault((seen.workspace, seen.serial), seen)
            if first != (seen, seen):
                yield Violation(kind=Kind.DISAGREEMENT, reader=reading.reader, what=f"{seen} and {first}")


def _find_groundless(reading: Reading, faults: Sequence[Fault]) -> Iterator[Violation]:
    """Each fault that can lose events explains one gap of each kind; a gap that is left over has lost nothing."""
    unused: dict[str, list[Fault]] = {
        "server_changed": [fault for fault in faults if fault.act in (Act.FLUSH, Act.RESTART)],
        "instance_died": [fault for fault in faults if fault.act is Act.DEATH and is_away(fault.began_ms, faults)],
        "rewritten": [fault for fault in faults if fault.act in (Act.FLUSH, Act.RESTART)],
    }
    for told in reading.log:
        if not isinstance(told, Told):
            continue
        left = unused.get("rewritten" if told.reason in REWRITTEN else told.reason, [])
        cause = next((fault for fault in left if fault.began_ms <= told.at_ms), None)
        if cause is None:
            yield Violation(kind=Kind.GROUNDLESS_GAP, reader=reading.reader, what=f"{told}")
        else:
            left.remove(cause)
