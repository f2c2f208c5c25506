"""How the list of changes is read."""

from collections.abc import Sequence
from typing import Final

from gateway.ports import Change, StoreError
from gateway.store.db import Database
from sql import load

_SQL: Final = load("changes")


class ChangeStore:
    """`ports.Changes` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def horizon(self) -> str:
        """Return the transaction below which every change is visible."""
        row = await self._database.fetch_one(_SQL["horizon"], idempotent=True)
        if row is None:
            raise StoreError("the database did not tell its horizon")
        horizon: str = row["horizon"]
        return horizon

    async def list_since(self, horizon: str) -> tuple[Sequence[Change], str]:
        """Return the changes since a horizon (some may come twice) and the new horizon."""
        rows = await self._database.fetch(_SQL["list_since"], idempotent=True, horizon=horizon)
        changes = [Change(id=row["id"], kind=row["kind"], key=row["key"]) for row in rows if row["id"] is not None]
        return changes, rows[0]["horizon"]

    async def call_off(self, call_id: str) -> None:
        """List a call that its process is to end."""
        await self._database.execute(_SQL["call_off"], idempotent=True, call_id=call_id)

    async def forget_old(self) -> None:
        """Drop rows that no cache needs any more."""
        await self._database.execute(_SQL["forget_old"], idempotent=True)
