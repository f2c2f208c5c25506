"""How delegations are kept: written with their history before they are promised, and sent by whoever claims them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from gateway.core.calls import Call, Kind, State, allowed
from gateway.core.endings import Ending
from gateway.ports import Claimed, History, NewDelegation, PastDelegation, QueuedEnd
from gateway.store.calls import from_row, write_history
from gateway.store.db import Database, Json, Row
from gateway.store.queue import QueueStore, as_json, claimed
from sql import load

_SQL: Final = load("delegation")
_ACTIVITY: Final = load("activity")
OVERDUE: Final = frozenset({State.PENDING, State.PARKED, State.DISPATCHED})


def past(row: Row) -> PastDelegation:
    """Return the delegation in a row of `list_newest`."""
    return PastDelegation(
        id=row["id"],
        source_id=row["caller_id"],
        target_id=row["workspace_id"],
        state=State(row["state"]),
        told=row["told"],
        summary=row["summary"] or "",
        ending=None if row["ending"] is None else Ending(row["ending"]),
        error=row["last_error"],
        preview=row["preview"],
        created_at=row["created_at"],
    )


class DelegationStore:
    """`ports.Delegations` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

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
        async with self._database.transaction() as transaction:
            written = await transaction.fetch_one(
                _SQL["create"],
                **_fields(new),
                state=state.value,
                lane=lane,
                priority=priority,
                outgoing=None if new.outgoing is None else as_json(new.outgoing),
                task_key=new.key,
                room=room,
            )
            if written is not None:
                await transaction.execute(_ACTIVITY["record"], rows=Json(list(rows)))
                return True
            if new.key is None:
                return False
            same = await transaction.fetch_one(_SQL["find_same"], caller_id=new.source_id, task_key=new.key)
        return False if same is None else from_row(same)

    async def record(self, new: NewDelegation, rows: Sequence[Mapping[str, Any]]) -> bool:
        """Write one that its source has sent itself; False if there is a call with its id."""
        async with self._database.transaction() as transaction:
            written = await transaction.fetch_one(_SQL["record"], **_fields(new), state=State.DISPATCHED.value)
            if written is None:
                return False
            await transaction.execute(_ACTIVITY["record"], rows=Json(list(rows)))
        return True

    async def find(self, source_id: str, delegation_id: str) -> Call | None:
        """Return a delegation of this workspace."""
        row = await self._database.fetch_one(_SQL["find"], idempotent=True, id=delegation_id, caller_id=source_id)
        return None if row is None else from_row(row)

    async def list_newest(self, source_id: str, *, limit: int) -> Sequence[PastDelegation]:
        """Return the delegations of this workspace, the newest first."""
        rows = await self._database.fetch(_SQL["list_newest"], idempotent=True, caller_id=source_id, limit=limit)
        return [past(row) for row in rows]

    async def tell(self, delegation_id: str, told: str) -> Call | None:
        """Note what is said of one that its source has sent itself; None if it has ended."""
        row = await self._database.fetch_one(_SQL["tell"], idempotent=True, id=delegation_id, told=told)
        return None if row is None else from_row(row)

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
        async with self._database.transaction() as transaction:
            row = await transaction.fetch_one(
                _SQL["end"],
                id=delegation_id,
                to=to.value,
                ending=ending.value,
                answer=answer,
                error=error,
                sources=allowed(to, sources),
            )
            if row is None:
                return None
            call = from_row(row)
            await write_history(transaction, [call], history)
        return call

    async def end_overdue(self, *, limit: int, history: History) -> Sequence[Call]:
        """End those whose time is over, `limit` at most, each by one replica only."""
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch(
                _SQL["end_overdue"],
                to=State.EXPIRED.value,
                ending=Ending.EXPIRED.value,
                sources=allowed(State.EXPIRED, OVERDUE),
                limit=limit,
            )
            calls = [from_row(row) for row in rows]
            await write_history(transaction, calls, history)
        return calls


class DelegationClaims:
    """`ports.Claims` over PostgreSQL: delegations before they are sent for the first time.

    A claim on them is a lease beside their state: when it runs out, whoever looks next has them.
    """

    def __init__(self, database: Database, queue: QueueStore) -> None:
        self._database = database
        self._queue = queue

    async def claim(
        self, workspace_id: str, *, eager: bool, limit: int, lease_s: float, answered: Collection[str] = ()
    ) -> Sequence[Claimed]:
        """Take the oldest that are due, however many are out already: only a busy agent lets calls wait."""
        rows = await self._database.fetch(_SQL["claim"], workspace_id=workspace_id, limit=limit, lease_s=lease_s)
        return [claimed(row) for row in sorted(rows, key=lambda row: int(row["seq"]))]

    async def mark_sent(self, call_id: str, claim: str) -> bool:
        """Write that a delegation is about to go out; False if it is not this one's any more."""
        row = await self._database.fetch_one(
            _SQL["mark_sent"],
            idempotent=True,
            id=call_id,
            claim=claim,
            to=State.DISPATCHED.value,
            sources=allowed(State.DISPATCHED, {State.PENDING}),
        )
        return row is not None

    async def renew(self, claims: Mapping[str, str], *, lease_s: float) -> None:
        """Let the leases on these begin anew: the claims by the calls' ids."""
        await self._queue.renew(claims, lease_s=lease_s)

    async def put_back(
        self, call_id: str, claim: str, *, delay_s: float, error: str | None, busy: bool, counts: bool
    ) -> bool:
        """Put off one that was not sent, and let one that was take its place in the queue of its agent.

        False if it is not this one's any more.
        """
        row = await self._database.fetch_one(_SQL["put_off"], id=call_id, claim=claim, delay_s=delay_s, error=error)
        if row is None:
            row = await self._database.fetch_one(
                _SQL["wait"],
                id=call_id,
                claim=claim,
                delay_s=delay_s,
                error=error,
                to=State.QUEUED.value,
                sources=allowed(State.QUEUED, {State.DISPATCHED}),
                busy=int(busy),
                attempts=int(counts),
            )
        return row is not None

    async def end(self, call_id: str, claim: str, end: QueuedEnd, history: History) -> Call | None:
        """End a delegation, and write what `history` makes of it; None if it is not this one's any more."""
        return await self._queue.end(call_id, claim, end, history)

    async def free_lost(self, *, limit: int) -> Sequence[str]:
        """Nothing is to be put back: what was not sent has kept its place."""
        return ()

    async def list_waiting(self) -> Mapping[str, bool]:
        """Return the workspaces for which delegations are due."""
        rows = await self._database.fetch(_SQL["list_due"], idempotent=True)
        return {row["workspace_id"]: True for row in rows}


def _fields(new: NewDelegation) -> dict[str, object]:
    return {
        "id": new.id,
        "kind": Kind.DELEGATION.value,
        "workspace_id": new.target_id,
        "caller_id": new.source_id,
        "method": new.method,
        "body": new.body,
        "lives_s": new.lives_s,
        "summary": new.summary,
        "result_id": new.result_id,
    }
