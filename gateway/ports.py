"""The Protocols through which services reach the world, and the values that cross them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import Enum
from typing import Any, Final, Protocol

from gateway.core.answers import Answer
from gateway.core.calls import INBOX_KINDS, Call, Kind, State
from gateway.core.claims import Claim
from gateway.core.endings import Ending
from gateway.core.feeds import How
from gateway.core.feeds import State as FeedState
from gateway.core.http_json import Operation
from gateway.core.journey import Arrival, Journey, Sign
from gateway.core.outcomes import Outcome
from gateway.core.queue import Place
from gateway.core.rates import Rate, Standing
from gateway.core.sse import ServerEvent
from gateway.core.workspaces import Status, Workspace

# -- what a store may say instead of an answer
#
# StoreError
# +-- StoreUnavailable   nobody answers: connection refused or lost, no free connection in time, a read-only server
# +-- StoreTimeout       the statement ran into its own deadline
# +-- StoreConflict      a unique, foreign key or check constraint said no


class StoreError(Exception):
    """The truth could not be read or written."""


class StoreUnavailable(StoreError):
    """Nobody answers: connection refused or lost, none free in time, or a server that does not take writes."""


class StoreTimeout(StoreError):
    """A statement ran into its own deadline; whether it took effect is known: it did not."""


class StoreConflict(StoreError):
    """A constraint said no. `constraint` is its name in the schema, None where it has none (not null)."""

    def __init__(self, message: str, *, constraint: str | None) -> None:
        super().__init__(message)
        self.constraint = constraint


class Misplaced(Exception):
    """A workspace must not move there in the hierarchy; the text says why, for anybody."""


# -- values


@dataclass(frozen=True, kw_only=True, slots=True)
class NewWorkspace:
    """A workspace as it is first written. Money is cents; `agent_auth` is sealed."""

    id: str
    name: str
    status: Status
    runtime: str
    role: str | None = None
    template: str | None = None
    model: str | None = None
    tier: int = 1
    url: str | None = None
    parent_id: str | None = None
    delivery_mode: str | None = None
    max_concurrent_tasks: int = 1
    budget_limit: int | None = None
    workspace_dir: str | None = None
    workspace_access: str | None = None
    x: float = 0.0
    y: float = 0.0
    agent_auth: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Named:
    """A workspace by id and name."""

    id: str
    name: str


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenHash:
    """A token as it is kept."""

    hash: bytes = field(repr=False)
    prefix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Whose a token is: a workspace's, or the organisation's (None)."""

    token_id: str
    workspace_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveToken:
    """A token as its owner may see it."""

    id: str
    prefix: str
    name: str | None
    created_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenSession:
    """A browser's session that has `left_s` seconds to go. `admin_hash`: of the operator's token, if that opened it."""

    admin_hash: bytes | None = field(repr=False)
    left_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """A row of the list of changes: a cache must forget this key. `kind` is `workspace`, `token` or `session`; or it is
    `call`, and whoever makes the call with this id is to end it."""

    id: int
    kind: str
    key: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Wait:
    """One workspace waits for a call that it made to another, `age_s` seconds ago at the latest."""

    caller_id: str
    target_id: str
    age_s: float


class NoRoom(Exception):
    """This process holds as many bytes of bodies as it may."""


class Hold(Protocol):
    """Counts the bytes that one request and its answer take here."""

    def grow(self, count: int) -> None:
        """Hold so many more bytes; raises NoRoom."""


class Clockwork(Protocol):
    """`net/clocks.Watch`: the clocks of one call."""

    def last_reset(self) -> tuple[Sign, float]:
        """Return what set the idle clock back last, and when: seconds after the call was sent."""


@dataclass(kw_only=True, slots=True)
class Meter:
    """What is seen of one call on its way, by whoever sends it. `first_byte_s`: when its answer began, seconds after
    it was sent; None before."""

    attempts: int = 0
    first_byte_s: float | None = None
    received_bytes: int = 0
    clockwork: Clockwork | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Outbound:
    """A call as it goes out. Times are seconds; `limit_s` is the caller's deadline if `by_deadline`, else a ceiling.

    hold: what counts the bytes of the answer. meter: what says how far it is. operation: how it is asked for by
    HTTP+JSON, below the url; None for JSON-RPC.
    """

    call_id: str
    workspace_id: str
    url: str
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    idle_s: float
    limit_s: float | None
    by_deadline: bool
    hold: Hold = field(repr=False)
    meter: Meter = field(default_factory=Meter, repr=False)
    operation: Operation | None = None


class Sink(Protocol):
    """Takes an answer that is a stream, as it comes (services/relays.py)."""

    def feed(self, chunk: bytes) -> bool:
        """Take the next bytes; return whether they were more than comments. Raises NoRoom, and TooLong
        (core/relay.py)."""

    def finish(self) -> None:
        """Take note that no more bytes will come."""

    @property
    def events(self) -> int:
        """How many whole events have come."""

    @property
    def complete(self) -> bool:
        """Whether the agent has said all that it had to say."""

    @property
    def is_ahead(self) -> bool:
        """Whether the agent should not be read on for a moment."""

    async def rest(self) -> None:
        """Wait until that moment is over."""


Begin = Callable[[int, Mapping[str, str]], Sink]
"""Called when an answer turns out to be a stream, with its status and the headers that its caller gets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class StreamHead:
    """How a stream begins: the answer's status and headers. id_json: of the request that it answers. plain: the request
    was one of HTTP+JSON, whose events have no JSON-RPC around them."""

    call_id: str
    workspace_id: str
    status: int
    headers: Mapping[str, str]
    id_json: bytes | None
    plain: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Passage:
    """What a journal has of a stream behind some event: events by their numbers, in order, and whether that is its end.

    number: of the end, where there is one. error: what its last event says if it has not completed. interrupted: the
    replica that relayed it has died, and nobody has said more than that.
    """

    events: Sequence[tuple[int, bytes]] = ()
    ended: bool = False
    number: int = 0
    error: bytes | None = None
    interrupted: bool = False


class Journal(Protocol):
    """`live/journal.py`: streams as all replicas can read them, for a while. What is written is on its way at once, and
    lost while Redis is away. Those that read may raise LiveUnavailable."""

    def begin(self, head: StreamHead) -> None:
        """Let a stream begin."""

    def name(self, workspace_id: str, task_id: str, call_id: str) -> None:
        """Say whose stream tells of a task."""

    def append(self, call_id: str, number: int, raw: bytes) -> None:
        """Write the next event."""

    def end(self, call_id: str, number: int | None, error: bytes | None) -> None:
        """Write the end, unless another process has. number: None where the replica has died that knew it."""

    def is_ahead(self, call_id: str) -> bool:
        """Return whether more of this stream is on its way than should be: others have to wait behind it."""

    async def catch_up(self, call_id: str) -> None:
        """Wait until that is not so, at most until Redis counts as away."""

    def written(self, call_id: str) -> int | None:
        """Return the number of the last event that is known to be there; None once one is not, or after the end."""

    async def find(self, call_id: str) -> StreamHead | None:
        """Return how a stream began; None: there is none, or no more."""

    async def find_call(self, workspace_id: str, task_id: str) -> str | None:
        """Return the call whose stream tells of a task."""

    async def add(self, call_id: str, event: bytes) -> None:
        """Keep an event of a call whose agent polls, for the caller that streams."""

    async def list_added(self, call_id: str, after: str) -> Sequence[tuple[str, bytes]]:
        """Return the events that were kept after one of these places, "" for all, with their places."""

    async def read(self, call_id: str, after: int, *, at_most: int) -> Passage:
        """Return what comes behind an event and fits into so many bytes, at least one event."""


@dataclass(frozen=True, kw_only=True, slots=True)
class UsageOfDay:
    """What one workspace has used today (UTC)."""

    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class NewCall:
    """A call as it is first written. Seconds: how long its caller stays for the answer, and how long it may wait.

    `claim`: what makes another call the same; None: nothing does.
    """

    id: str
    kind: Kind
    workspace_id: str
    caller_id: str | None
    method: str
    body: bytes = field(repr=False)
    waits_s: float
    lives_s: float
    claim: Claim | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Same:
    """An earlier call has the claim of this one. `words`: whether it says the same."""

    call: Call
    words: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class Placed:
    """A call has its place in the queue: how many wait there with it, and until when it does."""

    depth: int
    expires_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class Waiting:
    """A message whose call waits for a busy agent, or was sent after it had: until when, and for how long (seconds)."""

    call_id: str
    claim: Claim
    expires_at: datetime
    left_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """A call as the agent that polls gets it."""

    call: Call
    body: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Outgoing:
    """How a call goes out that has waited. Headers: those of the call itself, without the agent's credential.

    limit_s: its total time in seconds, None for no end; `by_deadline`: it is over when it may not wait any more.
    """

    headers: Mapping[str, str] = field(repr=False)
    limit_s: float | None
    by_deadline: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class NewQueued:
    """A call as it is written because its agent is busy. Seconds: until it may be sent, and how long it may wait.

    `claim`: what makes another call the same; None: nothing does.
    """

    id: str
    workspace_id: str
    caller_id: str | None
    lane: str
    priority: int
    method: str
    body: bytes = field(repr=False)
    outgoing: Outgoing
    delay_s: float
    lives_s: float
    claim: Claim | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Claimed:
    """A queued call that one process has alone, by its `claim`; `left_s` is for how long it might still have waited."""

    call: Call
    claim: str
    body: bytes = field(repr=False)
    outgoing: Outgoing
    left_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class QueuedEnd:
    """How a claimed call ends, and what its caller gets; `counts`: as an attempt."""

    to: State
    ending: Ending
    error: str | None
    answer: Answer
    counts: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class NewDelegation:
    """A delegation as it is first written. `lives_s`: how long it may wait to be sent, fetched or reported.

    key: None without one. outgoing: how it is sent; None for what goes into an inbox, or was sent by its source.
    """

    id: str
    source_id: str
    target_id: str
    method: str
    body: bytes = field(repr=False)
    summary: str
    result_id: str
    lives_s: float
    key: str | None = None
    outgoing: Outgoing | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class PastDelegation:
    """A delegation as it is listed. `preview`: how the row of its result begins, None before there is one."""

    id: str
    source_id: str
    target_id: str
    state: State
    told: str | None
    summary: str
    ending: Ending | None
    error: str | None
    preview: str | None
    created_at: datetime


@dataclass(frozen=True, kw_only=True, slots=True)
class InLine:
    """A call of a queue as it is listed. `position`: 1 for the next, None where its agent is about to get or has it.

    `age_s`: since it came.
    """

    id: str
    kind: Kind
    state: State
    caller_id: str | None
    method: str
    place: Place
    position: int | None
    attempts: int
    busy: int
    last_error: str | None
    created_at: datetime
    dispatched_at: datetime | None
    expires_at: datetime
    age_s: float


History = Callable[[Call], tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]
"""Makes of a call that has ended what becomes of its row of history, and the rows that are new."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Filters:
    """Which rows of a history somebody wants; None: whatever it is. `by_people`: those of browsers, or the others.

    `since_s`: no older than so many seconds. `before`: older than this.
    """

    activity_type: str | None = None
    by_people: bool | None = None
    peer_id: str | None = None
    since_s: float | None = None
    before: datetime | None = None
    limit: int = 100


@dataclass(frozen=True, kw_only=True, slots=True)
class PastLine:
    """A row of a workspace's history as it is read. Bodies are views for people."""

    id: str
    workspace_id: str
    activity_type: str
    source_id: str | None
    target_id: str | None
    peer_name: str | None
    method: str | None
    summary: str | None
    status: str | None
    duration_ms: int | None
    error_detail: str | None
    created_at: datetime
    request_body: Any = field(repr=False)
    response_body: Any = field(repr=False)
    metadata: Any = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Budget:
    """What a call's target may spend in its month, in millionths of a cent.

    A call holds `reserve`, at least; None: nothing at all.
    """

    month: str
    limit: int
    priced: int
    reported: int
    reserve: int | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Entry:
    """A call that wants to begin.

    payer, rate: whose bucket it comes out of, None: nobody's. trace_id: the call's own trace. held: whether it ends
    with the replica that lets it in. serves: the call that the caller says it serves. limit_s: how long it may take,
    None for ever. budget: None without one. claim: what makes another call the same, None: nothing does. journey: how
    it is about to travel, None where it is not sent.
    """

    payer: str
    rate: Rate | None
    call_id: str
    caller_id: str | None
    target_id: str
    trace_id: str
    method: str
    held: bool
    serves: str | None
    limit_s: float | None
    budget: Budget | None
    claim: Claim | None = None
    journey: Journey | None = None


class Stage(Enum):
    """How far an earlier call has come: it is under way, it waits (the ledger knows how far it has come since), it has
    ended, or the replica that made it is gone."""

    RUNNING = "running"
    WAITS = "waits"
    ENDED = "ended"
    LOST = "lost"


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """The call that has a claim. `words`: whether it says the same. `answer`: of one that has ended, if it was kept.

    `again`: it has ended so that the next call with this claim is made.
    """

    call_id: str
    words: bool
    stage: Stage
    answer: Answer | None = field(default=None, repr=False)
    again: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Orphan:
    """A call whose replica has died, `age_s` seconds after it began.

    `journey`: None of an older release. `arrival`: None if it was in flight, else how it ended: its row may be lacking.
    """

    call_id: str
    target_id: str
    caller_id: str | None
    method: str
    trace_id: str
    age_s: float
    journey: Journey | None = None
    arrival: Arrival | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Travelling:
    """A pushed call as all replicas know it, `age_s` seconds after it began; `arrival` once it has ended."""

    call_id: str
    target_id: str
    caller_id: str | None
    method: str
    age_s: float
    journey: Journey
    arrival: Arrival | None


class Barred(Enum):
    """Why a call may not begin."""

    RATE = "rate"
    DEEP = "deep"
    SPENT = "spent"


@dataclass(frozen=True, kw_only=True, slots=True)
class Entered:
    """What was decided. `depth`: how many calls there are in the chain; `left_s`: until the one it serves must end.

    `held`: of the target's budget, in millionths of a cent. `earlier`: the call that this one is the same as; then this
    one has not begun. `sure`: there is no other that Redis has forgotten, and that waits.
    """

    barred: Barred | None
    standing: Standing | None
    depth: int
    left_s: float | None
    held: int = 0
    earlier: Earlier | None = None
    sure: bool = True


@dataclass(frozen=True, kw_only=True, slots=True)
class Kept:
    """What is kept of a call for those with its claim. `answer`: None where it is not kept.

    `again`: the next call with this claim is made, and only those that wait already get this answer. `waits`: it has
    not ended; the ledger has it, and its claim.
    """

    claim: Claim
    answer: Answer | None = field(default=None, repr=False)
    again: bool = False
    waits: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """A call that has ended, or waits. `cost` is in millionths of a cent; `month` that of its budget, "" without one.

    keep_s: how long it is known how deep in its chain it was, None for as long as of any call that has ended.
    kept: what others with its claim get, None where it has none. arrival: how it ended, for who asks before its row
    is written; None where it has its row.
    """

    call_id: str
    target_id: str
    trace_id: str
    month: str
    cost: int
    keep_s: float | None = None
    kept: Kept | None = None
    arrival: Arrival | None = None


EDITABLE: Final = (
    "name", "role", "tier", "parent_id", "collapsed", "runtime", "workspace_dir", "x", "y", "url", "delivery_mode",
    "budget_limit", "max_concurrent_tasks", "events_url",
)  # fmt: skip
"""What may be changed of a workspace after it was made."""

# -- PostgreSQL


class Workspaces(Protocol):
    """`store/workspaces.py`. Every method may raise StoreError."""

    async def find(self, workspace_id: str) -> Workspace | None:
        """Return one workspace, removed ones too."""

    async def list_all(self) -> Sequence[Workspace]:
        """Return all that are not removed, oldest first."""

    async def list_parents(self) -> Mapping[str, str | None]:
        """Return the parent of each that is not removed."""

    async def create(self, workspace: NewWorkspace, first_token: TokenHash | None) -> bool:
        """Write a workspace with its first token, in one transaction; False if the id is taken."""

    async def list_children(self, workspace_id: str) -> Sequence[Named]:
        """Return those directly below a workspace that are not removed, oldest first."""

    async def list_near(self, workspace_id: str, *, search: str, limit: int) -> Sequence[Workspace]:
        """Return the parent, children and siblings of a workspace in whose name or role this stands, oldest first."""

    async def remove_tree(self, workspace_id: str) -> Sequence[Named]:
        """Mark a workspace and all below it as removed, with their tokens; return those that were not so before."""

    async def edit(self, workspace_id: str, wanted: Mapping[str, Any]) -> bool:
        """Change these of EDITABLE, all or none; False if the workspace is removed or unknown. Raises Misplaced."""

    async def move(self, workspace_id: str, to: Status) -> bool:
        """Make one checked move of the status table; False if it may not or somebody else moved it first."""

    async def register(
        self,
        workspace_id: str,
        *,
        url: str | None,
        agent_card: Any,
        delivery_mode: str,
        inbound_secret: bytes | None,
        events_url: str | None = None,
    ) -> bytes | None:
        """Write what a register says and return the sealed inbound secret; one that is stored already stays."""

    async def update_card(self, workspace_id: str, agent_card: Any) -> bool:
        """Write a new card; False if the workspace is removed or unknown."""

    async def update_runtime_metadata(self, workspace_id: str, block: Mapping[str, Any]) -> None:
        """Write what a runtime declared of itself."""


class Tokens(Protocol):
    """`store/tokens.py`. Every method may raise StoreError."""

    async def find_owner(self, token_hash: bytes) -> Owner | None:
        """Return whose live token this is."""

    async def has_live(self, workspace_id: str) -> bool:
        """Return whether a workspace has any live token."""

    async def mint(
        self, workspace_id: str | None, token: TokenHash, *, limit: int, name: str | None = None
    ) -> str | None:
        """Add a token and return its id, None if `limit` are live; KeyError: no such workspace.

        workspace_id: None for one of the organisation's.
        """

    async def list_live(self, workspace_id: str | None) -> Sequence[LiveToken]:
        """Return a workspace's live tokens, or the organisation's (None), oldest first."""

    async def revoke(self, workspace_id: str | None, token_id: str) -> bytes | None:
        """Revoke one of them and return its hash; None if there is no such live token."""

    async def note_used(self, hashes: Sequence[bytes]) -> None:
        """Write that these have been used now."""


class Sessions(Protocol):
    """`store/sessions.py`. Every method may raise StoreError."""

    async def open(
        self, session_hash: bytes, *, token_id: str | None, admin_hash: bytes | None, lasts_s: float
    ) -> None:
        """Write a session that one of these has opened."""

    async def find(self, session_hash: bytes) -> OpenSession | None:
        """Return a session that may still be used."""

    async def end(self, session_hash: bytes) -> None:
        """End a session."""

    async def create_code(self, code_hash: bytes, *, admin_hash: bytes, lasts_s: float) -> None:
        """Write the code of a one-time link."""

    async def claim_code(self, code_hash: bytes) -> bytes | None:
        """Use a code up and return the hash of the operator's token it was made with; None if it is not good."""


class Liveness(Protocol):
    """`store/liveness.py`. Every method may raise StoreError."""

    async def record(self, beats: Sequence[Mapping[str, Any]]) -> None:
        """Write a batch of heartbeats, at most one a workspace."""

    async def touch(self, workspace_id: str) -> None:
        """Write a sign of life that is no heartbeat."""

    async def wait(self, waits: Sequence[Wait]) -> None:
        """Write that these wait, and with it the signs of life of those they wait for."""

    async def sign(self, workspace_ids: Sequence[str]) -> None:
        """Write that these have shown life just now, each by an event of its own."""

    async def silence(self, workspace_ids: Sequence[str]) -> Mapping[str, float]:
        """Return how many seconds each has been silent; one that was never heard is left out."""


class Silence(Protocol):
    """`services/silence.py`. May raise StoreError."""

    async def silence(self, workspace_ids: Sequence[str]) -> Mapping[str, float]:
        """Return how many seconds each has been silent; one that was never heard is left out."""


class Activity(Protocol):
    """`store/activity.py`. Every method may raise StoreError."""

    async def record(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a batch of activity rows with their usage, all or nothing; repeating it changes nothing."""

    async def usage_today(self, workspace_id: str) -> UsageOfDay:
        """Return what a workspace has used today (UTC)."""

    async def list_newest(self, workspace_id: str, filters: Filters) -> Sequence[PastLine]:
        """Return the newest rows of a workspace's history, the newest first."""

    async def list_since(self, workspace_id: str, cursor: str, filters: Filters) -> Sequence[PastLine] | None:
        """Return what came after a row, the oldest first; None if it is no row of this history (any more)."""


class Calls(Protocol):
    """`store/calls.py`. Every method may raise StoreError."""

    async def park(self, call: NewCall, row: Mapping[str, Any], *, room: int, kept_s: float = 0.0) -> bool | Same:
        """Write a call into its target's inbox, with its row of history; False if `room` messages lie there already.

        Where an earlier call has its claim nothing is written, and that one is returned: it has not ended, or less than
        `kept_s` seconds ago. One that no agent has taken, and that has ended, has no claim any more.
        """

    async def find_same(self, claim: Claim, *, kept_s: float) -> Same | None:
        """Return the call that has this claim, as `park` does; None if another may be made."""

    async def list_waiting(self, after: Waiting | None, *, limit: int) -> Sequence[Waiting]:
        """Return messages whose calls wait for busy agents, from the first to expire, or from after this one."""

    async def list_ledgered(self, call_ids: Collection[str]) -> Mapping[str, float]:
        """Return those of these calls that are ended by the ledger, each with the seconds that it may still wait."""

    async def take(self, workspace_id: str, *, limit: int, limit_bytes: int, lease_s: float) -> Sequence[Message]:
        """Lease the oldest messages that nobody has, at most so many and of so many bytes, but one at least."""

    async def next_free_s(self, workspace_id: str) -> float | None:
        """Return in how many seconds the first lease on a message ends; None if nobody has one."""

    async def keep(self, workspace_id: str, call_id: str, *, lease_s: float) -> bool:
        """Let a lease begin anew; False if the call is not in the inbox any more."""

    async def receive(self, workspace_id: str, call_id: str) -> Call | None:
        """Note that the agent has a call for which its caller waits; None if it is no such call."""

    async def end(
        self,
        workspace_id: str,
        call_id: str,
        sources: Collection[State],
        *,
        to: State,
        ending: Ending,
        answer: bytes | None,
        history: History,
        kinds: Collection[Kind] = INBOX_KINDS,
    ) -> Call | None:
        """End a call of these kinds in one of these states, and write what `history` makes of it; None for others."""

    async def end_overdue(
        self, state: State, *, to: State, ending: Ending, limit: int, history: History
    ) -> Sequence[Call]:
        """End calls in this state whose time is over, `limit` at most, each by one replica only."""

    async def call_off(self, workspace_id: str, call_id: str) -> None:
        """Note that nobody wants a call any more that the gateway sends, and list it for the process that has it.

        From then on it is not taken again. Nothing happens to any other call.
        """

    async def forget_old(self, *, kept_s: float, limit: int) -> int:
        """Take away calls that ended longer ago than this, `limit` at most; return how many those were."""

    async def find(self, workspace_id: str, call_id: str) -> Call | None:
        """Return a call to this workspace."""


class Claims(Protocol):
    """Calls that are sent by whichever process takes them. Every method may raise StoreError."""

    async def claim(
        self, workspace_id: str, *, eager: bool, limit: int, lease_s: float, answered: Collection[str] = ()
    ) -> Sequence[Claimed]:
        """Take the next calls, as many as the workspace may work on; eager: though it has just been busy.

        Those that are `answered` take no place any more, though their ends are not written yet.
        """

    async def mark_sent(self, call_id: str, claim: str) -> bool:
        """Write that a call is about to go out; False if it is not this one's any more."""

    async def renew(self, claims: Mapping[str, str], *, lease_s: float) -> None:
        """Let the leases on these begin anew: the claims by the calls' ids."""

    async def put_back(
        self, call_id: str, claim: str, *, delay_s: float, error: str | None, busy: bool, counts: bool
    ) -> bool:
        """Let a call take its old place again; False if it is not this one's any more."""

    async def end(self, call_id: str, claim: str, end: QueuedEnd, history: History) -> Call | None:
        """End a call, and write what `history` makes of it; None if it is not this one's any more."""

    async def free_lost(self, *, limit: int) -> Sequence[str]:
        """Put back those that a process had whose lease has run out, and did not send; return their workspaces."""

    async def list_waiting(self) -> Mapping[str, bool]:
        """Return the workspaces for which calls wait, and whether the first of each may be sent now."""


class Queue(Claims, Protocol):
    """`store/queue.py`. Every method may raise StoreError."""

    async def hold(
        self, call: NewQueued, row: Mapping[str, Any], *, error: str, room: int, kept_s: float = 0.0
    ) -> Placed | Same | None:
        """Write a call into the queue, with its row of history; return its place, None if `room` wait already.

        Where an earlier call has its claim nothing is written, and that one is returned, as `Calls.park` does.
        """

    async def end_overdue(self, *, limit: int, history: History) -> Sequence[Call]:
        """End those that have waited for as long as they may, `limit` at most, each by one replica only."""

    async def end_stale(
        self, older_s: float, *, workspace_id: str | None = None, limit: int, history: History
    ) -> Sequence[Call]:
        """End those that came longer ago than this, likewise; workspace_id: only those that wait for this one."""

    async def end_called_off(self, *, limit: int, history: History) -> Sequence[Call]:
        """End those that were called off and that nobody has, or that a process had and did not send, likewise."""

    async def end_lost(self, *, limit: int, history: History) -> Sequence[Call]:
        """End those that were sent by a process whose lease has run out, likewise."""

    async def position(self, workspace_id: str, call_id: str) -> int | None:
        """Return at which place a call waits, 1 for the next; None if it does not wait."""

    async def list_line(self, workspace_id: str, after: Place, *, limit: int) -> Sequence[InLine]:
        """Return the calls that wait for a workspace or are out of its queue, in its order, after this place."""


class Delegations(Protocol):
    """`store/delegation.py`. Every method may raise StoreError."""

    async def create(
        self,
        new: NewDelegation,
        rows: Sequence[Mapping[str, Any]],
        *,
        state: State,
        lane: str,
        priority: int,
        room: int,
    ) -> Call | bool:
        """Write a delegation with its rows of history, to be sent (pending) or fetched (parked).

        Returns the one that has its key already, or whether it was written: not if `room` wait for its target.
        """

    async def record(self, new: NewDelegation, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Write one that its source has sent itself; False if there is a call with its id."""

    async def find(self, source_id: str, delegation_id: str) -> Call | None:
        """Return a delegation of this workspace."""

    async def list_newest(self, source_id: str, *, limit: int) -> Sequence[PastDelegation]:
        """Return the delegations of this workspace, the newest first."""

    async def tell(self, delegation_id: str, told: str) -> Call | None:
        """Note what is said of one that its source has sent itself; None if it has ended."""

    async def end(
        self,
        delegation_id: str,
        sources: Collection[State],
        *,
        to: State,
        ending: Ending,
        answer: bytes | None,
        error: str | None,
        history: History,
    ) -> Call | None:
        """End one that no process sends, and write what `history` makes of it; None if it is none in these states."""

    async def end_overdue(self, *, limit: int, history: History) -> Sequence[Call]:
        """End those whose time is over, `limit` at most, each by one replica only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dead:
    """A process whose lease has run out. `unpublished`: events of it waited for Redis when it was last heard of.

    Then `publisher` had published them all once Redis had had `count` of it; "" if that is not known.
    """

    id: str
    unpublished: bool
    publisher: str = ""
    count: int = 0


class Instances(Protocol):
    """`store/instances.py`. Every method may raise StoreError."""

    async def renew(self, instance_id: str, *, lease_s: float, unpublished: bool, publisher: str, count: int) -> None:
        """Say that a process is alive, and whether events of it wait for Redis, up to which one."""

    async def leave(self, instance_id: str) -> None:
        """Say that a process has ended in good order."""

    async def find_alive(self, publishers: Sequence[str]) -> Collection[str]:
        """Return which of these publish for a process whose lease has not run out."""

    async def bury(self) -> Sequence[Dead]:
        """Take away the processes whose lease has run out, and return them; each is returned to one caller only."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DeclaredFeed:
    """A workspace that tells of its own events at this url. `declared`: when that was said last, for comparing.

    pinned: its runtime wants it to be read always. gave_up: nobody reads it for now.
    """

    workspace_id: str
    url: str
    declared: str
    pinned: bool
    gave_up: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class GrantedFeed:
    """A feed that one process reads alone; it goes on after `last_id` ("": from now). The secret is sealed."""

    workspace_id: str
    url: str
    declared: str
    last_id: str
    inbound_secret: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedReport:
    """How the subscription to a feed stands; `events` have been told on since the last report.

    rests_s: for how long nobody takes it, unless it is declared anew; None: not at all.
    """

    workspace_id: str
    state: FeedState
    reason: str | None
    last_id: str
    events: int
    rests_s: float | None = None


class Feeds(Protocol):
    """`store/feeds.py`: who reads which feed. Every method may raise StoreError."""

    async def list_declared(self, workspace_ids: Collection[str] | None) -> Sequence[DeclaredFeed]:
        """Return the feeds of those of these workspaces (None: all) whose agent may be there."""

    async def want(self, workspace_ids: Collection[str], *, linger_s: float) -> None:
        """Say that somebody wants these now; they are read for as long as this after it was said last, roughly."""

    async def claim(
        self, holder: str, *, lease_s: float, besides: Collection[str], limit: int
    ) -> Sequence[GrantedFeed]:
        """Take feeds that somebody wants and nobody reads, but for these; each is given to one process only."""

    async def renew(self, holder: str, reports: Sequence[FeedReport], *, lease_s: float) -> Mapping[str, bool]:
        """Let leases begin anew; return those that are still this one's, and whether somebody wants each."""

    async def release(self, holder: str, reports: Sequence[FeedReport]) -> None:
        """Let others have them, those that are still this one's."""


class Changes(Protocol):
    """`store/changes.py`. Every method may raise StoreError."""

    async def horizon(self) -> str:
        """Return the transaction below which every change is visible."""

    async def list_since(self, horizon: str) -> tuple[Sequence[Change], str]:
        """Return the changes since a horizon (some may come twice) and the new horizon."""

    async def call_off(self, call_id: str) -> None:
        """List a call that its process is to end."""

    async def forget_old(self) -> None:
        """Drop rows that no cache needs any more."""


# -- Redis


class LiveUnavailable(Exception):
    """Redis is away, or does not answer in time."""


class Gate(Protocol):
    """`live/gate.py`: what all replicas decide together. Nobody waits for a Redis that is known to be away.

    `ups`: how often Redis has come up; `told`: the last of these after which it was told of all messages that wait.
    """

    ups: int
    told: int

    async def take(self, payer: str, rate: Rate) -> Standing:
        """Take one request out of a bucket. Raises LiveUnavailable."""

    async def enter(self, entry: Entry) -> Entered:
        """Let a call begin, or not. Raises LiveUnavailable."""

    async def look(self, claim: Claim) -> Earlier | None:
        """Return the call that has a claim. Raises LiveUnavailable."""

    async def find(self, call_id: str) -> Travelling | None:
        """Return a pushed call that has not ended, or has a moment ago. Raises LiveUnavailable."""

    async def remember(self, waiting: Waiting) -> None:
        """Say that a message's call waits, unless that is known. Raises LiveUnavailable."""

    async def has_lost(self, call_id: str, age_s: float) -> bool:
        """Return whether another replica has taken over a call of this one that began so long ago. Raises
        LiveUnavailable."""

    def leave(self, left: Left) -> None:
        """Say that a call has ended, now or once Redis is back."""

    def let_go(self, call_ids: Collection[str]) -> None:
        """Say that the rows of these calls are written, now or once Redis is back: nobody has to inherit them."""


class Leases(Protocol):
    """`live/leases.py`: which replicas live, and what those that do not have left."""

    async def lapsed(self) -> Sequence[str]:
        """Return the replicas that have calls in flight and no lease. Raises LiveUnavailable."""

    async def inherit(self, replica: str) -> tuple[Sequence[Orphan], bool]:
        """Take over some calls of a replica without a lease; return them, and whether there may be more.

        Raises LiveUnavailable.
        """


# -- the rest of the world


class Vault(Protocol):
    """`store/vault.py`: seals what must be stored and read back, so that the database alone gives nothing away."""

    def seal(self, secret: str) -> bytes:
        """Return the sealed form."""

    def unseal(self, sealed: bytes) -> str | None:
        """Return the secret, or None if it was sealed with another key."""


@dataclass(frozen=True, kw_only=True, slots=True)
class FeedSource:
    """Where the events of a workspace's agent come from, and where to go on ("": from now)."""

    workspace_id: str
    url: str
    last_id: str
    secret: str | None = field(default=None, repr=False)


class FeedListener(Protocol):
    """Who reads a feed."""

    def opened(self) -> None:
        """Learn that the agent has begun its stream."""

    async def heard(self, came: ServerEvent) -> None:
        """Take an event; the next one is not read before this returns."""

    def passed(self, last_id: str, dropped: int) -> None:
        """Learn where to go on, after what has come, and how many events have been too large since it was opened."""


class EventFeed(Protocol):
    """`net/event_feed.py`."""

    async def read(self, source: FeedSource, listener: FeedListener) -> How:
        """Read until the connection ends and return how; raises what the listener raises."""


class Dispatcher(Protocol):
    """`net/dispatch.py`."""

    async def send(self, outbound: Outbound, begin: Begin | None = None) -> Outcome:
        """Make the call and return what happened; never raises but when it is itself cancelled.

        An answer that is a stream goes, as it comes, to what `begin` returns; without it streams are read to their end.
        """
