"""What an agent that polls does with its messages: it fetches, keeps, acknowledges and answers them."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from time import monotonic
from typing import Any, Final

import structlog

from events.bus import Bus
from gateway import ports
from gateway.core import usage, views
from gateway.core.calls import MOVES, Call, State
from gateway.core.endings import Ending
from gateway.core.envelope import STREAMING_METHODS
from gateway.core.prices import Prices
from gateway.core.refusals import Code, Refusal, platform_unavailable
from gateway.core.workspaces import Workspace
from gateway.services.activity import ActivityLog, Line
from gateway.services.directory import Directory
from gateway.services.history import ended_row, publish_answer, publish_end, sent_line
from gateway.services.wakes import Wakes, heard

log = structlog.get_logger("gateway.inbox")

TAKE_BYTES: Final = 4 * 1024 * 1024
"""What the messages of one answer may come to, or one message alone."""
LEAST_WAIT_S: Final = 0.05
"""A lease that has just run out is given this long, by the database's clock and ours."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Taken:
    """Messages under a lease of so many seconds."""

    messages: Sequence[ports.Message] = field(repr=False)
    lease_s: float


class Inbox:
    """The inboxes of all workspaces. Seconds: how long a lease lasts, and how long one may wait for a message.

    `leave` is told which call has been answered, and what that has cost its workspace, in millionths of a cent.
    """

    def __init__(
        self,
        *,
        calls: ports.Calls,
        activity: ActivityLog,
        directory: Directory,
        bus: Bus,
        prices: Prices,
        journal: ports.Journal,
        leave: Callable[[Workspace, str, int], None],
        agents: Wakes,
        lease_s: float,
        wait_s: float,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._calls = calls
        self._activity = activity
        self._directory = directory
        self._bus = bus
        self._prices = prices
        self._journal = journal
        self._leave = leave
        self._agents = agents
        self._lease_s = lease_s
        self._wait_s = wait_s
        self._now = now

    async def take(
        self,
        workspace_id: str,
        *,
        wait_s: float,
        limit: int,
        gone: Callable[[], bool],
        check: Callable[[], Awaitable[None]],
    ) -> Taken:
        """Return the oldest messages that nobody else has; wait for one if there is none.

        wait_s: at most, and never longer than may be. gone: tells whether the agent has hung up: then it gets none.
        check: refuses who may not have them any more, asked before they are taken after a wait.
        Looks when it is asked, when something has come, when a lease has run out, and at the end; in between nothing
        is asked of the database.
        """
        await self._directory.get(workspace_id)
        if self._agents.closed:
            raise Refusal(Code.DRAINING, "the gateway is shutting down", retry_after_s=5)
        if wait_s and self._agents.full:
            raise Refusal(Code.OVERLOADED, "too many agents wait for messages", retry_after_s=2)
        until = self._now() + min(wait_s, self._wait_s)
        while True:
            with self._agents.waiting(workspace_id) as woken:
                taken = await self._look(workspace_id, limit)
                left_s = until - self._now()
                if taken or left_s <= 0 or self._agents.closed:
                    return Taken(messages=taken, lease_s=self._lease_s)
                free_s = await self._next_free_s(workspace_id)
                await heard(woken, left_s if free_s is None else min(left_s, max(free_s, LEAST_WAIT_S)), gone)
            if gone():
                return Taken(messages=(), lease_s=self._lease_s)
            await check()

    async def _look(self, workspace_id: str, limit: int) -> Sequence[ports.Message]:
        try:
            return await self._calls.take(workspace_id, limit=limit, limit_bytes=TAKE_BYTES, lease_s=self._lease_s)
        except ports.StoreError as error:
            raise platform_unavailable() from error

    async def _next_free_s(self, workspace_id: str) -> float | None:
        try:
            return await self._calls.next_free_s(workspace_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error

    async def keep(self, workspace_id: str, call_id: str, event: bytes | None) -> State:
        """Let the lease on a message begin anew, since its agent still works on it, and return the call's state.

        event: what the agent tells of it, for a caller that streams, if anything; while Redis is away it is lost.
        Refuses with call_ended or not_found.
        """
        await self._directory.get(workspace_id)
        try:
            kept = await self._calls.keep(workspace_id, call_id, lease_s=self._lease_s)
            found = await self._get(workspace_id, call_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if not kept:
            raise ended(found)
        if event is not None and found.method in STREAMING_METHODS:
            try:
                await self._journal.add(call_id, event)
            except ports.LiveUnavailable:
                log.warning("event_lost", call_id=call_id, workspace_id=workspace_id)
        return found.state

    async def acknowledge(self, workspace_id: str, call_id: str) -> State:
        """Note that the agent has a message for good, and return the call's state; to do so twice changes nothing.

        A call for whose answer nobody waits ends with it. Refuses with call_ended or not_found.
        """
        target = await self._directory.get(workspace_id)
        try:
            received = await self._calls.receive(workspace_id, call_id)
            if received is not None:
                return received.state
            acknowledged = await self._end(target, call_id, Ending.DELIVERED_TO_INBOX, None, {State.PARKED})
            if acknowledged is not None:
                return acknowledged.state
            found = await self._get(workspace_id, call_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if found.ended and found.ending is not Ending.DELIVERED_TO_INBOX:
            raise ended(found)
        return found.state

    async def reply(self, workspace_id: str, call_id: str, answer: bytes) -> State:
        """Answer a call with the bytes of a JSON-RPC response, and return its state.

        The same answer once more changes nothing; another one is refused with call_ended. Its caller gets it wherever
        it waits. Refuses with not_found.
        """
        target = await self._directory.get(workspace_id)
        try:
            replied = await self._end(target, call_id, Ending.COMPLETED, answer, MOVES[State.COMPLETED])
            found = replied or await self._get(workspace_id, call_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if found.answer != answer:
            raise ended(found)
        return found.state

    async def _end(
        self, target: Workspace, call_id: str, ending: Ending, answer: bytes | None, sources: Collection[State]
    ) -> Call | None:
        """End a call that is in one of these states, write its history and tell everybody."""
        said = None if answer is None else views.parse(answer)
        shown = None if answer is None else views.view(answer, said)
        used = usage.find(answer) if answer is not None and len(answer) > views.VIEW_BYTES else usage.read(said)
        cost = self._prices.cost(target.model, used)
        lines: list[Line] = []

        def history(call: Call) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
            lines.extend(sent_line(call))
            return ended_row(call, shown, used, cost), [line.row(0.0) for line in lines]

        call = await self._calls.end(
            target.id, call_id, sources, to=State.COMPLETED, ending=ending, answer=answer, history=history
        )
        if call is None:
            return None
        self._leave(target, call_id, cost)
        for line in lines:
            self._activity.tell(line)
        if answer is not None and call.caller_id is None:
            publish_answer(self._bus, target.id, answer, shown, method=call.method, duration_ms=call.duration_ms)
        publish_end(self._bus, call, via="inbox")
        return call

    async def _get(self, workspace_id: str, call_id: str) -> Call:
        found = await self._calls.find(workspace_id, call_id)
        if found is None:
            raise unknown_call()
        return found


def unknown_call() -> Refusal:
    """Refuse because there is no such call, or none that this one may know of."""
    return Refusal(Code.NOT_FOUND, "no such call")


def ended(call: Call) -> Refusal:
    """Refuse because a call has come to its end."""
    ending = None if call.ending is None else call.ending.value
    return Refusal(Code.CALL_ENDED, "the call has ended", state=call.state.value, ending=ending)
