"""Which workspaces' events somebody may see, for as long as they read and may."""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from time import monotonic
from typing import Final, Protocol

import structlog

from events.bus import Stamp, unwatched
from gateway import ports
from gateway.core.access import MAX_DEPTH, Lineage, may_talk
from gateway.core.callers import (
    Admin,
    Anonymous,
    Credential,
    Holder,
    Local,
    Member,
    Principal,
    Proof,
    Stranger,
    System,
    find_credential,
)
from gateway.core.refusals import (
    Code,
    Refusal,
    credential_required,
    invalid_credential,
    not_allowed,
    platform_unavailable,
    unknown_workspace,
)
from gateway.core.workspaces import Workspace
from gateway.services.directory import Directory, removed

log = structlog.get_logger("gateway.visibility")

TURN_S: Final = 1.0
_STRIDE: Final = 1000
"""Workspaces looked at before others have their turn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class View:
    """What somebody may see of what they named: these workspaces, None for all there are; `version` is its age."""

    principal: Principal
    named: frozenset[str] | None
    workspaces: frozenset[str] | None
    version: int

    @property
    def resync(self) -> str:
        """Where all of them can be read again: the operator's list, or a template (RFC 6570) for one after another."""
        return "/workspaces/{workspace_id}" if isinstance(self.principal, Holder) else "/workspaces"


class Reader(Protocol):
    """Somebody who reads what a view shows."""

    def end(self) -> None:
        """Stop reading; who comes back gets a new view."""


IsGood = Callable[[Credential], Awaitable[bool]]
"""Tells whether a credential that was good may still be used; refuses with platform_unavailable."""


class Visibility:
    """Finds out what may be seen, and ends the readers who may see something else now, or nothing at all.

    is_good: asked about credentials that are in doubt.
    """

    def __init__(
        self,
        directory: Directory,
        workspaces: ports.Workspaces,
        is_good: IsGood,
        *,
        now: Callable[[], float] = monotonic,
    ) -> None:
        self._directory = directory
        self._workspaces = workspaces
        self._is_good = is_good
        self._now = now
        self._readers: dict[Reader, View] = {}
        self._by_credential: dict[tuple[Proof, bytes], dict[Reader, Credential]] = {}
        self._doubted: dict[tuple[Proof, bytes], None] = {}
        self._timed: dict[tuple[Proof, bytes], None] = {}
        self._parents: Mapping[str, str | None] = {}
        self._listed_at = -1
        self._version = 0
        self._checked_at = -1
        self._unchecked: dict[Reader, None] = {}
        self._leaving: dict[Reader, None] = {}
        self._listing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Visibility readers={len(self._readers)} workspaces={len(self._parents)} version={self._version}>"

    async def look(self, principal: Principal, named: frozenset[str] | None) -> View:
        """Return what this one may see of what it names (None: everything).

        A removed workspace shows its past alone; it is refused (removed) if all that are named are removed.
        Refuses who is nobody, a workspace that never was (not_found) or may not be seen (not_allowed), and with
        platform_unavailable when nobody can say.
        """
        match principal:
            case Admin() | Member() | Local() | System():
                await self._check_there(named or ())
                return View(principal=principal, named=named, workspaces=named, version=self._version)
            case Holder(workspace_id=owner):
                return await self._look_from(principal, owner, named)
            case Stranger():
                raise invalid_credential()
            case Anonymous():
                raise credential_required()

    def look_at_self(self, principal: Principal) -> View:
        """Return the view of who reads what the hierarchy has no say in: it lasts as long as its credential, and as the
        workspace that it speaks for."""
        own = frozenset({principal.workspace_id}) if isinstance(principal, Holder) else None
        return View(principal=principal, named=own, workspaces=own, version=self._version)

    async def _check_there(self, named: Collection[str]) -> None:
        """Refuse what never was, and what is removed if nothing else is left."""
        gone: list[Workspace] = []
        for one in named:
            workspace = await self._directory.find(one)
            if workspace is None:
                raise unknown_workspace()
            if workspace.removed:
                gone.append(workspace)
        if gone and len(gone) == len(named):
            raise removed(gone[0])

    async def _look_from(self, principal: Principal, owner: str, named: frozenset[str] | None) -> View:
        """A workspace sees those it may talk to."""
        if named is not None:
            version = self._version
            mine = await self._directory.lineage(owner)
            for one in named:
                workspace = await self._directory.find(one)
                stood = workspace is not None and workspace.removed
                if not may_talk(mine, await self._directory.lineage(one, removed_too=stood)):
                    raise not_allowed()
            await self._check_there(named)
            return View(principal=principal, named=named, workspaces=named, version=version)
        await self._list(at_least=owner)
        parents, version = self._parents, self._version
        mine = _lineage(owner, parents)
        seen = set()
        for turn, one in enumerate(parents, 1):
            if may_talk(mine, _lineage(one, parents)):
                seen.add(one)
            if turn % _STRIDE == 0:
                await asyncio.sleep(0)
        return View(principal=principal, named=None, workspaces=frozenset(seen), version=version)

    async def _list(self, *, at_least: str | None = None) -> None:
        """List the hierarchy if it may have changed since it was listed, or lacks one that must be there."""
        async with self._listing:
            generation = self._directory.generation
            if generation == self._listed_at and (at_least is None or at_least in self._parents):
                return
            try:
                parents = await self._workspaces.list_parents()
            except ports.StoreError as error:
                raise platform_unavailable() from error
            if parents != self._parents:
                self._parents = parents
                self._version += 1
            self._listed_at = generation

    # -- readers

    @contextmanager
    def kept(self, view: View, reader: Reader) -> Iterator[None]:
        """Let somebody read what a view shows while the block lasts."""
        self.keep(view, reader)
        try:
            yield
        finally:
            self.forget(reader)

    def keep(self, view: View, reader: Reader) -> None:
        """Ask for a reader's end when what its view shows changes, or its credential ends, until it is forgotten."""
        self._readers[reader] = view
        if view.named is not None:
            self._unchecked[reader] = None  # what it names may have been removed since it was looked at
        shown = find_credential(view.principal)
        if shown is not None:
            key = (shown.proof, shown.hash)
            self._by_credential.setdefault(key, {})[reader] = shown
            if shown.until is not None:
                self._timed[key] = None
            self._doubted[key] = None  # it may have ended between the time it was looked at and now

    def forget(self, reader: Reader) -> None:
        """Let go of a reader that has ended."""
        self._unchecked.pop(reader, None)
        self._leaving.pop(reader, None)
        shown = find_credential(self._readers.pop(reader).principal)
        if shown is not None:
            key = (shown.proof, shown.hash)
            del self._by_credential[key][reader]
            if not self._by_credential[key]:
                del self._by_credential[key]
                self._timed.pop(key, None)

    def doubt(self, proof: Proof, hash_hex: str) -> None:
        """Ask at the next turn whether those who read by this credential still may."""
        key = (proof, bytes.fromhex(hash_hex))
        if key in self._by_credential:
            self._doubted[key] = None

    async def run(self, stamp: Stamp = unwatched) -> None:
        """Turn for ever."""
        while True:
            stamp()
            await asyncio.sleep(TURN_S)
            try:
                await self.tick()
            except Refusal as refused:  # the next turn asks again
                log.warning("visibility_unknown", code=refused.code.value)

    async def tick(self) -> None:
        """End the readers whose credential has ended, or whose view is not what it was.

        Refuses with platform_unavailable when nobody can say.
        """
        await self._end_doubted()
        await self._end_bereft()
        bound = [reader for reader, view in self._readers.items() if isinstance(view.principal, Holder)]
        if not bound:
            return
        await self._list()
        fresh: dict[tuple[Principal, frozenset[str] | None], View | None] = {}
        for reader in bound:
            view = self._readers.get(reader)
            if view is None or view.version == self._version:
                continue
            key = (view.principal, view.named)
            if key not in fresh:
                fresh[key] = await self._find(view)
            now = fresh[key]
            if now is None or now.workspaces != view.workspaces:
                reader.end()
            elif reader in self._readers:
                self._readers[reader] = now

    async def _end_doubted(self) -> None:
        now = self._now()
        for key in [*self._doubted, *self._timed]:
            readers = self._by_credential.get(key)
            if readers is not None:
                shown = next(iter(readers.values()))
                over = shown.until is not None and now >= shown.until
                if over or (key in self._doubted and not await self._is_good(shown)):
                    for reader in list(readers):
                        reader.end()
            self._doubted.pop(key, None)

    async def _end_bereft(self) -> None:
        """End those of whose workspaces none is left: a turn after that was found, when they have been told."""
        for reader in list(self._leaving):
            reader.end()
        self._leaving.clear()
        generation = self._directory.generation
        readers = list(self._unchecked if generation == self._checked_at else self._readers)
        named = {one for reader in readers for one in self._readers[reader].named or ()}
        gone = set()
        for turn, one in enumerate(named, 1):
            workspace = await self._directory.find(one)
            if workspace is None or workspace.removed:
                gone.add(one)
            if turn % _STRIDE == 0:
                await asyncio.sleep(0)
        for reader in readers:
            self._unchecked.pop(reader, None)
            view = self._readers.get(reader)
            if view is not None and view.named is not None and view.named <= gone:
                self._leaving[reader] = None
        self._checked_at = generation

    async def _find(self, view: View) -> View | None:
        """Look once more; None if it is refused now, unless that is for having been removed (`_end_bereft`)."""
        try:
            return await self.look(view.principal, view.named)
        except Refusal as refused:
            if refused.code is Code.PLATFORM_UNAVAILABLE:
                raise
            return replace(view, version=self._version) if refused.code is Code.REMOVED else None


def _lineage(workspace_id: str, parents: Mapping[str, str | None]) -> Lineage:
    """Return a workspace's id and those above it; empty when one is missing, or they go in a circle."""
    line: list[str] = []
    at: str | None = workspace_id
    while at is not None:
        if at not in parents or at in line or len(line) >= MAX_DEPTH:
            return ()
        line.append(at)
        at = parents[at]
    return line
