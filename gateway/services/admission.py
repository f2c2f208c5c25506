"""Whether a caller may call: who it is, whether it may talk to the target, whether the target may spend."""

from dataclasses import dataclass
from typing import assert_never

import structlog

from gateway.core import access
from gateway.core.callers import Admin, Anonymous, Holder, Local, Member, Principal, Stranger, System, is_forged
from gateway.core.ids import find_uuid
from gateway.core.refusals import Code, Refusal, bad_field, credential_required, invalid_credential
from gateway.core.workspaces import Workspace
from gateway.services.directory import Directory
from gateway.services.entrance import check_budget

log = structlog.get_logger("gateway.admission")


@dataclass(frozen=True, kw_only=True, slots=True)
class Admitted:
    """A call that may go on. `caller_id` is the calling workspace, None for a person or a system caller."""

    target: Workspace
    caller_id: str | None


class Admission:
    """Admits calls, in the order of wire.md 4: forged prefix, binding, hierarchy, budget."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory

    async def admit(self, principal: Principal, claimed: str | None, target_id: str, *, peer: str) -> Admitted:
        """Return the admitted call, or refuse.

        claimed: the X-Workspace-ID header. peer: the address it came from, for the log.
        """
        if claimed is not None and is_forged(claimed):
            log.warning("forged_caller", peer=peer, kind=claimed.partition(":")[0][:16])
            raise Refusal(Code.FORGED_CALLER, "invalid caller ID")
        if isinstance(principal, System):
            log.info("system_caller", kind=principal.kind, name=principal.name[:64], target_id=target_id)
        caller_id = bind(principal, claimed)
        if caller_id is not None:
            await self._check_reach(caller_id, target_id)
        target = await self._directory.get(target_id)
        check_budget(target)
        return Admitted(target=target, caller_id=caller_id)

    async def readmit(self, caller_id: str | None, target_id: str) -> Workspace:
        """Return the target of a call that has waited, or refuse: what was true when it came may not be true now."""
        target = await self._directory.get(target_id)
        if caller_id is not None:
            await self._check_reach(caller_id, target_id)
        check_budget(target)
        return target

    async def admit_from(self, caller_id: str, target_id: str) -> Workspace:
        """Return the target of what one workspace asks of another, or refuse; whether it is there learns who may talk
        to it."""
        await self._check_reach(caller_id, target_id)
        target = await self._directory.get(target_id)
        check_budget(target)
        return target

    async def may_talk(self, caller_id: str, target_id: str) -> bool:
        """Return whether the hierarchy lets these two talk."""
        if caller_id == target_id:
            return True
        return access.may_talk(await self._directory.lineage(caller_id), await self._directory.lineage(target_id))

    async def _check_reach(self, caller_id: str, target_id: str) -> None:
        if not await self.may_talk(caller_id, target_id):
            raise Refusal(Code.CANNOT_COMMUNICATE, "access denied: workspaces cannot communicate per hierarchy rules")


def bind(principal: Principal, claimed: str | None) -> str | None:
    """Return the calling workspace, None for a browser; a header that disagrees with the bearer is refused."""
    named = None
    if claimed is not None and claimed != "":
        named = find_uuid(claimed)
        if named is None:
            raise bad_field("X-Workspace-ID", "must be a workspace's UUID")
    match principal:
        case Holder(workspace_id=owner):
            if named is not None and named != owner:
                raise Refusal(Code.INVALID_CREDENTIAL, "X-Workspace-ID does not match the token's workspace")
            return owner
        case Admin() | Local():
            return named
        case Member() | System():
            if named is not None:
                raise Refusal(Code.INVALID_CREDENTIAL, "X-Workspace-ID names a workspace that this credential is not")
            return None
        case Anonymous():
            raise credential_required()
        case Stranger():
            raise invalid_credential()
        case never:
            assert_never(never)
