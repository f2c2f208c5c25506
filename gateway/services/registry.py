"""What runtimes say of themselves: here I am, I am alive, this is my card."""

import secrets
from dataclasses import dataclass, field
from typing import Any, assert_never

import structlog

from events.bus import Bus
from events.event import changed, event
from gateway import ports
from gateway.core import address, delivery
from gateway.core.callers import Admin, Anonymous, Holder, Local, Member, Principal, Stranger, System
from gateway.core.refusals import (
    Code,
    Refusal,
    bad_field,
    credential_required,
    invalid_credential,
    not_allowed,
    platform_unavailable,
    unknown_workspace,
)
from gateway.core.tokens import mint
from gateway.core.workspaces import MOVE_EVENTS, Beat, Status, Workspace, decide_beat
from gateway.services.directory import Directory, removed
from gateway.services.heartbeats import Heartbeats
from gateway.services.identity import BEAT_STALE_S
from gateway.services.reach import safe_url

log = structlog.get_logger("gateway.registry")


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """What a runtime says when it registers. `delivery_mode`, `events_url` None: nothing said."""

    workspace_id: str
    url: str | None
    agent_card: dict[str, Any]
    delivery_mode: str | None = None
    events_url: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Registered:
    """What a runtime gets for it; `auth_token` only when one had to be minted."""

    delivery_mode: delivery.Mode
    auth_token: str | None = field(default=None, repr=False)
    inbound_secret: str | None = field(default=None, repr=False)


class Registry:
    """Registers workspaces and takes their heartbeats.

    tokenless: a workspace without a live token may register, and gets its first one. self_created: an unknown id that
    registers is created (both are for `dev`). vault: None where no key is configured; then no inbound secret is minted.
    """

    def __init__(
        self,
        *,
        workspaces: ports.Workspaces,
        tokens: ports.Tokens,
        liveness: ports.Liveness,
        directory: Directory,
        heartbeats: Heartbeats,
        bus: Bus,
        vault: ports.Vault | None,
        reach: address.Reach,
        tokenless: bool,
        self_created: bool,
    ) -> None:
        self._workspaces = workspaces
        self._tokens = tokens
        self._liveness = liveness
        self._directory = directory
        self._heartbeats = heartbeats
        self._bus = bus
        self._vault = vault
        self._reach = reach
        self.tokenless = tokenless
        self._self_created = self_created
        self._current_tasks: dict[str, str] = {}

    # -- register

    async def register(self, principal: Principal, said: Registration) -> Registered:
        """Write where an agent listens and what it can do, and bring it online."""
        workspace = await self._directory.find(said.workspace_id)
        try:
            needs_token = await self._check_register(principal, workspace, said.workspace_id)
            mode = delivery.decide_registered(said.delivery_mode, workspace, said.url)
            url = self._check_url(said, mode)
            events_url = safe_url(said.events_url, self._reach, field="events_url") if said.events_url else None
            if workspace is None:
                await self._create(said)
            sealed = await self._workspaces.register(
                said.workspace_id,
                url=url,
                agent_card=said.agent_card,
                delivery_mode=mode.value,
                inbound_secret=self._new_secret(),
                events_url=events_url,
            )
            token = await self._mint(said.workspace_id) if needs_token else None
            await self._liveness.touch(said.workspace_id)
            await self._workspaces.move(said.workspace_id, Status.ONLINE)
            written = await self._workspaces.find(said.workspace_id)
        except KeyError:
            raise unknown_workspace() from None
        except ports.StoreError as error:
            raise platform_unavailable() from error
        self._changed(said.workspace_id)
        if written is not None and written.status is Status.ONLINE:
            shown = {"name": written.name, "url": url, "agent_card": said.agent_card}
            self._bus.publish(event("WORKSPACE_ONLINE", said.workspace_id, shown, sign=True))
        log.info("registered", workspace_id=said.workspace_id, status=written.status.value if written else None)
        return Registered(delivery_mode=mode, auth_token=token, inbound_secret=self._unseal(sealed))

    async def _check_register(self, principal: Principal, workspace: Workspace | None, workspace_id: str) -> bool:
        """Return whether a first token has to be minted; refuses who may not register this workspace."""
        if workspace is None and not self._self_created:
            raise unknown_workspace() if isinstance(principal, Admin) else invalid_credential()
        if workspace is not None and workspace.removed:
            raise removed(workspace)
        match principal:
            case Admin():
                return False
            case Holder(workspace_id=owner):
                if owner != workspace_id:
                    raise not_allowed()
                return False
            case Member() | System():
                raise not_allowed()
            case Stranger():
                raise invalid_credential()
            case Anonymous() | Local():
                if not self.tokenless or (workspace is not None and await self._tokens.has_live(workspace_id)):
                    raise credential_required()
                return True
            case never:
                assert_never(never)

    def _check_url(self, said: Registration, mode: delivery.Mode) -> str | None:
        """An agent that polls is not called: its url is kept if it could be, and otherwise not looked at."""
        if mode is delivery.Mode.POLL:
            kept = said.url and isinstance(address.check_url(said.url, self._reach), address.Safe)
            return said.url if kept else None
        if not said.url:
            raise bad_field("url", "is required in push mode")
        return safe_url(said.url, self._reach)

    async def _create(self, said: Registration) -> None:
        name = said.agent_card.get("name")
        usable = name if isinstance(name, str) and 0 < len(name) <= 200 and name.isprintable() else said.workspace_id
        await self._workspaces.create(
            ports.NewWorkspace(id=said.workspace_id, name=usable, status=Status.PROVISIONING, runtime=""), None
        )

    async def _mint(self, workspace_id: str) -> str:
        """Return a workspace's first token; refuses if somebody else was given one meanwhile."""
        token = mint()
        kept = ports.TokenHash(hash=token.hash, prefix=token.prefix)
        if await self._tokens.mint(workspace_id, kept, limit=1) is None:
            raise credential_required()
        return token.text

    def _new_secret(self) -> bytes | None:
        return None if self._vault is None else self._vault.seal(secrets.token_urlsafe(32))

    def _unseal(self, sealed: bytes | None) -> str | None:
        if sealed is None or self._vault is None:
            return None
        secret = self._vault.unseal(sealed)
        if secret is None:
            log.error("inbound_secret_unreadable", reason="it was sealed with another key")
        return secret

    # -- heartbeat

    async def heartbeat(self, principal: Principal, workspace_id: str, beat: Beat) -> None:
        """Take a sign of life: tell everybody, move the status if it says so, write it in the next batch."""
        workspace = await self._find_for_beat(principal, workspace_id)
        self._check_own(principal, workspace, workspace_id)
        if workspace is not None:
            await self._move_by(workspace, beat)
        self._heartbeats.note(workspace_id, beat)
        alive = not beat.wedged
        shown = {"active_tasks": beat.active_tasks or 0, "uptime_seconds": beat.uptime_seconds or 0}
        self._bus.publish(event("WORKSPACE_HEARTBEAT", workspace_id, shown, sign=alive))
        task = beat.current_task or ""
        if task != self._last_task(workspace_id, workspace):
            self.note_task(workspace_id, task)
            self._bus.publish(
                event(
                    "TASK_UPDATED",
                    workspace_id,
                    {"current_task": task, "active_tasks": beat.active_tasks or 0},
                    sign=alive,
                )
            )

    async def _find_for_beat(self, principal: Principal, workspace_id: str) -> Workspace | None:
        """The workspace, or None while the database cannot say: its beat counts all the same."""
        try:
            workspace = await self._directory.find(workspace_id, stale_s=BEAT_STALE_S)
        except Refusal as refusal:
            if refusal.code is not Code.PLATFORM_UNAVAILABLE:
                raise
            log.warning("heartbeat_unchecked", workspace_id=workspace_id)
            return None
        if workspace is None:
            self._check_own(principal, None, workspace_id)  # a stranger does not learn which ids there are
            raise unknown_workspace()
        return workspace

    def _check_own(self, principal: Principal, workspace: Workspace | None, workspace_id: str) -> None:
        if workspace is not None and workspace.removed:
            raise removed(workspace)
        match principal:
            case Admin() | Local():
                return
            case Holder(workspace_id=owner):
                if owner != workspace_id:
                    raise not_allowed()
            case Member() | System():
                raise not_allowed()
            case Stranger():
                raise invalid_credential()
            case Anonymous():
                raise credential_required()
            case never:
                assert_never(never)

    async def _move_by(self, workspace: Workspace, beat: Beat) -> None:
        metadata = workspace.metadata if beat.metadata is None else beat.metadata
        to = decide_beat(workspace.status, beat, metadata)
        if metadata == workspace.metadata and to is None:
            return
        try:
            if metadata != workspace.metadata:
                await self._workspaces.update_runtime_metadata(workspace.id, metadata.to_json())
            moved = to is not None and await self._workspaces.move(workspace.id, to)
        except ports.StoreError as error:
            log.warning("heartbeat_move_unwritten", workspace_id=workspace.id, error=type(error).__name__)
            return
        self._changed(workspace.id)
        if moved and to is not None:
            shown = {
                "name": workspace.name,
                "error_rate": beat.error_rate or 0.0,
                "sample_error": beat.sample_error,
                "runtime_state": beat.runtime_state,
            }
            self._bus.publish(event(MOVE_EVENTS[to], workspace.id, shown))

    def _last_task(self, workspace_id: str, workspace: Workspace | None) -> str:
        known = self._current_tasks.get(workspace_id)
        if known is not None:
            return known
        return "" if workspace is None else workspace.current_task or ""

    def note_task(self, workspace_id: str, task: str) -> None:
        """Remember what a workspace works on, as its heartbeats say it, whichever replica they reach."""
        self._current_tasks[workspace_id] = task

    # -- card

    async def update_card(self, principal: Principal, workspace_id: str, agent_card: dict[str, Any]) -> None:
        """Write a new card."""
        workspace = await self._directory.find(workspace_id)
        self._check_own(principal, workspace, workspace_id)
        try:
            if not await self._workspaces.update_card(workspace_id, agent_card):
                raise unknown_workspace()
            await self._liveness.touch(workspace_id)
        except ports.StoreError as error:
            raise platform_unavailable() from error
        self._changed(workspace_id)
        self._bus.publish(event("AGENT_CARD_UPDATED", workspace_id, {"agent_card": agent_card}, sign=True))

    def _changed(self, workspace_id: str) -> None:
        """This process forgets before it answers; the others are woken."""
        self._directory.forget(workspace_id)
        self._bus.publish(changed())
