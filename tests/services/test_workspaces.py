from uuid import uuid4

import pytest

from gateway.core.address import Reach
from gateway.core.refusals import Code, Refusal
from gateway.core.tokens import hash_token
from gateway.core.workspaces import Status
from gateway.ports import UsageOfDay
from gateway.services.directory import Directory
from gateway.services.workspaces import Wanted, WorkspaceService
from gateway.store.vault import FernetVault, new_key
from tests.services.memory import Workspaces

URL = "http://127.0.0.1:9999/a2a"
VAULT = FernetVault(new_key().encode())


@pytest.fixture
def build(stores, bus):
    def build(**other: object) -> WorkspaceService:
        given = {
            "workspaces": stores.workspaces, "activity": stores.activity, "bus": bus,
            "directory": Directory(stores.workspaces, ttl_s=300), "vault": VAULT, "reach": Reach.SAME_NETWORK,
        }  # fmt: skip
        return WorkspaceService(**{**given, **other})

    return build


@pytest.fixture
def service(build) -> WorkspaceService:
    return build()


async def refusal(work) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await work
    return refused.value


@pytest.mark.parametrize(
    ("wanted", "status", "type_"),
    [
        (Wanted(name="x"), Status.PROVISIONING, "WORKSPACE_PROVISIONING"),
        (Wanted(name="x", url=URL), Status.PROVISIONING, "WORKSPACE_PROVISIONING"),
        (Wanted(name="x", external=True), Status.AWAITING_AGENT, "WORKSPACE_AWAITING_AGENT"),
        (Wanted(name="x", external=True, url=URL), Status.ONLINE, "WORKSPACE_ONLINE"),
    ],
)
async def test_a_new_workspace_has_its_first_status_and_everybody_is_told(
    service, stores, heard, wanted, status, type_
):
    created = await service.create(wanted)
    assert (created.status, created.external) == (status, wanted.external)
    event, payload = await heard.one(type_)
    runtime = "external" if wanted.external else ""
    assert (event.workspace_id, event.sign, payload) == (created.workspace_id, False, {"name": "x", "runtime": runtime})
    assert heard.wake_ups == 1
    assert (await stores.workspaces.find(created.workspace_id)).status is status


async def test_a_new_workspace_is_as_it_was_asked_for_and_has_a_token_that_is_kept_as_a_hash(service, stores):
    parent = await stores.make()
    wanted = Wanted(
        name="Ä name", external=False, role="r", template="t", model="m", tier=3, runtime="docker", url=URL,
        agent_auth="Bearer secret", workspace_dir="/work", workspace_access="ro", parent_id=parent, budget_limit=0,
        max_concurrent_tasks=4, delivery_mode="push", x=1.5, y=-2.5,
    )  # fmt: skip
    created = await service.create(wanted)
    found = await service.get(created.workspace_id)
    same = ("name", "role", "tier", "runtime", "url", "parent_id", "budget_limit", "max_concurrent_tasks", "x", "y")
    assert [getattr(found, name) for name in same] == [getattr(wanted, name) for name in same]
    assert (found.workspace_dir, found.delivery_mode) == ("/work", "push")
    assert VAULT.unseal(found.agent_auth) == "Bearer secret"
    owner = await stores.tokens.find_owner(hash_token(created.token))
    assert owner is not None
    assert owner.workspace_id == created.workspace_id
    assert created.token not in repr(created)
    row = await stores.database.fetch_one("select template, model, workspace_access from workspaces where model = 'm'")
    assert row == {"template": "t", "model": "m", "workspace_access": "ro"}


async def test_what_cannot_be_kept_or_reached_is_refused_by_its_field_and_leaves_nothing(build, stores, heard):
    gone = await stores.make(Status.REMOVED)
    before = await stores.ask("select count(*) from workspaces")
    for service, wanted, field in (
        (build(), Wanted(name="x", url="http://169.254.169.254/"), "url"),
        (build(reach=Reach.HOSTED), Wanted(name="x", url=URL), "url"),
        (build(vault=None), Wanted(name="x", agent_auth="secret"), "agent_auth"),
        (build(), Wanted(name="x", parent_id=str(uuid4())), "parent_id"),
        (build(), Wanted(name="x", parent_id=gone), "parent_id"),
    ):
        refused = await refusal(service.create(wanted))
        assert (refused.code, refused.fields) == (Code.INVALID_REQUEST, {"field": field})
    assert await stores.ask("select count(*) from workspaces") == before
    assert await heard() == []


async def test_the_list_has_all_that_are_not_removed_oldest_first(service, stores):
    first, gone, last = [await stores.make(status) for status in (Status.PAUSED, Status.REMOVED, Status.ONLINE)]
    assert [one.id for one in await service.list_all()] == [first, last]
    assert (await refusal(service.get(gone))).code is Code.REMOVED
    assert (await refusal(service.get(str(uuid4())))).code is Code.NOT_FOUND


async def test_a_workspace_goes_with_all_below_it_and_their_tokens(service, stores, heard):
    root = await service.create(Wanted(name="root"))
    child = await service.create(Wanted(name="child", parent_id=root.workspace_id))
    leaf = await service.create(Wanted(name="leaf", parent_id=child.workspace_id))
    other = await service.create(Wanted(name="other"))
    refused = await refusal(service.remove(root.workspace_id, confirmed=False))
    assert refused.code is Code.CONFIRMATION_REQUIRED
    assert refused.fields["children"] == [{"id": child.workspace_id, "name": "child"}]
    assert refused.fields["children_count"] == 1
    assert len(await service.list_all()) == 4
    assert await service.remove(root.workspace_id, confirmed=True) == 2
    assert [one.id for one in await service.list_all()] == [other.workspace_id]
    for one in (root, child, leaf):
        assert await stores.tokens.find_owner(hash_token(one.token)) is None
    assert await stores.tokens.find_owner(hash_token(other.token)) is not None
    gone = [one for one in await heard() if one.type == "WORKSPACE_REMOVED"]
    assert {one.workspace_id for one in gone} == {root.workspace_id, child.workspace_id, leaf.workspace_id}
    assert await service.remove(root.workspace_id, confirmed=False) == 0
    assert [one for one in await heard() if one.type == "WORKSPACE_REMOVED"] in (gone, [])
    assert (await refusal(service.remove(str(uuid4()), confirmed=True))).code is Code.NOT_FOUND


async def test_a_circle_is_removed_like_a_tree(service, stores):
    first = await stores.make()
    second = await stores.make(parent_id=first)
    await stores.database.execute("update workspaces set parent_id = %(to)s where id = %(id)s", to=second, id=first)
    assert await service.remove(first, confirmed=True) == 1
    assert await service.list_all() == []


async def test_the_usage_of_today_is_nothing_at_first_and_not_told_of_nobody(service, stores):
    one = await stores.make()
    assert await service.usage_today(one) == UsageOfDay()
    assert (await refusal(service.usage_today(str(uuid4())))).code is Code.NOT_FOUND


async def test_while_the_database_is_away_nothing_is_created(build):
    store = Workspaces()
    store.away = True
    service = build(workspaces=store, directory=Directory(store, ttl_s=300))
    for work in (service.create(Wanted(name="x", parent_id=str(uuid4()))), service.get("x")):
        refused = await refusal(work)
        assert (refused.code, refused.retry_after_s) == (Code.PLATFORM_UNAVAILABLE, 5)
