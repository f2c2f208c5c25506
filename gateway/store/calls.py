"""How calls are kept: each move one checked UPDATE, with the lines of its history in the same transaction."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from gateway.core.calls import INBOX_KINDS, Call, Kind, State, allowed
from gateway.core.causes import CALLED_OFF, UNDELIVERED
from gateway.core.claims import Claim
from gateway.core.endings import Ending
from gateway.core.journey import Journey
from gateway.ports import History, Message, NewCall, Same, Waiting
from gateway.store.database import Transaction
from gateway.store.db import Database, Json, Row
from sql import load

_SQL: Final = load("calls")
_ACTIVITY: Final = load("activity")
_KINDS: Final = sorted(INBOX_KINDS)
NOBODY: Final = "00000000-0000-0000-0000-000000000000"
_OVER: Final = {"undelivered": sorted(UNDELIVERED), "called_off": sorted(CALLED_OFF)}


def from_row(row: Row) -> Call:
    """Return the call in a row."""
    return Call(
        id=row["id"],
        kind=Kind(row["kind"]),
        state=State(row["state"]),
        workspace_id=row["workspace_id"],
        caller_id=row["caller_id"],
        method=row["method"],
        attempts=row["attempts"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        ending=None if row["ending"] is None else Ending(row["ending"]),
        lease_until=row["lease_until"],
        dispatched_at=row["dispatched_at"],
        ended_at=row["ended_at"],
        answer=row["answer"],
        answer_status=row["answer_status"],
        answer_headers=row["answer_headers"] or {},
        priority=row["priority"],
        busy=row["busy"],
        last_error=row["last_error"],
        journey=None if row["journey"] is None else Journey.from_json(row["journey"]),
        carried=row["outgoing"] is not None,
        summary=row["summary"],
        told=row["told"],
        result_id=row["result_id"],
    )


async def write_history(transaction: Transaction, calls: Sequence[Call], history: History) -> None:
    """Write what becomes of the rows of calls that have ended, and the rows that are new."""
    made = [history(call) for call in calls]
    if made:
        await transaction.execute(_ACTIVITY["end"], rows=Json([ended for ended, _ in made]))
    if new := [row for _, rows in made for row in rows]:
        await transaction.execute(_ACTIVITY["record"], rows=Json(new))


async def make_way(transaction: Transaction, claim: Claim, *, kept_s: float) -> Same | bool:
    """Return the call that keeps this one from being written, by its claim; True if it does not do so any more, False
    if there is none."""
    row = await transaction.fetch_one(_SQL["find_same"], key=claim.key, words=claim.words, kept_s=kept_s, **_OVER)
    if row is None:
        return False
    if not row["over"]:
        return Same(call=from_row(row), words=row["same_words"])
    await transaction.execute(_SQL["forget_message"], id=row["id"])
    return True


class CallStore:
    """`ports.Calls` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def park(self, call: NewCall, row: Mapping[str, Any], *, room: int, kept_s: float = 0.0) -> bool | Same:
        """Write a call into its target's inbox, with its row of history; False if `room` messages lie there already.

        Where an earlier call has its claim nothing is written, and that one is returned: it has not ended, or less than
        `kept_s` seconds ago. One that no agent has taken, and that has ended, has no claim any more.
        """
        async with self._database.transaction() as transaction:
            while not await self._put(transaction, call, room):
                earlier = call.claim is not None and await make_way(transaction, call.claim, kept_s=kept_s)
                if isinstance(earlier, Same):
                    await transaction.execute(_SQL["stay"], id=earlier.call.id, waits_s=call.waits_s)
                    return earlier
                if not earlier:
                    return False
            await transaction.execute(_ACTIVITY["record"], rows=Json([row]))
        return True

    async def _put(self, transaction: Transaction, call: NewCall, room: int) -> bool:
        kept = await transaction.fetch_one(
            _SQL["park"],
            id=call.id,
            kind=call.kind.value,
            state=State.PARKED.value,
            workspace_id=call.workspace_id,
            caller_id=call.caller_id,
            method=call.method,
            body=call.body,
            key=None if call.claim is None else call.claim.key,
            words=None if call.claim is None else call.claim.words,
            waits_s=call.waits_s,
            lives_s=call.lives_s,
            room=room,
        )
        return kept is not None

    async def find_same(self, claim: Claim, *, kept_s: float) -> Same | None:
        """Return the call that has this claim, as `park` does; None if another may be made."""
        row = await self._database.fetch_one(
            _SQL["find_same"], idempotent=True, key=claim.key, words=claim.words, kept_s=kept_s, **_OVER
        )
        return None if row is None or row["over"] else Same(call=from_row(row), words=row["same_words"])

    async def list_waiting(self, after: Waiting | None, *, limit: int) -> Sequence[Waiting]:
        """Return messages whose calls wait for busy agents, from the first to expire, or from after this one."""
        begin = {"expires_at": "-infinity", "id": NOBODY}
        if after is not None:
            begin = {"expires_at": after.expires_at.isoformat(), "id": after.call_id}
        rows = await self._database.fetch(_SQL["list_waiting"], idempotent=True, **begin, limit=limit)
        return [
            Waiting(
                call_id=row["id"],
                claim=Claim(key=row["key"], words=row["words"]),
                expires_at=row["expires_at"],
                left_s=row["left_s"],
            )
            for row in rows
        ]

    async def list_ledgered(self, call_ids: Collection[str]) -> Mapping[str, float]:
        """Return those of these calls that are ended by the ledger, each with the seconds that it may still wait."""
        rows = await self._database.fetch(_SQL["list_ledgered"], idempotent=True, ids=sorted(call_ids))
        return {row["id"]: row["left_s"] for row in rows}

    async def take(self, workspace_id: str, *, limit: int, limit_bytes: int, lease_s: float) -> Sequence[Message]:
        """Lease the oldest messages that nobody has, at most so many and of so many bytes, but one at least."""
        rows = await self._database.fetch(
            _SQL["take"], workspace_id=workspace_id, limit=limit, limit_bytes=limit_bytes, lease_s=lease_s
        )
        rows = sorted(rows, key=lambda row: int(row["seq"]))
        return [Message(call=from_row(row), body=row["body"]) for row in rows]

    async def next_free_s(self, workspace_id: str) -> float | None:
        """Return in how many seconds the first lease on a message ends; None if nobody has one."""
        row = await self._database.fetch_one(_SQL["next_free"], idempotent=True, workspace_id=workspace_id)
        return None if row is None else row["next_s"]

    async def keep(self, workspace_id: str, call_id: str, *, lease_s: float) -> bool:
        """Let a lease begin anew; False if the call is not in the inbox any more."""
        kept = await self._database.fetch_one(
            _SQL["keep"],
            idempotent=True,
            id=call_id,
            workspace_id=workspace_id,
            lease_s=lease_s,
            kinds=_KINDS,
            sources=[State.PARKED.value, State.DISPATCHED.value],
        )
        return kept is not None

    async def receive(self, workspace_id: str, call_id: str) -> Call | None:
        """Note that the agent has a call for which its caller waits; None if it is no such call."""
        row = await self._database.fetch_one(
            _SQL["receive"],
            id=call_id,
            workspace_id=workspace_id,
            to=State.DISPATCHED.value,
            sources=allowed(State.DISPATCHED, {State.PARKED}),
        )
        return None if row is None else from_row(row)

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
        async with self._database.transaction() as transaction:
            row = await transaction.fetch_one(
                _SQL["end"],
                id=call_id,
                workspace_id=workspace_id,
                to=to.value,
                ending=ending.value,
                answer=answer,
                kinds=sorted(kinds),
                sources=allowed(to, sources),
            )
            if row is None:
                return None
            call = from_row(row)
            await write_history(transaction, [call], history)
        return call

    async def end_overdue(
        self, state: State, *, to: State, ending: Ending, limit: int, history: History
    ) -> Sequence[Call]:
        """End calls in this state whose time is over, `limit` at most, each by one replica only."""
        async with self._database.transaction() as transaction:
            rows = await transaction.fetch(
                _SQL["end_overdue"],
                state=state.value,
                to=to.value,
                ending=ending.value,
                sources=allowed(to, {state}),
                limit=limit,
            )
            calls = [from_row(row) for row in rows]
            await write_history(transaction, calls, history)
        return calls

    async def call_off(self, workspace_id: str, call_id: str) -> None:
        """Note that nobody wants a call any more that the gateway sends, and list it for the process that has it."""
        await self._database.execute(_SQL["call_off"], idempotent=True, id=call_id, workspace_id=workspace_id)

    async def forget_old(self, *, kept_s: float, limit: int) -> int:
        """Take away calls that ended longer ago than this, `limit` at most; return how many those were."""
        rows = await self._database.fetch(_SQL["forget_old"], kept_s=kept_s, limit=limit)
        return len(rows)

    async def find(self, workspace_id: str, call_id: str) -> Call | None:
        """Return a call to this workspace."""
        row = await self._database.fetch_one(_SQL["find"], idempotent=True, id=call_id, workspace_id=workspace_id)
        return None if row is None else from_row(row)
