"""Workspaces that leave tasks to one another, and what is seen of it from outside."""

from collections.abc import Mapping
from typing import Any, Final

from tests.harness.busy import FINAL
from tests.harness.process import GatewayProcess
from tests.harness.world import Workspace, World, until

NOT_DONE: Final = FINAL - {"completed"}


async def delegate(
    world: World,
    source: Workspace,
    target: Workspace,
    task: str = "do it",
    *,
    gateway: GatewayProcess | None = None,
    headers: Mapping[str, str] | None = None,
    **fields: Any,
) -> tuple[int, Any]:
    """Leave a task to a workspace, as the one that leaves it."""
    status, said, _ = await world.request(
        "POST",
        f"/workspaces/{source.id}/delegate",
        gateway=gateway,
        json={"target_id": target.id, "task": task, **fields},
        headers={**source.bearer, **(headers or {})},
    )
    return status, said


async def delegated(world: World, source: Workspace, target: Workspace, task: str = "do it", **options: Any) -> str:
    """The same, where it has to be taken; return its id."""
    status, said = await delegate(world, source, target, task, **options)
    assert (status, said["status"], said["target_id"]) == (202, "delegated", target.id), said
    id_: str = said["delegation_id"]
    return id_


async def listed(world: World, source: Workspace, *, gateway: GatewayProcess | None = None) -> list[Any]:
    status, said, _ = await world.request(
        "GET", f"/workspaces/{source.id}/delegations", gateway=gateway, headers=source.bearer
    )
    assert status == 200, said
    rows: list[Any] = said
    return rows


async def stands(
    world: World,
    source: Workspace,
    id_: str,
    *words: str,
    gateway: GatewayProcess | None = None,
    within_s: float = 20.0,
) -> Any:
    """How a delegation is listed once it stands so; without words: once it has ended."""
    wanted = frozenset(words) or FINAL

    async def look() -> Any:
        return next((one for one in await listed(world, source, gateway=gateway) if one["delegation_id"] == id_), None)

    return await until(look, lambda one: one is not None and one["status"] in wanted, within_s)


async def results(world: World, source: Workspace, id_: str) -> list[Any]:
    """The rows of a delegation's result in the history of its source."""
    status, said, _ = await world.request("GET", f"/workspaces/{source.id}/activity", headers=source.bearer)
    assert status == 200
    query = "select id from activity where call_id = %s and method = 'delegate_result'"
    ids = {row for (row,) in await world.sql(query, id_)}
    return [one for one in said if one["id"] in ids]


async def report(
    world: World, source: Workspace, id_: str, by: Workspace, status: str, **fields: Any
) -> tuple[int, Any]:
    """Say how a delegation stands."""
    code, said, _ = await world.request(
        "POST",
        f"/workspaces/{source.id}/delegations/{id_}/update",
        json={"status": status, **fields},
        headers=by.bearer,
    )
    return code, said
