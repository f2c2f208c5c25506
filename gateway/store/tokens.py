"""How tokens are kept: as hashes."""

from typing import Final

from gateway.ports import TokenHash
from gateway.store.db import Database
from sql import load

_SQL: Final = load("tokens")


class TokenStore:
    """`ports.Tokens` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_owner(self, token_hash: bytes) -> str | None:
        """Return the workspace whose live token this is."""
        row = await self._database.fetch_one(_SQL["find_owner"], idempotent=True, hash=token_hash)
        return None if row is None else row["workspace_id"]

    async def has_live(self, workspace_id: str) -> bool:
        """Return whether a workspace has any live token."""
        row = await self._database.fetch_one(_SQL["count_live"], idempotent=True, workspace_id=workspace_id)
        return row is not None and row["live"] > 0

    async def mint(self, workspace_id: str, token: TokenHash, *, limit: int) -> int | None:
        """Add a token and return how many are live with it, None if there are `limit`; KeyError: no such workspace."""
        async with self._database.transaction() as transaction:
            if await transaction.fetch_one(_SQL["lock_workspace"], workspace_id=workspace_id) is None:
                raise KeyError(workspace_id)
            row = await transaction.fetch_one(_SQL["count_live"], workspace_id=workspace_id)
            live: int = row["live"] if row is not None else 0
            if live >= limit:
                return None
            await transaction.execute(_SQL["create"], workspace_id=workspace_id, hash=token.hash, prefix=token.prefix)
        return live + 1
