"""A task that one workspace leaves to another: written down before it is promised, and told of at its end."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, assert_never

from events.bus import Bus
from events.event import event
from gateway import ports
from gateway.core import answers, delegation, queue, views
from gateway.core.callers import Holder, Principal
from gateway.core.calls import END_STATES, Call, State
from gateway.core.delegation import Follows, Report, Status
from gateway.core.endings import Ending
from gateway.core.ids import is_of_line, new_id
from gateway.core.refusals import Code, Refusal, bad_field, platform_unavailable
from gateway.core.trace import continued, trace_id
from gateway.core.workspaces import Workspace
from gateway.services.activity import ActivityLog, Line
from gateway.services.admission import Admission
from gateway.services.directory import Directory
from gateway.services.entrance import Entrance, Wish
from gateway.services.history import ended_row, publish_end, publish_status, sent_line
from gateway.services.inbox import ended, unknown_call
from gateway.services.parking import Parking
from gateway.services.tolls import Toll, Tolls

FULL_RETRY_S: Final = 30
REPORTED: Final = frozenset({State.PARKED, State.DISPATCHED})
"""Where a delegation may be that ends by what is said of it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Times:
    """Seconds: how long one may wait to be sent, to be fetched, and how long its agent may take."""

    waits_s: float
    parked_s: float
    takes_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Asked:
    """A delegation as it was asked for; `headers` finds names whatever their case."""

    source_id: str
    target_id: str
    task: str = field(repr=False)
    key: str | None
    request_id: str
    toll: Toll
    headers: Mapping[str, str] = field(repr=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Delegated:
    """One that is written. `same`: how the one stands that has the key already, None if this is a new one."""

    id: str
    target_id: str
    same: Status | None


class Delegations:
    """Takes, lists and ends delegations; `room` of them may wait for one workspace.

    `came` is told for which workspace one is to be sent.
    """

    def __init__(
        self,
        *,
        delegations: ports.Delegations,
        directory: Directory,
        admission: Admission,
        tolls: Tolls,
        entrance: Entrance,
        parking: Parking,
        activity: ActivityLog,
        bus: Bus,
        came: Callable[[str], None],
        times: Times,
        room: int,
    ) -> None:
        self._delegations = delegations
        self._directory = directory
        self._admission = admission
        self._tolls = tolls
        self._entrance = entrance
        self._parking = parking
        self._activity = activity
        self._bus = bus
        self._came = came
        self._times = times
        self._room = room

    # -- a new one

    async def delegate(self, asked: Asked) -> Delegated:
        """Write a delegation down; from then on it is sent though nobody waits, by whatever process is there.

        Refuses as a call is refused, and with platform_unavailable if it cannot be written: then there is none.
        """
        try:
            target = await self._admit(asked.source_id, asked.target_id)
        except Refusal:
            await self._tolls.take(asked.toll)
            raise
        id_ = new_id()
        trace = continued(asked.headers.get("traceparent"), asked.headers.get("tracestate"))
        polls = self._parking.takes(target)
        new = ports.NewDelegation(
            id=id_,
            source_id=asked.source_id,
            target_id=target.id,
            method=delegation.METHOD,
            body=delegation.message(id_, asked.task),
            summary=delegation.summary(asked.task),
            result_id=new_id(),
            lives_s=self._times.parked_s if polls else self._times.waits_s,
            key=asked.key,
            outgoing=None if polls else self._outgoing(asked, id_, trace),
        )
        wish = Wish(
            call_id=id_,
            caller_id=asked.source_id,
            target=target,
            trace_id=trace_id(trace["traceparent"]),
            method=new.method,
            serves=asked.headers.get("X-A2A-Call-ID"),
            limit_s=new.lives_s,
            holds=False,
        )
        ticket = await self._entrance.enter(asked.toll, wish)
        written = False
        try:
            same = await self._write(new, State.PARKED if polls else State.PENDING)
            written = same is None
        finally:
            if not written:
                self._entrance.leave(ticket, 0)
            elif not polls:  # it begins again when it is sent, as deep in its chain as it is now
                self._entrance.leave(ticket, 0, waits_s=new.lives_s)
        if same is not None:
            status = delegation.status(same.state, same.told)
            return Delegated(id=same.id, target_id=same.workspace_id, same=status)
        if not polls:
            self._came(target.id)
        return Delegated(id=id_, target_id=target.id, same=None)

    async def _admit(self, source_id: str, target_id: str) -> Workspace:
        await self._check(source_id, target_id)
        return await self._admission.admit_from(source_id, target_id)

    async def _check(self, source_id: str, target_id: str) -> None:
        await self._directory.get(source_id)
        if source_id == target_id:
            raise bad_field("target_id", "must be another workspace")

    def _outgoing(self, asked: Asked, id_: str, trace: Mapping[str, str]) -> ports.Outgoing:
        headers = {
            "Content-Type": answers.JSON,
            **trace,
            "X-Request-ID": asked.request_id,
            "X-A2A-Call-ID": id_,
            "X-Workspace-ID": asked.source_id,
        }
        return ports.Outgoing(headers=headers, limit_s=self._times.takes_s, by_deadline=False)

    async def _write(self, new: ports.NewDelegation, state: State) -> Call | None:
        """Write it and tell of it; return the one that has its key already."""
        lines = _lines(new, State.QUEUED if state is State.PARKED else state)
        try:
            written = await self._delegations.create(
                new,
                [line.row(0.0) for line in lines],
                state=state,
                lane=new.source_id,
                priority=queue.NORMAL,
                room=self._room,
            )
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if isinstance(written, Call):
            return written
        if not written:
            raise Refusal(Code.OVERLOADED, "too many tasks wait for the agent", retry_after_s=FULL_RETRY_S)
        self._tell(new, lines)
        return None

    def _tell(self, new: ports.NewDelegation, lines: Sequence[Line]) -> None:
        for line in lines:
            self._activity.tell(line)
        shown = {"delegation_id": new.id, "target_id": new.target_id, "task_preview": new.summary}
        self._bus.publish(event("DELEGATION_SENT", new.source_id, shown))

    # -- those that there are

    async def list(self, source_id: str) -> Sequence[ports.PastDelegation]:
        """Return the delegations of a workspace, the newest first."""
        await self._directory.get(source_id)
        try:
            return await self._delegations.list_newest(source_id, limit=delegation.LISTED)
        except ports.StoreError as error:
            raise platform_unavailable() from error

    async def record(self, source_id: str, target_id: str, task: str, delegation_id: str) -> None:
        """Note a delegation that its source has sent itself; to do so twice changes nothing.

        Refuses an id that another call has.
        """
        await self._check(source_id, target_id)
        if is_of_line(delegation_id) or await self._entrance.knows(delegation_id):
            raise bad_field("delegation_id", "is that of another call")
        if not await self._admission.may_talk(source_id, target_id):
            raise Refusal(Code.CANNOT_COMMUNICATE, "access denied: workspaces cannot communicate per hierarchy rules")
        await self._directory.get(target_id)
        new = ports.NewDelegation(
            id=delegation_id,
            source_id=source_id,
            target_id=target_id,
            method=delegation.METHOD,
            body=delegation.message(delegation_id, task),
            summary=delegation.summary(task),
            result_id=new_id(),
            lives_s=self._times.waits_s,
        )
        lines = _lines(new, State.DISPATCHED, counts=False)
        try:
            if await self._delegations.record(new, [line.row(0.0) for line in lines]):
                self._tell(new, lines)
                return
            found = await self._delegations.find(source_id, delegation_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if found is None or found.workspace_id != target_id or found.summary != new.summary:
            raise bad_field("delegation_id", "is that of another call")

    async def update(
        self, principal: Principal, source_id: str, delegation_id: str, report: Report, text: str | None
    ) -> Status:
        """Take what its source or its target says of a delegation, and return how that stands now.

        text: how the answer begins, or what went wrong. To say the same twice changes nothing. Refuses with not_found,
        with call_ended after another end, and with call_under_way what the gateway sends itself.
        """
        try:
            call = await self._get(principal, source_id, delegation_id)
            match delegation.decide_report(call, report):
                case Follows.NOTHING:
                    return delegation.status(call.state, call.told)
                case Follows.LATE:
                    raise ended(call)
                case Follows.UNDER_WAY:
                    raise Refusal(Code.CALL_UNDER_WAY, "the gateway has the delegation", state=call.state.value)
                case Follows.NOTE:
                    moved = await self._delegations.tell(call.id, report.value)
                    if moved is not None:
                        publish_status(self._bus, moved, moved.state)
                case Follows.END:
                    moved = await self._end(call, report, text)
                case never:
                    assert_never(never)
            if moved is None:  # somebody else was faster
                moved = await self._get(principal, source_id, delegation_id)
                if moved.ended and delegation.status(moved.state, moved.told) is not Status(report):
                    raise ended(moved)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        return delegation.status(moved.state, moved.told)

    async def _get(self, principal: Principal, source_id: str, delegation_id: str) -> Call:
        call = await self._delegations.find(source_id, delegation_id)
        if call is None or (
            isinstance(principal, Holder) and principal.workspace_id not in (call.caller_id, call.workspace_id)
        ):
            raise unknown_call()
        return call

    async def _end(self, call: Call, report: Report, text: str | None) -> Call | None:
        done = report is Report.COMPLETED
        ending = Ending.COMPLETED if done else Ending.AGENT_ERROR
        answer = delegation.answer(call.id, text) if done and text else None
        lines: list[Line] = []

        def history(call: Call) -> tuple[Mapping[str, Any], Sequence[Mapping[str, Any]]]:
            lines.extend(sent_line(call))
            shown = None if answer is None else views.view(answer, views.parse(answer))
            return ended_row(call, shown), [line.row(0.0) for line in lines]

        moved = await self._delegations.end(
            call.id,
            REPORTED,
            to=END_STATES[ending],
            ending=ending,
            answer=answer,
            error=None if done else text or ending.value,
            history=history,
        )
        if moved is None:
            return None
        for line in lines:
            self._activity.tell(line)
        publish_end(self._bus, moved, via="update")
        return moved


def _lines(new: ports.NewDelegation, state: State, *, counts: bool = True) -> Sequence[Line]:
    """What its target and its source read of a delegation that begins."""
    return [
        Line(
            id=new.id,
            workspace_id=new.target_id,
            activity_type="a2a_receive",
            method=new.method,
            summary=f"{new.method}: {state.value}",
            status=state.value,
            source_id=new.source_id,
            target_id=new.target_id,
            call_id=new.id,
            request_body=views.view(new.body, views.parse(new.body)),
            counts=counts,
        ),
        Line(
            workspace_id=new.source_id,
            activity_type="a2a_send",
            method="delegate",
            summary=new.summary,
            status=state.value,
            source_id=new.source_id,
            target_id=new.target_id,
            call_id=new.id,
        ),
    ]
