"""Tokens: given out, shown to their owners without their text, and taken back."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from events.bus import Bus
from events.event import changed
from gateway import ports
from gateway.core.refusals import Code, Refusal, platform_unavailable, unknown_workspace
from gateway.core.tokens import MAX_LIVE, mint
from gateway.services.directory import Directory
from gateway.services.identity import Identity

log = structlog.get_logger("gateway.tokens")


@dataclass(frozen=True, kw_only=True, slots=True)
class Given:
    """A token that has just been made. `text` is shown to who asked for it, once."""

    id: str
    text: str = field(repr=False)


class TokenService:
    """The tokens of workspaces, and of the organisation: `workspace_id` None."""

    def __init__(self, *, tokens: ports.Tokens, directory: Directory, identity: Identity, bus: Bus) -> None:
        self._tokens = tokens
        self._directory = directory
        self._identity = identity
        self._bus = bus

    async def mint(self, workspace_id: str | None, *, name: str | None = None) -> Given:
        """Return a new token; it cannot be shown again."""
        if workspace_id is not None:
            await self._directory.get(workspace_id)
        token = mint()
        kept = ports.TokenHash(hash=token.hash, prefix=token.prefix)
        try:
            made = await self._tokens.mint(workspace_id, kept, limit=MAX_LIVE, name=name)
        except KeyError:
            raise unknown_workspace() from None
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if made is None:
            raise Refusal(Code.TOO_MANY_TOKENS, f"there may be {MAX_LIVE} live tokens at most: revoke one first")
        log.info("token_minted", token_id=made, workspace_id=workspace_id)
        return Given(id=made, text=token.text)

    async def list_live(self, workspace_id: str | None) -> Sequence[ports.LiveToken]:
        """Return those that may be used, oldest first."""
        if workspace_id is not None:
            await self._directory.get(workspace_id)
        try:
            return await self._tokens.list_live(workspace_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error

    async def revoke(self, workspace_id: str | None, token_id: str) -> None:
        """Take a token back, at once here and within a second everywhere; the sessions that it opened end with it."""
        if workspace_id is not None:
            await self._directory.get(workspace_id)
        try:
            revoked = await self._tokens.revoke(workspace_id, token_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        if revoked is None:
            raise Refusal(Code.NOT_FOUND, "no such live token")
        self._identity.forget_token(revoked.hex())
        self._bus.publish(changed())
        log.info("token_revoked", token_id=token_id, workspace_id=workspace_id)
