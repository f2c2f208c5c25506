import asyncio
from typing import Any
from uuid import uuid4

import pytest

from gateway.core.access import MAX_DEPTH
from gateway.core.address import Reach
from gateway.core.refusals import Code, Refusal
from gateway.core.workspaces import Status
from gateway.ports import EDITABLE, NewWorkspace
from gateway.services.directory import Directory
from gateway.services.edits import Edits
from tests.services.memory import Workspaces


@pytest.fixture
def directory(stores) -> Directory:
    return Directory(stores.workspaces, ttl_s=300)


@pytest.fixture
def service(stores, directory, bus) -> Edits:
    return Edits(workspaces=stores.workspaces, directory=directory, bus=bus, reach=Reach.HOSTED)


async def refusal(work) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await work
    return refused.value


async def managed(stores) -> str:
    id_ = str(uuid4())
    new = NewWorkspace(id=id_, name="one", status=Status.ONLINE, runtime="docker", workspace_dir="/srv/a")
    await stores.workspaces.create(new, None)
    return id_


async def test_what_is_said_is_changed_and_the_rest_stays(service, stores, directory, heard):
    parent, one = await stores.make(), await stores.make(role="writer", tier=3, url="https://old.example/", y=2.0)
    before = await directory.get(one)
    said: dict[str, Any] = {
        "name": "two", "role": None, "parent_id": parent, "collapsed": True, "workspace_dir": "/srv/b", "x": 1.5,
        "url": "https://new.example/", "delivery_mode": "push", "max_concurrent_tasks": 4,
        "events_url": "https://new.example/events",
    }  # fmt: skip
    assert not await service.edit(one, said)
    after = await directory.get(one)
    assert {name: getattr(after, name) for name in said} == said
    left = [name for name in EDITABLE if name not in said]
    assert left == ["tier", "runtime", "y", "budget_limit"]
    assert [getattr(after, name) for name in left] == [getattr(before, name) for name in left]
    assert await heard.names() == []
    assert heard.wake_ups == 1


async def test_nothing_said_changes_nothing_and_null_takes_away(service, stores, directory):
    parent = await stores.make()
    one = await stores.make(parent_id=parent, url="https://old.example/")
    await service.edit(one, {})
    assert (await directory.get(one)).parent_id == parent
    await service.edit(one, {"parent_id": None, "url": None})
    found = await directory.get(one)
    assert (found.parent_id, found.url) == (None, None)


@pytest.mark.parametrize(
    ("said", "restart"),
    [
        ({"runtime": "process"}, True),
        ({"workspace_dir": "/srv/b"}, True),
        ({"workspace_dir": None}, True),
        ({"runtime": "docker", "workspace_dir": "/srv/a"}, False),
        ({"name": "other", "x": 1.0}, False),
    ],
)
async def test_an_agent_of_ours_is_restarted_for_what_it_was_started_with(service, stores, said, restart):
    assert await service.edit(await managed(stores), said) is restart


async def test_nobody_changes_whose_an_agent_is(service, stores):
    for one, runtime in ((await managed(stores), "external"), (await stores.make(), "docker")):
        refused = await refusal(service.edit(one, {"runtime": runtime, "name": "x"}))
        assert (refused.code, refused.fields) == (Code.INVALID_REQUEST, {"field": "runtime"})
        assert (await stores.workspaces.find(one)).name == "one"


async def test_an_unsafe_url_is_refused_and_nothing_is_changed(service, stores):
    one = await stores.make()
    refused = await refusal(service.edit(one, {"url": "http://10.0.0.1/", "name": "x"}))
    assert refused.sentence == "url: the address is in a private network"
    assert (await stores.workspaces.find(one)).name == "one"


async def test_a_parent_has_to_be_there_and_not_below(service, stores):
    root = await stores.make()
    child = await stores.make(parent_id=root)
    leaf = await stores.make(parent_id=child)
    for parent in (str(uuid4()), await stores.make(Status.REMOVED)):
        refused = await refusal(service.edit(root, {"parent_id": parent, "name": "x"}))
        assert refused.sentence == "parent_id: no such workspace"
    for parent in (root, child, leaf):
        refused = await refusal(service.edit(root, {"parent_id": parent, "name": "x"}))
        assert refused.sentence == "parent_id: is the workspace itself or below it"
    assert (await stores.workspaces.find(root)).name == "one"
    assert not await service.edit(leaf, {"parent_id": root})


async def test_a_move_makes_no_hierarchy_too_deep(service, stores, directory):
    line = [await stores.make()]
    for _ in range(MAX_DEPTH - 2):
        line.append(await stores.make(parent_id=line[-1]))
    root = await stores.make()
    await stores.make(parent_id=root)
    refused = await refusal(service.edit(root, {"parent_id": line[-1]}))
    assert refused.sentence == f"parent_id: would make the hierarchy deeper than {MAX_DEPTH} levels"
    assert not await service.edit(root, {"parent_id": line[-2]})
    assert len(await directory.lineage(root)) == MAX_DEPTH - 1


async def test_moves_at_the_same_moment_make_no_circle(service, stores):
    for _ in range(10):
        ids = [await stores.make() for _ in range(3)]
        moves = [service.edit(one, {"parent_id": ids[n - 1]}) for n, one in enumerate(ids)]
        ended = await asyncio.gather(*moves, return_exceptions=True)
        refused = [one for one in ended if isinstance(one, BaseException)]
        assert len(refused) == 1
        assert isinstance(refused[0], Refusal)
        parents = await stores.workspaces.list_parents()
        assert sum(parents[one] is None for one in ids) == 1


async def test_who_moves_below_what_is_removed_at_the_same_moment_is_removed_or_refused(service, stores):
    for _ in range(10):
        root, one = await stores.make(), await stores.make()
        ended = await asyncio.gather(
            stores.workspaces.remove_tree(root), service.edit(one, {"parent_id": root}), return_exceptions=True
        )
        found = await stores.workspaces.find(one)
        assert isinstance(ended[1], Refusal) != found.removed
        assert found.removed or found.parent_id is None


async def test_what_is_not_there_is_not_changed(service, stores):
    assert (await refusal(service.edit(str(uuid4()), {"name": "x"}))).code is Code.NOT_FOUND
    assert (await refusal(service.edit(await stores.make(Status.REMOVED), {"name": "x"}))).code is Code.REMOVED
    late = await stores.make()
    assert not await service.edit(late, {"name": "x"})
    await stores.remove(late)
    assert (await refusal(service.edit(late, {"name": "y"}))).code in (Code.NOT_FOUND, Code.REMOVED)


async def test_while_the_database_is_away_nothing_is_changed(bus):
    store = Workspaces()
    store.away = True
    service = Edits(workspaces=store, directory=Directory(store, ttl_s=300), bus=bus, reach=Reach.HOSTED)
    assert (await refusal(service.edit("x", {"name": "y"}))).code is Code.PLATFORM_UNAVAILABLE
