"""Which workspaces' events somebody may see, for as long as they read."""

import asyncio
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final, Protocol

import structlog

from gateway import ports
from gateway.core.access import MAX_DEPTH, Lineage, may_talk
from gateway.core.callers import Admin, Anonymous, Holder, Local, Principal, Stranger
from gateway.core.refusals import (
    Code,
    Refusal,
    credential_required,
    invalid_credential,
    not_allowed,
    platform_unavailable,
)
from gateway.services.directory import Directory

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


class Visibility:
    """Finds out what may be seen, and ends the readers for whom that has become something else."""

    def __init__(self, directory: Directory, workspaces: ports.Workspaces) -> None:
        self._directory = directory
        self._workspaces = workspaces
        self._readers: dict[Reader, View] = {}
        self._parents: Mapping[str, str | None] = {}
        self._listed_at = -1
        self._version = 0
        self._listing = asyncio.Lock()

    def __repr__(self) -> str:
        return f"<Visibility readers={len(self._readers)} workspaces={len(self._parents)} version={self._version}>"

    async def look(self, principal: Principal, named: frozenset[str] | None) -> View:
        """Return what this one may see of what it names (None: everything).

        Refuses who is nobody, a workspace that is not there (not_found, removed) or may not be seen (not_allowed),
        and with platform_unavailable when nobody can say.
        """
        match principal:
            case Admin() | Local():
                for one in named or ():
                    await self._directory.get(one)
                return View(principal=principal, named=named, workspaces=named, version=self._version)
            case Holder(workspace_id=owner):
                return await self._look_from(principal, owner, named)
            case Stranger():
                raise invalid_credential()
            case Anonymous():
                raise credential_required()

    async def _look_from(self, principal: Principal, owner: str, named: frozenset[str] | None) -> View:
        """A workspace sees those it may talk to."""
        if named is not None:
            version = self._version
            mine = await self._directory.lineage(owner)
            for one in named:
                if not may_talk(mine, await self._directory.lineage(one)):
                    raise not_allowed()
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
        """Ask for a reader's end when what its view shows has changed, until it is forgotten."""
        self._readers[reader] = view

    def forget(self, reader: Reader) -> None:
        """Let go of a reader that has ended."""
        del self._readers[reader]

    async def run(self) -> None:
        """Turn for ever."""
        while True:
            await asyncio.sleep(TURN_S)
            try:
                await self.tick()
            except Refusal as refused:  # the next turn asks again
                log.warning("visibility_unknown", code=refused.code.value)

    async def tick(self) -> None:
        """End the readers whose view is not what it was; refuses with platform_unavailable when nobody can say."""
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

    async def _find(self, view: View) -> View | None:
        """Look once more; None if it is refused now."""
        try:
            return await self.look(view.principal, view.named)
        except Refusal as refused:
            if refused.code is Code.PLATFORM_UNAVAILABLE:
                raise
            return None


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
