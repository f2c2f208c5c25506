"""Browsers' sessions: opened with a token or a one-time code, and ended."""

from dataclasses import dataclass, field
from time import monotonic
from typing import Final

import structlog

from events.bus import Bus
from events.event import changed
from gateway import ports
from gateway.core.callers import Admin, Credential, Member, Principal, Proof, Stranger, find_credential
from gateway.core.refusals import Code, Refusal, invalid_credential, not_allowed, platform_unavailable
from gateway.core.tokens import hash_token, mint
from gateway.services.identity import Identity

log = structlog.get_logger("gateway.sessions")

CODE_S: Final = 600.0
"""How long the code of a one-time link is good (seconds)."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Opened:
    """A session that has just been opened: what the cookie holds, what it may, and how long it lasts."""

    text: str = field(repr=False)
    admin: bool
    lasts_s: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Shown:
    """Who somebody is. `left_s`: how long their session goes on; None for whoever is not here by one."""

    admin: bool
    left_s: float | None


class Sessions:
    """Opens and ends sessions; each lasts `lasts_s`."""

    def __init__(self, sessions: ports.Sessions, identity: Identity, bus: Bus, *, lasts_s: float) -> None:
        self._sessions = sessions
        self._identity = identity
        self._bus = bus
        self._lasts_s = lasts_s

    async def open_by_token(self, token: str) -> Opened:
        """Open a session with the operator's token or one of the organisation's; refuses a workspace's."""
        match await self._identity.tell(token, stale_s=0.0):
            case Admin():
                return await self._open(token_id=None, admin_hash=self._identity.admin_hash)
            case Member(credential=Credential() as shown):
                owner = await self._identity.find_owner(shown.hash)
                if owner is None:
                    raise invalid_credential()
                return await self._open(token_id=owner.token_id, admin_hash=None)
            case Stranger():
                raise invalid_credential()
            case _:
                raise not_allowed()

    async def open_by_code(self, code: str) -> Opened:
        """Open a session of the operator with the code of a one-time link, which is good for one use."""
        try:
            made_with = await self._sessions.claim_code(hash_token(code))
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if made_with is None or made_with != self._identity.admin_hash:
            raise Refusal(Code.INVALID_CREDENTIAL, "the code is unknown, used or too old")
        return await self._open(token_id=None, admin_hash=made_with)

    async def _open(self, *, token_id: str | None, admin_hash: bytes | None) -> Opened:
        secret = mint()
        try:
            await self._sessions.open(secret.hash, token_id=token_id, admin_hash=admin_hash, lasts_s=self._lasts_s)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        log.info("session_opened", admin=admin_hash is not None)
        return Opened(text=secret.text, admin=admin_hash is not None, lasts_s=self._lasts_s)

    def show(self, principal: Principal) -> Shown:
        """Return who this is."""
        shown = find_credential(principal)
        until = None if shown is None else shown.until
        return Shown(
            admin=not isinstance(principal, Member), left_s=None if until is None else max(0.0, until - monotonic())
        )

    async def end(self, principal: Principal) -> None:
        """End the session that somebody asks from, at once here and within a second everywhere."""
        shown = find_credential(principal)
        if shown is None or shown.proof is not Proof.SESSION:
            raise Refusal(Code.INVALID_REQUEST, "there is no session to end")
        try:
            await self._sessions.end(shown.hash)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        self._identity.forget_session(shown.hash.hex())
        self._bus.publish(changed())
        log.info("session_ended")


async def make_code(sessions: ports.Sessions, admin_token: str) -> str:
    """Return the code of a fresh one-time link for the operator with this token; raises StoreError."""
    code = mint()
    await sessions.create_code(code.hash, admin_hash=hash_token(admin_token), lasts_s=CODE_S)
    return code.text
