from uuid import uuid4

import pytest

from gateway.core.workspaces import Status
from gateway.ports import NewWorkspace, TokenHash
from gateway.store.changes import ChangeStore
from gateway.store.tokens import TokenStore
from gateway.store.workspaces import WorkspaceStore

TOKEN = TokenHash(hash=b"\x01" * 32, prefix="abcdefgh")
REMOVE = "update workspaces set status = 'removed', removed_at = now() where id = %(id)s"


@pytest.fixture
def store(migrated) -> ChangeStore:
    return ChangeStore(migrated)


@pytest.fixture
def workspaces(migrated) -> WorkspaceStore:
    return WorkspaceStore(migrated)


def new() -> NewWorkspace:
    return NewWorkspace(id=str(uuid4()), name="one", status=Status.ONLINE, runtime="")


async def told(store: ChangeStore, horizon: str) -> list[tuple[str, str]]:
    changes, _ = await store.list_since(horizon)
    return [(change.kind, change.key) for change in changes]


async def test_nothing_has_changed_when_nothing_has(store):
    horizon = await store.horizon()
    assert await store.list_since(horizon) == ([], horizon)


async def test_whatever_is_done_to_a_workspace_or_a_token_is_listed(store, workspaces, migrated):
    one = new()
    token = ("token", TOKEN.hash.hex())
    for work, expected in (
        (lambda: workspaces.create(one, TOKEN), [("workspace", one.id), token]),
        (lambda: workspaces.update_card(one.id, {}), [("workspace", one.id)]),
        (lambda: workspaces.move(one.id, Status.PAUSED), [("workspace", one.id)]),
        (lambda: TokenStore(migrated).mint(one.id, TokenHash(hash=b"\x02" * 32, prefix="x"), limit=5),
         [("token", "02" * 32)]),
        (lambda: migrated.execute("update tokens set revoked_at = now() where prefix = 'x'"), [("token", "02" * 32)]),
        (lambda: migrated.execute("delete from tokens where prefix = 'x'"), [("token", "02" * 32)]),
        (lambda: migrated.execute(REMOVE, id=one.id), [("workspace", one.id), token]),
        (lambda: migrated.execute("delete from workspaces where id = %(id)s", id=one.id), [("workspace", one.id)]),
    ):  # fmt: skip
        horizon = await store.horizon()
        await work()
        listed = await told(store, horizon)
        assert listed[: len(expected)] == expected
        assert set(listed) <= {*expected, token}


async def test_what_was_committed_before_the_new_horizon_does_not_come_again(store, workspaces):
    horizon = await store.horizon()
    await workspaces.create(new(), None)
    first, horizon = await store.list_since(horizon)
    again, same = await store.list_since(horizon)
    assert (len(first), again, same) == (1, [], horizon)


async def test_while_a_transaction_is_open_the_horizon_waits_for_it_and_the_rows_do_not(store, workspaces, migrated):
    early, late = new(), new()
    for one in (early, late):
        await workspaces.create(one, None)
    horizon = await store.horizon()
    async with migrated.transaction() as transaction:
        await transaction.execute("update workspaces set x = 1 where id = %(id)s", id=early.id)
        await workspaces.update_card(late.id, {})
        rows, after = await store.list_since(horizon)
        assert [row.key for row in rows] == [late.id]
        again, _ = await store.list_since(after)
        assert [row.id for row in again] == [row.id for row in rows], "it may come twice"
    rows, _ = await store.list_since(after)
    assert {row.key for row in rows} == {early.id, late.id}


async def test_only_old_rows_are_dropped(store, workspaces, migrated):
    horizon = await store.horizon()
    old, young = new(), new()
    await workspaces.create(old, None)
    await migrated.execute("update changes set at = now() - interval '61 minutes'")
    await workspaces.create(young, None)
    await store.forget_old()
    assert await told(store, horizon) == [("workspace", young.id)]
