"""What anybody may learn of a stored call who has a part in it."""

from gateway import ports
from gateway.core.callers import Admin, Anonymous, Holder, Local, Member, Principal, Stranger, System
from gateway.core.calls import Call, State
from gateway.core.refusals import Code, Refusal, credential_required, invalid_credential, platform_unavailable
from gateway.services.inbox import unknown_call


class Calls:
    """Shows calls to their callers, their targets and the organisation; for everybody else there are none."""

    def __init__(self, calls: ports.Calls) -> None:
        self._calls = calls

    async def get(self, principal: Principal, workspace_id: str, call_id: str) -> Call:
        """Return a call to this workspace; refuses with not_found, and with expired where its time was over."""
        try:
            call = await self._calls.find(workspace_id, call_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if call is None or not _may_see(principal, call):
            raise unknown_call()
        if call.state is State.EXPIRED:
            raise Refusal(
                Code.EXPIRED,
                "the call's time was over before its agent fetched it",
                id=call.id,
                state=call.state.value,
                ended_at=None if call.ended_at is None else call.ended_at.isoformat(),
            )
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
