"""What anybody may learn of a stored call who has a part in it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from events.bus import Bus
from gateway import ports
from gateway.core.callers import Admin, Anonymous, Holder, Local, Member, Principal, Stranger, System
from gateway.core.calls import Call, Kind, State
from gateway.core.endings import Ending
from gateway.core.refusals import Code, Refusal, credential_required, invalid_credential, platform_unavailable
from gateway.services.activity import ActivityLog, Line
from gateway.services.history import ended_row, publish_end, sent_line
from gateway.services.inbox import ended, unknown_call

WAITING: Final = frozenset({State.PARKED, State.QUEUED})
"""A call can be called off while its agent does not work on it."""


class Calls:
    """Shows calls to their callers, their targets and the organisation, who may call them off; for everybody else
    there are none."""

    def __init__(self, *, calls: ports.Calls, queue: ports.Queue, activity: ActivityLog, bus: Bus) -> None:
        self._calls = calls
        self._queue = queue
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
        """Call off a call that waits, and return it; to do so twice changes nothing.

        Refuses with not_found, call_ended, and with call_under_way where its agent may have it already.
        """
        await self._find(principal, workspace_id, call_id)
        lines: list[Line] = []

        def history(call: Call) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
            lines.extend(sent_line(call))
            return ended_row(call), [line.row(0.0) for line in lines]

        try:
            call = await self._calls.end(
                workspace_id,
                call_id,
                WAITING,
                to=State.CANCELLED,
                ending=Ending.CANCELLED,
                answer=None,
                history=history,
                kinds=tuple(Kind),
            )
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if call is None:
            found = await self._find(principal, workspace_id, call_id)
            if found.state is State.CANCELLED:
                return found
            raise (
                ended(found)
                if found.ended
                else Refusal(Code.CALL_UNDER_WAY, "the call has been sent to its agent", state=found.state.value)
            )
        for line in lines:
            self._activity.tell(line)
        publish_end(self._bus, call)
        return call

    async def _find(self, principal: Principal, workspace_id: str, call_id: str) -> Call:
        try:
            call = await self._calls.find(workspace_id, call_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if call is None or not _may_see(principal, call):
            raise unknown_call()
        return call


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
