"""The ledger of calls, with the inboxes that are in it."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Protocol

from gateway.core.calls import INBOX_KINDS, Call, Kind, State
from gateway.core.claims import Claim
from gateway.core.endings import Ending


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


History = Callable[[Call], tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]]
"""Makes of a call that has ended what becomes of its row of history, and the rows that are new."""


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
