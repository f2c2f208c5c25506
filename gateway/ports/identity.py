"""Tokens and sessions as they are kept: by hash alone."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol


@dataclass(frozen=True, kw_only=True, slots=True)
class TokenHash:
    """A token as it is kept."""

    hash: bytes = field(repr=False)
    prefix: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """Whose a token is: a workspace's, or the organisation's (None)."""

    token_id: str
    workspace_id: str | None


@dataclass(frozen=True, kw_only=True, slots=True)
class LiveToken:
    """A token as its owner may see it."""

    id: str
    prefix: str
    name: str | None
    created_at: datetime
    last_used_at: datetime | None


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenSession:
    """A browser's session that has `left_s` seconds to go. `admin_hash`: of the operator's token, if that opened it."""

    admin_hash: bytes | None = field(repr=False)
    left_s: float


class Tokens(Protocol):
    """`store/tokens.py`. Every method may raise StoreError."""

    async def find_owner(self, token_hash: bytes) -> Owner | None:
        """Return whose live token this is."""

    async def has_live(self, workspace_id: str) -> bool:
        """Return whether a workspace has any live token."""

    async def mint(
        self, workspace_id: str | None, token: TokenHash, *, limit: int, name: str | None = None
    ) -> str | None:
        """Add a token and return its id, None if `limit` are live; KeyError: no such workspace.

        workspace_id: None for one of the organisation's.
        """

    async def list_live(self, workspace_id: str | None) -> Sequence[LiveToken]:
        """Return a workspace's live tokens, or the organisation's (None), oldest first."""

    async def revoke(self, workspace_id: str | None, token_id: str) -> bytes | None:
        """Revoke one of them and return its hash; None if there is no such live token."""

    async def note_used(self, hashes: Sequence[bytes]) -> None:
        """Write that these have been used now."""


class Sessions(Protocol):
    """`store/sessions.py`. Every method may raise StoreError."""

    async def open(
        self, session_hash: bytes, *, token_id: str | None, admin_hash: bytes | None, lasts_s: float
    ) -> None:
        """Write a session that one of these has opened."""

    async def find(self, session_hash: bytes) -> OpenSession | None:
        """Return a session that may still be used."""

    async def end(self, session_hash: bytes) -> None:
        """End a session."""

    async def create_code(self, code_hash: bytes, *, admin_hash: bytes, lasts_s: float) -> None:
        """Write the code of a one-time link."""

    async def claim_code(self, code_hash: bytes) -> bytes | None:
        """Use a code up and return the hash of the operator's token it was made with; None if it is not good."""
