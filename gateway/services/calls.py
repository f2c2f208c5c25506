"""What anybody may learn of a call who has a part in it, and its end if they want it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from events.bus import Bus
from gateway import ports
from gateway.core.callers import Admin, Anonymous, Holder, Local, Member, Principal, Stranger, System
from gateway.core.calls import Call, Kind, State
from gateway.core.endings import Ending
from gateway.core.refusals import Code, Refusal, credential_required, invalid_credential, platform_unavailable
from gateway.services.activity import ActivityLog, Line
from gateway.services.cancelling import Cancelling
from gateway.services.history import ended_row, publish_end, sent_line
from gateway.services.inbox import ended, unknown_call
from gateway.services.pushed import Pushed

WAITING: Final = frozenset({State.PENDING, State.PARKED, State.QUEUED})
"""Where a stored call may be that nobody has: it ends in the ledger alone."""


class Calls:
    """Shows calls to their callers, their targets and the organisation, who may call them off; for everybody else
    there are none."""

    def __init__(
        self,
        *,
        calls: ports.Calls,
        queue: ports.Queue,
        pushed: Pushed,
        cancelling: Cancelling,
        activity: ActivityLog,
        bus: Bus,
    ) -> None:
        self._calls = calls
        self._queue = queue
        self._pushed = pushed
        self._cancelling = cancelling
        self._activity = activity
        self._bus = bus

    async def get(self, principal: Principal, workspace_id: str, call_id: str) -> Call:
        """Return a call to this workspace; refuses with not_found, and with expired where its time was over."""
        call = await self._find(principal, workspace_id, call_id)
        if call.state is State.EXPIRED:
            raise Refusal(
                Code.EXPIRED,
                "the call's time was over before its agent took it",
                id=call.id,
                state=call.state.value,
                ended_at=None if call.ended_at is None else call.ended_at.isoformat(),
            )
        return call

    async def get_queued(self, principal: Principal, workspace_id: str, call_id: str) -> tuple[Call, int | None]:
        """Return a call that waited or waits for a busy agent, and its place, None if it does not wait any more.

        Refuses as `get` does.
        """
        call = await self.get(principal, workspace_id, call_id)
        if call.kind is not Kind.QUEUED:
            raise unknown_call()
        try:
            return call, await self._queue.position(workspace_id, call_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error

    async def cancel(self, principal: Principal, workspace_id: str, call_id: str) -> Call:
        """Call off a call that waits or is sent, and return it; to do so twice changes nothing.

        One that is sent may still be under way then, if the replica that has it was slow to say so. Refuses with
        not_found, call_ended, and with call_under_way what an agent has got without the gateway having sent it.
        """
        call = await self._find(principal, workspace_id, call_id)
        if call.kind is Kind.PUSH:
            call = await self._cancel_pushed(call)
        if call.kind is not Kind.PUSH and not call.ended:  # it may have begun to wait meanwhile
            call = await self._cancel_stored(call)
        if call.ended and call.state is not State.CANCELLED:
            raise ended(call)
        return call

    async def _cancel_pushed(self, call: Call) -> Call:
        if call.ended:
            return call
        try:
            called_off = await self._cancelling.cancel_pushed(call)
            if not called_off.ended:  # its end may be told by its row alone
                called_off = await self._calls.find(call.workspace_id, call.id) or called_off
        except ports.StoreError as error:
            raise platform_unavailable() from error
        return called_off

    async def _cancel_stored(self, call: Call) -> Call:
        try:
            found = await self._cancel_waiting(call)
            if found.ended:
                return found
            if not found.carried:
                raise Refusal(Code.CALL_UNDER_WAY, "its agent has the call", state=found.state.value)
            found = await self._cancelling.cancel_stored(found)
            return found if found.ended else await self._cancel_waiting(found)  # it may have come back
        except ports.StoreError as error:
            raise platform_unavailable() from error

    async def _cancel_waiting(self, call: Call) -> Call:
        """End a call that nobody has, and return it; or as it stands, where somebody has it or it has ended."""
        lines: list[Line] = []

        def history(call: Call) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
            lines.extend(sent_line(call))
            return ended_row(call), [line.row(0.0) for line in lines]

        cancelled = await self._calls.end(
            call.workspace_id,
            call.id,
            WAITING,
            to=State.CANCELLED,
            ending=Ending.CANCELLED,
            answer=None,
            history=history,
            kinds=tuple(Kind),
        )
        if cancelled is None:
            return await self._calls.find(call.workspace_id, call.id) or call
        for line in lines:
            self._activity.tell(line)
        publish_end(self._bus, cancelled)
        return cancelled

    async def _find(self, principal: Principal, workspace_id: str, call_id: str) -> Call:
        call = await self._look(workspace_id, call_id)
        if call is None or not _may_see(principal, call):
            raise unknown_call()
        return call

    async def _look(self, workspace_id: str, call_id: str) -> Call | None:
        """Return a call from where it is: this process, its row, or its record; refuses where it may be in one of them
        that does not answer."""
        here = self._pushed.find_here(workspace_id, call_id)
        if here is not None:
            return here
        away: Exception | None = None
        try:
            stored = await self._calls.find(workspace_id, call_id)
            if stored is not None:
                return stored
        except ports.StoreError as error:
            away = error
        try:
            travelling = await self._pushed.find(workspace_id, call_id)
            if travelling is not None:
                return travelling
        except ports.LiveUnavailable as error:
            away = error
        if away is not None:
            raise platform_unavailable() from away
        return None


def _may_see(principal: Principal, call: Call) -> bool:
    match principal:
        case Admin() | Member() | Local() | System():
            return True
        case Holder(workspace_id=asks):
            return asks in (call.workspace_id, call.caller_id)
        case Stranger():
            raise invalid_credential()
        case Anonymous():
            raise credential_required()
