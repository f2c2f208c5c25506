"""How browsers' sessions are kept, and the codes that open one: as hashes."""

from typing import Final

from gateway.ports import OpenSession
from gateway.store.db import Database
from sql import load

_SQL: Final = load("sessions")


class SessionStore:
    """`ports.Sessions` over PostgreSQL."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open(
        self, session_hash: bytes, *, token_id: str | None, admin_hash: bytes | None, lasts_s: float
    ) -> None:
        """Write a session that one of these has opened, and take away those that are long over."""
        await self._database.execute(_SQL["forget_old"])
        await self._database.execute(
            _SQL["open"], hash=session_hash, token_id=token_id, admin_hash=admin_hash, lasts_s=lasts_s
        )

    async def find(self, session_hash: bytes) -> OpenSession | None:
        """Return a session that may still be used."""
        row = await self._database.fetch_one(_SQL["find"], idempotent=True, hash=session_hash)
        return None if row is None else OpenSession(admin_hash=row["admin_hash"], left_s=row["left_s"])

    async def end(self, session_hash: bytes) -> None:
        """End a session."""
        await self._database.execute(_SQL["end"], idempotent=True, hash=session_hash)

    async def create_code(self, code_hash: bytes, *, admin_hash: bytes, lasts_s: float) -> None:
        """Write the code of a one-time link, and take away those that are long over."""
        await self._database.execute(_SQL["forget_old_codes"])
        await self._database.execute(_SQL["create_code"], hash=code_hash, admin_hash=admin_hash, lasts_s=lasts_s)

    async def claim_code(self, code_hash: bytes) -> bytes | None:
        """Use a code up and return the hash of the operator's token it was made with; None if it is not good."""
        row = await self._database.fetch_one(_SQL["claim_code"], hash=code_hash)
        return None if row is None else row["admin_hash"]
