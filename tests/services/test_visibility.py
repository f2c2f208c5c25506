"""Who sees what, and who stops reading when that becomes something else."""

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from gateway.core.callers import Admin, Anonymous, Credential, Holder, Local, Member, Principal, Proof, Stranger
from gateway.core.refusals import Refusal, platform_unavailable
from gateway.core.workspaces import Status
from gateway.ports import StoreUnavailable
from gateway.services.directory import Directory
from gateway.services.visibility import Visibility

UNKNOWN: Final = "00000000-0000-4000-8000-00000000dead"


class Parents:
    """The real store, counted; it can be away."""

    def __init__(self, workspaces: Any) -> None:
        self._workspaces = workspaces
        self.away = False
        self.asked = 0

    async def find(self, workspace_id: str) -> Any:
        return await self._workspaces.find(workspace_id)

    async def list_parents(self) -> Mapping[str, str | None]:
        self.asked += 1
        if self.away:
            raise StoreUnavailable("away")
        parents: Mapping[str, str | None] = await self._workspaces.list_parents()
        return parents


@dataclass(eq=False)
class Reader:
    """Somebody who reads until told to end."""

    ended: int = field(default=0)

    def end(self) -> None:
        self.ended += 1


class Town:
    """Two roots, one with a child and a grandchild, the other with a child; what changes is told to the directory."""

    def __init__(self, stores: Any) -> None:
        self.stores = stores
        self.parents = Parents(stores.workspaces)
        self.directory = Directory(self.parents, ttl_s=60)  # type: ignore[arg-type]
        self.visibility = Visibility(self.directory, self.parents, self._is_good, now=lambda: self.now)  # type: ignore[arg-type]

        self.now = 1000.0
        self.revoked: set[bytes] = set()
        self.asked: list[bytes] = []

    async def _is_good(self, shown: Credential) -> bool:
        self.asked.append(shown.hash)
        if self.parents.away:
            raise platform_unavailable()
        return shown.hash not in self.revoked

    async def settle(self) -> None:
        self.root = await self.stores.make()
        self.other = await self.stores.make()
        self.child = await self.stores.make(parent_id=self.root)
        self.grandchild = await self.stores.make(parent_id=self.child)
        self.cousin = await self.stores.make(parent_id=self.other)

    async def sees(self, principal: Principal, *named: str) -> frozenset[str] | None:
        return (await self.visibility.look(principal, frozenset(named) or None)).workspaces

    async def remove(self, workspace_id: str) -> None:
        await self.stores.workspaces.remove_tree(workspace_id)
        self.directory.forget(workspace_id)

    async def move(self, workspace_id: str, to: str | None) -> None:
        query = "update workspaces set parent_id = %(to)s where id = %(id)s"
        await self.stores.database.execute(query, id=workspace_id, to=to)
        self.directory.forget(workspace_id)


@pytest.fixture
async def town(stores: Any) -> Town:
    town = Town(stores)
    await town.settle()
    return town


def holder(of: str) -> Holder:
    return Holder(workspace_id=of)


@pytest.mark.parametrize("principal", [Admin(), Local()])
async def test_the_operator_sees_all_there_is_or_what_it_names(town: Town, principal: Principal):
    assert await town.sees(principal) is None
    assert await town.sees(principal, town.root, town.cousin) == {town.root, town.cousin}
    assert town.parents.asked == 0


async def test_a_workspace_sees_itself_its_siblings_and_its_line(town: Town):
    assert await town.sees(holder(town.root)) == {town.root, town.other, town.child, town.grandchild}
    assert await town.sees(holder(town.child)) == {town.root, town.child, town.grandchild}
    assert await town.sees(holder(town.cousin)) == {town.other, town.cousin}
    assert await town.sees(holder(town.cousin), town.other) == {town.other}


@pytest.mark.parametrize(
    ("principal", "code"), [(Anonymous(), "credential_required"), (Stranger(), "invalid_credential")]
)
async def test_nobody_sees_nothing(town: Town, principal: Principal, code: str):
    with pytest.raises(Refusal) as refusal:
        await town.sees(principal)
    assert refusal.value.code == code


async def test_what_may_not_be_seen_is_refused_and_what_is_not_there(town: Town):
    removed = await town.stores.make(status=Status.REMOVED)
    refusals = {}
    hidden = await town.stores.make(status=Status.REMOVED, parent_id=town.other)
    for who, *named in (
        (holder(town.child), town.root, town.other),
        (holder(town.child), town.root, UNKNOWN),
        (holder(town.child), town.root, hidden),
        (holder(town.root), removed),
        (Admin(), town.root, UNKNOWN),
        (Admin(), removed, UNKNOWN),
        (Admin(), removed),
        (Admin(), removed, hidden),
    ):
        with pytest.raises(Refusal) as refusal:
            await town.sees(who, *named)
        refusals[who, *named] = refusal.value.code
    assert list(refusals.values()) == [
        *["not_allowed"] * 3, "removed", "not_found", "not_found", "removed", "removed"
    ]  # fmt: skip


async def test_what_is_removed_keeps_nobody_from_the_rest(town: Town):
    for who in (Admin(), holder(town.root)):
        await town.sees(who, town.root, town.child)
    await town.remove(town.child)
    for who in (Admin(), holder(town.root)):
        assert await town.sees(who, town.root, town.child) == {town.root, town.child}, "its past is told still"


async def test_who_names_nothing_but_what_is_removed_ends_a_turn_later_and_the_others_read_on(town: Town):
    look, kept = town.visibility.look, town.visibility.kept
    operator, holding, both, everything = (Reader() for _ in range(4))
    with (
        kept(await look(Admin(), frozenset({town.child})), operator),
        kept(await look(holder(town.root), frozenset({town.child, town.grandchild})), holding),
        kept(await look(Admin(), frozenset({town.root, town.child})), both),
        kept(await look(Admin(), None), everything),
    ):
        await town.visibility.tick()
        await town.remove(town.grandchild)
        await town.remove(town.child)
        await town.visibility.tick()
        assert [one.ended for one in (operator, holding, both, everything)] == [0, 0, 0, 0], "they are told first"
        await town.visibility.tick()
        await town.visibility.tick()
        assert [one.ended for one in (operator, holding, both, everything)] == [1, 1, 0, 0]


async def test_a_removal_between_looking_and_reading_is_not_missed(town: Town):
    reader = Reader()
    view = await town.visibility.look(Admin(), frozenset({town.child}))
    await town.remove(town.child)
    await town.visibility.tick()
    with town.visibility.kept(view, reader):
        await town.visibility.tick()
        await town.visibility.tick()
        assert reader.ended == 1


async def test_the_hierarchy_is_listed_once_for_all_who_ask_until_it_may_have_changed(town: Town):
    for _ in range(3):
        await town.sees(holder(town.root))
        await town.sees(holder(town.cousin))
    assert town.parents.asked == 1
    newcomer = await town.stores.make()
    assert newcomer not in (await town.sees(holder(town.root)) or ())
    town.directory.forget(newcomer)
    assert newcomer in (await town.sees(holder(town.root)) or ())
    assert town.parents.asked == 2


async def test_who_is_newer_than_the_list_makes_it_be_read_again(town: Town):
    await town.sees(holder(town.root))
    newcomer = await town.stores.make()
    assert await town.sees(holder(newcomer)) == {newcomer, town.root, town.other}


async def test_a_circle_sees_nothing(town: Town):
    await town.move(town.root, town.grandchild)
    assert await town.sees(holder(town.child)) == frozenset()
    with pytest.raises(Refusal):
        await town.sees(holder(town.child), town.root)


async def test_those_whose_view_has_changed_end_and_the_others_read_on(town: Town):
    readers = {name: Reader() for name in ("root", "child", "named", "operator")}
    look, kept = town.visibility.look, town.visibility.kept
    with (
        kept(await look(holder(town.root), None), readers["root"]),
        kept(await look(holder(town.child), None), readers["child"]),
        kept(await look(holder(town.root), frozenset({town.child})), readers["named"]),
        kept(await look(Admin(), None), readers["operator"]),
    ):
        await town.visibility.tick()
        assert [one.ended for one in readers.values()] == [0, 0, 0, 0]
        await town.move(town.child, None)  # a root now: the root sees it still, and what is below it no more
        await town.visibility.tick()
        assert {name: one.ended for name, one in readers.items()} == {"root": 1, "child": 1, "named": 0, "operator": 0}
        await town.move(town.root, town.other)
        await town.visibility.tick()
        assert readers["named"].ended == 1
        assert readers["operator"].ended == 0
    asked = town.parents.asked
    await town.move(town.root, None)
    await town.visibility.tick()
    assert town.parents.asked == asked, "nobody reads"


async def test_a_change_that_changes_no_hierarchy_ends_nobody(town: Town):
    reader = Reader()
    with town.visibility.kept(await town.visibility.look(holder(town.root), None), reader):
        town.directory.forget(town.root)
        await town.visibility.tick()
        await town.move(town.cousin, town.grandchild)
        await town.move(town.cousin, town.other)
        await town.visibility.tick()
    assert reader.ended == 0


async def test_a_change_between_looking_and_reading_is_not_missed(town: Town):
    reader = Reader()
    view = await town.visibility.look(holder(town.root), None)
    await town.move(town.child, None)
    with town.visibility.kept(await town.visibility.look(holder(town.other), None), Reader()):
        await town.visibility.tick()
    with town.visibility.kept(view, reader):
        await town.visibility.tick()
    assert reader.ended == 1


async def test_nobody_ends_because_the_database_is_away_and_it_is_asked_again(town: Town):
    reader = Reader()
    with town.visibility.kept(await town.visibility.look(holder(town.root), None), reader):
        await town.move(town.child, None)
        town.parents.away = True
        with pytest.raises(Refusal):
            await town.visibility.tick()
        assert reader.ended == 0
        town.parents.away = False
        await town.visibility.tick()
        assert reader.ended == 1


def shown(number: int, *, until: float | None = None) -> Credential:
    return Credential(proof=Proof.TOKEN if until is None else Proof.SESSION, hash=bytes([number]) * 32, until=until)


async def test_a_reader_ends_when_its_own_credential_does_and_no_other(town):
    principals = [
        Holder(workspace_id=town.root, credential=shown(1)),
        Holder(workspace_id=town.root, credential=shown(2)),
        Member(credential=shown(3)),
        Admin(credential=shown(4, until=2000.0)),
    ]
    readers = [Reader() for _ in principals]
    with ExitStack() as stack:
        for one, reader in zip(principals, readers, strict=True):
            stack.enter_context(town.visibility.kept(await town.visibility.look(one, None), reader))
        await town.visibility.tick()
        assert [reader.ended for reader in readers] == [0, 0, 0, 0]
        town.asked.clear()
        await town.visibility.tick()
        assert town.asked == []  # nobody is asked about what is in no doubt
        for one, ends in ((2, [0, 1, 0, 0]), (3, [0, 1, 1, 0]), (4, [0, 1, 1, 1])):
            town.revoked.add(shown(one).hash)
            await town.visibility.tick()
            proof = Proof.SESSION if one == 4 else Proof.TOKEN
            town.visibility.doubt(proof, shown(one).hash.hex())
            await town.visibility.tick()
            assert [reader.ended for reader in readers] == ends
    town.visibility.doubt(Proof.TOKEN, shown(1).hash.hex())
    await town.visibility.tick()


async def test_what_was_revoked_while_a_reader_was_coming_ends_it(town):
    reader = Reader()
    view = await town.visibility.look(Holder(workspace_id=town.root, credential=shown(1)), None)
    town.revoked.add(shown(1).hash)
    town.visibility.doubt(Proof.TOKEN, shown(1).hash.hex())
    with town.visibility.kept(view, reader):
        await town.visibility.tick()
        assert reader.ended == 1


async def test_a_reader_ends_when_its_session_is_over(town):
    reader = Reader()
    view = await town.visibility.look(Member(credential=shown(1, until=1010.0)), None)
    with town.visibility.kept(view, reader):
        town.now = 1009.9
        await town.visibility.tick()
        assert reader.ended == 0
        town.now = 1010.0
        await town.visibility.tick()
        assert reader.ended == 1


async def test_while_nobody_can_say_a_reader_goes_on_and_is_asked_about_again(town):
    reader = Reader()
    with town.visibility.kept(await town.visibility.look(Member(credential=shown(1)), None), reader):
        town.revoked.add(shown(1).hash)
        town.parents.away = True
        with pytest.raises(Refusal):
            await town.visibility.tick()
        assert reader.ended == 0
        town.parents.away = False
        await town.visibility.tick()
        assert reader.ended == 1
