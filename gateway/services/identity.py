"""Who holds a credential."""

import hmac
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import Final

from gateway import ports
from gateway.core.callers import Admin, Anonymous, Credential, Holder, Local, Member, Principal, Proof, Stranger
from gateway.core.refusals import platform_unavailable
from gateway.core.tokens import hash_token
from gateway.services.cache import Cache

CAPACITY: Final = 200_000
"""Tokens held at once."""
MISSING_S: Final = 10.0
"""How long a token that is nobody's is not asked about again (a new one is told by the list of changes)."""
CALL_STALE_S: Final = 30.0
"""While the database is away, a token seen valid this long ago (seconds) is still good for a call ..."""
BEAT_STALE_S: Final = 900.0
"""... and this long ago for a heartbeat."""


@dataclass(frozen=True, kw_only=True, slots=True)
class _Session:
    """A session of the operator, or of somebody of the organisation; `until` is on the monotonic clock."""

    admin: bool
    until: float


class Identity:
    """Tells who shows a credential. `admin_token` is None where there is none; `open_locally` lets the anonymous in."""

    def __init__(
        self,
        tokens: ports.Tokens,
        sessions: ports.Sessions,
        *,
        admin_token: str | None,
        open_locally: bool,
        ttl_s: float,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._admin_token = None if admin_token is None else admin_token.encode()
        self.admin_hash = None if admin_token is None else hash_token(admin_token)
        self._open = open_locally
        self._tokens = tokens
        self._stored_sessions = sessions
        self._now = now
        self._owners: Cache[bytes, ports.Owner] = Cache(
            tokens.find_owner, ttl_s=ttl_s, capacity=CAPACITY, missing_s=MISSING_S, now=now
        )
        self._sessions: Cache[bytes, _Session] = Cache(
            self._load_session, ttl_s=ttl_s, capacity=CAPACITY, missing_s=MISSING_S, now=now
        )
        self._good: dict[bytes, None] = {}
        self._used: set[bytes] = set()

    async def tell(self, bearer: str | None, session: str | None = None, *, stale_s: float = CALL_STALE_S) -> Principal:
        """Return who sends this bearer, or else this session's cookie; refuses with platform_unavailable.

        stale_s: how old an answer about a token may be while the database is away; a session must be asked about.
        """
        if bearer is not None:
            return await self._tell_bearer(bearer, stale_s)
        if session is not None:
            told = await self._tell_session(hash_token(session))
            if told is not None:
                return told
        if self._open:
            return Local()
        return Anonymous() if session is None else Stranger()

    def knows(self, bearer: str | None, session: str | None) -> bool:
        """Return whether these are none, or were good here when they were last shown: who guesses shows others."""
        if bearer is not None:
            return self._is_admin(bearer) or hash_token(bearer) in self._good
        return session is None or hash_token(session) in self._good

    def _note(self, key: bytes, *, good: bool) -> None:
        if not good:
            self._good.pop(key, None)
        elif key not in self._good:
            while len(self._good) >= CAPACITY:
                del self._good[next(iter(self._good))]
            self._good[key] = None

    def _is_admin(self, bearer: str) -> bool:
        return self._admin_token is not None and hmac.compare_digest(
            bearer.encode("utf-8", "surrogatepass"), self._admin_token
        )

    async def _tell_bearer(self, bearer: str, stale_s: float) -> Principal:
        if self._is_admin(bearer):
            return Admin()
        key = hash_token(bearer)
        owner = await self.find_owner(key, stale_s=stale_s)
        self._note(key, good=owner is not None)
        if owner is None:
            return Stranger()
        self._used.add(key)
        shown = Credential(proof=Proof.TOKEN, hash=key)
        if owner.workspace_id is None:
            return Member(credential=shown)
        return Holder(workspace_id=owner.workspace_id, credential=shown)

    async def find_owner(self, token_hash: bytes, *, stale_s: float = 0.0) -> ports.Owner | None:
        """Return whose live token this is; refuses with platform_unavailable when nobody can say."""
        owner = self._owners.peek(token_hash)
        if owner is not None:
            return owner
        try:
            return await self._owners.find(token_hash, stale_s=stale_s)
        except ports.StoreError as error:
            raise platform_unavailable() from error

    async def _tell_session(self, key: bytes) -> Principal | None:
        try:
            found = await self._sessions.find(key)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        good = found is not None and self._now() < found.until
        self._note(key, good=good)
        if found is None or not good:
            return None
        shown = Credential(proof=Proof.SESSION, hash=key, until=found.until)
        return Admin(credential=shown) if found.admin else Member(credential=shown)

    async def _load_session(self, key: bytes) -> _Session | None:
        asked = self._now()
        found = await self._stored_sessions.find(key)
        if found is None:
            return None
        if found.admin_hash is not None and found.admin_hash != self.admin_hash:
            return None  # the operator has another token now
        return _Session(admin=found.admin_hash is not None, until=asked + found.left_s)

    async def is_good(self, credential: Credential) -> bool:
        """Return whether a credential seen before may still be used; refuses with platform_unavailable."""
        match credential.proof:
            case Proof.TOKEN:
                return await self.find_owner(credential.hash) is not None
            case Proof.SESSION:
                return await self._tell_session(credential.hash) is not None

    def forget_token(self, token_hash_hex: str) -> None:
        """Ask again about this token at its next use."""
        self._owners.forget(bytes.fromhex(token_hash_hex))

    def forget_session(self, session_hash_hex: str) -> None:
        """Ask again about this session at its next use."""
        self._sessions.forget(bytes.fromhex(session_hash_hex))

    # -- when tokens were last used

    async def flush(self) -> None:
        """Write which tokens have been used since it was written last; raises StoreError, and they are kept then."""
        used, self._used = self._used, set()
        try:
            if used:
                await self._tokens.note_used(list(used))
        except BaseException:
            self._used |= used
            raise
