"""Which workspaces' events somebody may see."""

from gateway import ports
from gateway.core.access import may_talk
from gateway.core.callers import Admin, Anonymous, Holder, Local, Principal, Stranger
from gateway.core.refusals import credential_required, invalid_credential, not_allowed, platform_unavailable
from gateway.services.directory import Directory


class Visibility:
    """Answers for one moment; `generation` tells when an answer may have become another one."""

    def __init__(self, directory: Directory, workspaces: ports.Workspaces) -> None:
        self._directory = directory
        self._workspaces = workspaces

    @property
    def generation(self) -> int:
        """A number that changes whenever a workspace does."""
        return self._directory.generation

    async def check(self, workspace_id: str) -> None:
        """Refuse a workspace that is not there."""
        await self._directory.get(workspace_id)

    async def of(self, principal: Principal, named: frozenset[str] | None) -> frozenset[str] | None:
        """Return what this one may see of what it names (None: everything); None for all there is."""
        match principal:
            case Admin() | Local():
                return named
            case Holder(workspace_id=owner):
                return await self._of_workspace(owner, named)
            case Stranger():
                raise invalid_credential()
            case Anonymous():
                raise credential_required()

    async def _of_workspace(self, owner: str, named: frozenset[str] | None) -> frozenset[str]:
        """A workspace sees those it may talk to."""
        mine = await self._directory.lineage(owner)
        if named is None:
            try:
                candidates = [one.id for one in await self._workspaces.list_all()]
            except ports.StoreError as error:
                raise platform_unavailable() from error
        else:
            candidates = list(named)
        seen = frozenset([one for one in candidates if may_talk(mine, await self._directory.lineage(one))])
        if named is not None and seen != named:
            raise not_allowed()
        return seen
