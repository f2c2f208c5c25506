from uuid import uuid4

import pytest

from gateway.core.address import Reach
from gateway.core.callers import Admin, Holder, Member, Principal
from gateway.core.refusals import Code, Refusal
from gateway.core.workspaces import Status
from gateway.services import peers
from gateway.services.directory import Directory
from gateway.services.peers import Peers
from tests.services.memory import Workspaces

URL = "https://agent.example/a2a"


class Family:
    """Two roots; under the first two children, under its first child two more."""

    def __init__(self, stores) -> None:
        self.stores = stores
        self.ids: dict[str, str] = {}

    async def grow(self) -> None:
        for name, parent in (
            ("root", None), ("other", None), ("child", "root"), ("twin", "root"), ("leaf", "child"), ("bud", "child"),
        ):  # fmt: skip
            self.ids[name] = await self.stores.make(parent_id=self.ids.get(parent), url=URL)

    def names(self, found) -> list[str]:
        return [next(name for name, id_ in self.ids.items() if id_ == one.id) for one in found]


@pytest.fixture
async def family(stores) -> Family:
    family = Family(stores)
    await family.grow()
    return family


@pytest.fixture
def service(stores) -> Peers:
    return Peers(workspaces=stores.workspaces, directory=Directory(stores.workspaces, ttl_s=300), reach=Reach.HOSTED)


async def refusal(work) -> Code:
    with pytest.raises(Refusal) as refused:
        await work
    return refused.value.code


@pytest.mark.parametrize(
    ("of", "near"),
    [
        ("root", ["other", "child", "twin"]),
        ("other", ["root"]),
        ("child", ["root", "twin", "leaf", "bud"]),
        ("leaf", ["child", "bud"]),
    ],
)
@pytest.mark.parametrize("asks", ["itself", "organisation", "operator"])
async def test_near_are_the_parent_the_children_and_the_siblings(service, family, of, near, asks):
    who: Principal = {"itself": Holder(workspace_id=family.ids[of]), "organisation": Member(), "operator": Admin()}[
        asks
    ]
    assert family.names(await service.list_near(who, family.ids[of], search="")) == near


@pytest.mark.parametrize(
    ("asker", "of", "near"),
    [
        ("leaf", "child", ["root", "leaf", "bud"]),  # not the twin of its parent
        ("leaf", "root", ["child"]),  # neither the other root nor its uncle
        ("root", "child", ["root", "twin", "leaf", "bud"]),
        ("twin", "root", ["child", "twin"]),
        ("twin", "child", ["root", "twin"]),
    ],
)
async def test_nobody_is_shown_whom_it_may_not_talk_to(service, family, asker, of, near):
    found = await service.list_near(Holder(workspace_id=family.ids[asker]), family.ids[of], search="")
    assert family.names(found) == near


async def test_the_removed_are_not_near_and_have_nobody_near(service, family, stores):
    await stores.remove(family.ids["bud"])
    assert family.names(await service.list_near(Admin(), family.ids["leaf"], search="")) == ["child"]
    assert await refusal(service.list_near(Admin(), family.ids["bud"], search="")) is Code.REMOVED
    assert await refusal(service.list_near(Admin(), str(uuid4()), search="")) is Code.NOT_FOUND


async def test_in_a_circle_nobody_is_near(service, stores):
    first = await stores.make()
    second = await stores.make(parent_id=first)
    await stores.database.execute("update workspaces set parent_id = %(to)s where id = %(id)s", to=second, id=first)
    assert await service.list_near(Admin(), first, search="") == []


async def test_a_search_looks_at_names_and_roles_in_any_case_and_knows_no_wildcards(service, stores):
    parent = await stores.make()
    by_role = await stores.make(parent_id=parent, role="Code REVIEWER 100%")
    await stores.make(parent_id=parent, role="writer")
    for said in ("reviewer", "one\nCode", "100%"):
        found = await service.list_near(Admin(), parent, search=said)
        assert [one.id for one in found] == [by_role], said
    assert len(await service.list_near(Admin(), parent, search="ONE")) == 2
    assert await service.list_near(Admin(), parent, search="%") != await service.list_near(Admin(), parent, search="")
    assert await service.list_near(Admin(), parent, search="_") == []


async def test_an_answer_is_bounded_and_has_the_oldest(service, stores, monkeypatch):
    monkeypatch.setattr(peers, "MAX_PEERS", 2)
    parent = await stores.make()
    children = [await stores.make(parent_id=parent) for _ in range(3)]
    assert [one.id for one in await service.list_near(Admin(), parent, search="")] == children[:2]


async def test_a_url_that_may_not_be_called_is_not_handed_on(service, stores):
    parent = await stores.make(url="http://127.0.0.1:8000/")
    child = await stores.make(parent_id=parent, url="http://169.254.169.254/latest")
    [shown] = await service.list_near(Admin(), parent, search="")
    assert (shown.id, shown.url) == (child, None)
    assert await refusal(service.discover(child)) is Code.UNSAFE_URL
    assert await refusal(service.discover(parent)) is Code.UNSAFE_URL


async def test_a_workspace_is_found_where_it_is_called(service, stores):
    one = await stores.make(url=URL)
    found = await service.discover(one)
    assert (found.id, found.name, found.url) == (one, "one", URL)
    assert await refusal(service.discover(await stores.make())) is Code.NO_URL
    assert await refusal(service.discover(await stores.make(Status.REMOVED, url=URL))) is Code.REMOVED
    assert await refusal(service.discover(str(uuid4()))) is Code.NOT_FOUND


@pytest.mark.parametrize(
    ("caller", "target", "allowed"),
    [
        ("leaf", "root", True), ("root", "leaf", True), ("leaf", "bud", True), ("root", "other", True),
        ("leaf", "leaf", True), ("leaf", "twin", False), ("twin", "leaf", False), ("other", "child", False),
    ],
)  # fmt: skip
async def test_who_may_talk_to_whom_is_told(service, family, caller, target, allowed):
    caller_id, target_id = family.ids[caller], family.ids[target]
    for who in (Admin(), Member(), Holder(workspace_id=caller_id), Holder(workspace_id=target_id)):
        assert await service.may_talk(who, caller_id, target_id) is allowed


async def test_nobody_talks_to_the_unknown_or_removed_not_even_they_themselves(service, family, stores):
    gone, unknown = await stores.make(Status.REMOVED), str(uuid4())
    for one in (gone, unknown):
        for other in (one, family.ids["root"]):
            assert not await service.may_talk(Admin(), one, other)
            assert not await service.may_talk(Admin(), other, one)


@pytest.mark.parametrize(
    ("asker", "caller", "target", "told"),
    [("leaf", "root", "child", True), ("leaf", "root", "other", False), ("twin", "leaf", "bud", False)],
)
async def test_a_workspace_asks_about_others_only_if_it_may_talk_to_both(service, family, asker, caller, target, told):
    work = service.may_talk(Holder(workspace_id=family.ids[asker]), family.ids[caller], family.ids[target])
    if told:
        assert await work
    else:
        assert await refusal(work) is Code.NOT_ALLOWED


async def test_while_the_database_is_away_nothing_is_told():
    store = Workspaces()
    store.away = True
    service = Peers(workspaces=store, directory=Directory(store, ttl_s=300), reach=Reach.HOSTED)
    for work in (
        service.discover("x"), service.list_near(Admin(), "x", search=""), service.may_talk(Admin(), "x", "y")
    ):  # fmt: skip
        assert await refusal(work) is Code.PLATFORM_UNAVAILABLE
