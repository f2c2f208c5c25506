"""Who holds a credential."""

import hmac
from collections.abc import Callable
from time import monotonic

from gateway import ports
from gateway.core.callers import Admin, Anonymous, Holder, Local, Principal, Stranger
from gateway.core.refusals import platform_unavailable
from gateway.core.tokens import hash_token
from gateway.services.cache import Cache

CAPACITY = 200_000
"""Tokens held at once."""
CALL_STALE_S = 30.0
"""While the database is away, a token seen valid this long ago (seconds) is still good for a call ..."""
BEAT_STALE_S = 900.0
"""... and this long ago for a heartbeat."""


class Identity:
    """Tells who a bearer is. `admin_token` is None where there is none; `open_locally` lets the anonymous in."""

    def __init__(
        self,
        tokens: ports.Tokens,
        *,
        admin_token: str | None,
        open_locally: bool,
        ttl_s: float,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._admin_token = None if admin_token is None else admin_token.encode()
        self._open = open_locally
        self._owners: Cache[bytes, str] = Cache(tokens.find_owner, ttl_s=ttl_s, capacity=CAPACITY, now=now)

    async def tell(self, bearer: str | None, *, stale_s: float = CALL_STALE_S) -> Principal:
        """Return who sends this bearer; refuses with platform_unavailable when nobody can say.

        stale_s: how old an answer may be while the database is away.
        """
        if bearer is None:
            return Local() if self._open else Anonymous()
        if self._admin_token is not None and hmac.compare_digest(
            bearer.encode("utf-8", "surrogatepass"), self._admin_token
        ):
            return Admin()
        key = hash_token(bearer)
        owner = self._owners.peek(key)
        if owner is None:
            try:
                owner = await self._owners.find(key, stale_s=stale_s)
            except ports.StoreError as error:
                raise platform_unavailable() from error
        return Stranger() if owner is None else Holder(workspace_id=owner)

    def forget(self, token_hash_hex: str) -> None:
        """Ask again about this token at its next use."""
        self._owners.forget(bytes.fromhex(token_hash_hex))
