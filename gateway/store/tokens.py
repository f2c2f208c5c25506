"""How tokens are kept: as hashes."""

from collections.abc import Sequence
from typing import Final

from gateway.ports import LiveToken, Owner, TokenHash
from gateway.store.db import Database
from sql import load

_SQL: Final = load("tokens")


class TokenStore:
    """`ports.Tokens` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_owner(self, token_hash: bytes) -> Owner | None:
        """Return whose live token this is."""
        row = await self._database.fetch_one(_SQL["find_owner"], idempotent=True, hash=token_hash)
        return None if row is None else Owner(token_id=row["id"], workspace_id=row["workspace_id"])

    async def has_live(self, workspace_id: str) -> bool:
        """Return whether a workspace has any live token."""
        row = await self._database.fetch_one(_SQL["count_live"], idempotent=True, workspace_id=workspace_id)
        return row is not None and row["live"] > 0

    async def mint(
        self, workspace_id: str | None, token: TokenHash, *, limit: int, name: str | None = None
    ) -> str | None:
        """Add a token and return its id, None if `limit` are live; KeyError: no such workspace.

        workspace_id: None for one of the organisation's.
        """
        async with self._database.transaction() as transaction:
            if workspace_id is None:
                await transaction.fetch_one(_SQL["lock_organisation"])
            elif await transaction.fetch_one(_SQL["lock_workspace"], workspace_id=workspace_id) is None:
                raise KeyError(workspace_id)
            row = await transaction.fetch_one(_SQL["count_live"], workspace_id=workspace_id)
            if row is not None and row["live"] >= limit:
                return None
            made = await transaction.fetch_one(
                _SQL["create"], workspace_id=workspace_id, hash=token.hash, prefix=token.prefix, name=name
            )
            assert made is not None, "an insert returns its row"
            token_id: str = made["id"]
        return token_id

    async def list_live(self, workspace_id: str | None) -> Sequence[LiveToken]:
        """Return a workspace's live tokens, or the organisation's (None), oldest first."""
        rows = await self._database.fetch(_SQL["list_live"], idempotent=True, workspace_id=workspace_id)
        return [
            LiveToken(
                id=row["id"],
                prefix=row["prefix"],
                name=row["name"],
                created_at=row["created_at"],
                last_used_at=row["last_used_at"],
            )
            for row in rows
        ]

    async def revoke(self, workspace_id: str | None, token_id: str) -> bytes | None:
        """Revoke one of them and return its hash; None if there is no such live token."""
        row = await self._database.fetch_one(_SQL["revoke"], id=token_id, workspace_id=workspace_id)
        return None if row is None else row["hash"]

    async def note_used(self, hashes: Sequence[bytes]) -> None:
        """Write that these have been used now."""
        await self._database.execute(_SQL["note_used"], idempotent=True, hashes=list(hashes))
