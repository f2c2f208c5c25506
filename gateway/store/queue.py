"""How calls are kept that wait for a busy agent: each move one checked UPDATE by whoever has claimed the call."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from gateway.core.calls import MOVES, Call, Kind, State, allowed
from gateway.core.endings import Ending
from gateway.core.queue import Place
from gateway.ports import Claimed, History, InLine, NewQueued, Outgoing, Placed, QueuedEnd, Same
from gateway.store.calls import from_row, make_way, write_history
from gateway.store.database import Transaction
from gateway.store.db import Database, Json, Row
from sql import load

_SQL: Final = load("queue")
_ACTIVITY: Final = load("activity")
CLAIMED: Final = frozenset({State.PENDING, State.DISPATCHED})
"""Where a call may be that one process has alone: before it is sent for the first time, and afterwards."""
CARRIED: Final = CLAIMED | {State.QUEUED}
"""Where a call may be that the gateway sends."""


def claimed(row: Row) -> Claimed:
    """Return the claimed call in a row."""
    outgoing = row["outgoing"]
    return Claimed(
        call=from_row(row),
        claim=row["claim"],
        body=row["body"],
        outgoing=Outgoing(
            headers=outgoing["headers"], limit_s=outgoing["limit_s"], by_deadline=outgoing["by_deadline"]
        ),
        left_s=row["left_s"],
    )


def in_line(row: Row) -> InLine:
    """Return the call in a row of `list_line`."""
    return InLine(
        id=row["id"],
        kind=Kind(row["kind"]),
        state=State(row["state"]),
        caller_id=row["caller_id"],
        method=row["method"],
        place=Place(priority=row["priority"], turn=row["turn"], seq=row["seq"]),
        position=row["position"],
        attempts=row["attempts"],
        busy=row["busy"],
        last_error=row["last_error"],
        created_at=row["created_at"],
        dispatched_at=row["dispatched_at"],
        expires_at=row["expires_at"],
        age_s=row["age_s"],
    )


def as_json(way: Outgoing) -> Json:
    """Return how a call goes out as `claimed` reads it."""
    return Json({"headers": dict(way.headers), "limit_s": way.limit_s, "by_deadline": way.by_deadline})


class QueueStore:
    """`ports.Queue` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def hold(
        self, call: NewQueued, row: Mapping[str, Any], *, error: str, room: int, kept_s: float = 0.0
    ) -> Placed | Same | None:
        """Write a call into the queue, with its row of history; return its place, None if `room` wait already.

        Where an earlier call has its claim nothing is written, and that one is returned, as `CallStore.park` does.
        """
        async with self._database.transaction() as transaction:
            while (placed := await self._put(transaction, call, error, room)) is None:
                earlier = call.claim is not None and await make_way(transaction, call.claim, kept_s=kept_s)
                if isinstance(earlier, Same):
                    return earlier
                if not earlier:
                    return None
            await transaction.execute(_ACTIVITY["record"], rows=Json([row]))
        return placed

    async def _put(self, transaction: Transaction, call: NewQueued, error: str, room: int) -> Placed | None:
        kept = await transaction.fetch_one(
            _SQL["hold"],
            id=call.id,
            kind=Kind.QUEUED.value,
            state=State.QUEUED.value,
            workspace_id=call.workspace_id,
            caller_id=call.caller_id,
            lane=call.lane,
            priority=call.priority,
            method=call.method,
            body=call.body,
            key=None if call.claim is None else call.claim.key,
            words=None if call.claim is None else call.claim.words,
            outgoing=as_json(call.outgoing),
            error=error,
            delay_s=call.delay_s,
            lives_s=call.lives_s,
            room=room,
        )
        return None if kept is None else Placed(depth=kept["depth"], expires_at=kept["expires_at"])

    async def claim(
        self, workspace_id: str, *, eager: bool, limit: int, lease_s: float, answered: Collection[str] = ()
    ) -> Sequence[Claimed]:
        """Take the next calls, as many as the workspace may work on; eager: though it has just been busy.

        Those that are `answered` take no place any more, though their ends are not written yet.
        """
        rows = await self._database.fetch(
            _SQL["claim"],
            workspace_id=workspace_id,
            eager=eager,
            agent_busy=Ending.AGENT_BUSY.value,
            limit=limit,
            lease_s=lease_s,
            answered=list(answered),
            to=State.DISPATCHED.value,
            sources=allowed(State.DISPATCHED, {State.QUEUED}),
        )
        return [claimed(row) for row in sorted(rows, key=lambda row: (-row["priority"], row["turn"], row["seq"]))]

    async def mark_sent(self, call_id: str, claim: str) -> bool:
        """Write that a call is about to go out; False if it is not this one's any more."""
        row = await self._database.fetch_one(_SQL["mark_sent"], idempotent=True, id=call_id, claim=claim)
        return row is not None

    async def renew(self, claims: Mapping[str, str], *, lease_s: float) -> None:
        """Let the leases on these begin anew: the claims by the calls' ids."""
        await self._database.execute(
            _SQL["renew"], idempotent=True, ids=list(claims), claims=list(claims.values()), lease_s=lease_s
        )

    async def put_back(
        self, call_id: str, claim: str, *, delay_s: float, error: str | None, busy: bool, counts: bool
    ) -> bool:
        """Let a call take its old place again; False if it is not this one's any more."""
        row = await self._database.fetch_one(
            _SQL["put_back"],
            id=call_id,
            claim=claim,
            to=State.QUEUED.value,
            sources=allowed(State.QUEUED, {State.DISPATCHED}),
            delay_s=delay_s,
            error=error,
            busy=int(busy),
            attempts=int(counts),
        )
        return row is not None

    async def end(self, call_id: str, claim: str, end: QueuedEnd, history: History) -> Call | None:
        """End a call, and write what `history` makes of it; None if it is not this one's any more."""
        async with self._database.transaction() as transaction:
            row = await transaction.fetch_one(
                _SQL["end"],
                id=call_id,
                claim=claim,
                to=end.to.value,
                sources=allowed(end.to, MOVES[end.to] & CLAIMED),
                ending=end.ending.value,
                error=end.error,
                answer=end.answer.body,
                status=end.answer.status,
                headers=Json(dict(end.answer.headers)),
                attempts=int(end.counts),
            )
            if row is None:
                return None
            call = from_row(row)
            await write_history(transaction, [call], history)
        return call

    async def end_overdue(self, *, limit: int, history: History) -> Sequence[Call]:
        """End those that have waited for as long as they may, `limit` at most, each by one replica only."""
        return await self._end_some(
            _SQL["end_overdue"], {State.QUEUED}, State.EXPIRED, Ending.EXPIRED, history, limit=limit
        )

    async def end_stale(
        self, older_s: float, *, workspace_id: str | None = None, limit: int, history: History
    ) -> Sequence[Call]:
        """End those that came longer ago than this, likewise; workspace_id: only those that wait for this one."""
        query, params = _SQL["end_stale"], {"older_s": older_s, "limit": limit}
        if workspace_id is None:
            return await self._end_some(query, {State.QUEUED}, State.EXPIRED, Ending.EXPIRED, history, **params)
        query = _SQL["end_stale_of_one"]
        return await self._end_some(
            query, {State.QUEUED}, State.EXPIRED, Ending.EXPIRED, history, **params, workspace_id=workspace_id
        )

    async def end_called_off(self, *, limit: int, history: History) -> Sequence[Call]:
        """End those that were called off and that nobody has, or that a process had and did not send, likewise."""
        return await self._end_some(
            _SQL["end_called_off"], CARRIED, State.CANCELLED, Ending.CANCELLED, history, limit=limit
        )

    async def end_lost(self, *, limit: int, history: History) -> Sequence[Call]:
        """End those that were sent by a process whose lease has run out, likewise."""
        return await self._end_some(
            _SQL["end_lost"], {State.DISPATCHED}, State.INTERRUPTED, Ending.INTERRUPTED, history, limit=limit
        )

    async def list_line(self, workspace_id: str, after: Place, *, limit: int) -> Sequence[InLine]:
        """Return the calls that wait for a workspace or are out of its queue, in its order, after this place."""
        rows = await self._database.fetch(
            _SQL["list_line"],
            idempotent=True,
            workspace_id=workspace_id,
            priority=after.priority,
            turn=after.turn,
            seq=after.seq,
            limit=limit,
        )
        return [in_line(row) for row in rows]

    async def _end_some(
        self, query: str, sources: Collection[State], to: State, ending: Ending, history: History, **params: object
    ) -> Sequence[Call]:
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch(
                query, to=to.value, ending=ending.value, sources=allowed(to, sources), **params
            )
            calls = [from_row(row) for row in rows]
            await write_history(transaction, calls, history)
        return calls

    async def free_lost(self, *, limit: int) -> Sequence[str]:
        """Put back those that such a process had and did not send; return their workspaces."""
        sources = allowed(State.QUEUED, {State.DISPATCHED})
        rows = await self._database.fetch(_SQL["free_lost"], to=State.QUEUED.value, sources=sources, limit=limit)
        return [row["workspace_id"] for row in rows]

    async def list_waiting(self) -> Mapping[str, bool]:
        """Return the workspaces for which calls wait, and whether the first of each may be sent now."""
        rows = await self._database.fetch(_SQL["list_waiting"], idempotent=True)
        return {row["workspace_id"]: row["due"] for row in rows}

    async def position(self, workspace_id: str, call_id: str) -> int | None:
        """Return at which place a call waits, 1 for the next; None if it does not wait."""
        row = await self._database.fetch_one(_SQL["position"], idempotent=True, id=call_id, workspace_id=workspace_id)
        return None if row is None else row["position"]
