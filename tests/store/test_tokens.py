import asyncio
from uuid import uuid4

import pytest

from gateway.core.tokens import mint
from gateway.core.workspaces import Status
from gateway.ports import NewWorkspace, Owner, StoreConflict, TokenHash
from gateway.store.tokens import TokenStore
from gateway.store.workspaces import WorkspaceStore

REMOVE = "update workspaces set status = 'removed', removed_at = now() where id = %(id)s"
REVOKE = "update tokens set revoked_at = now() where hash = %(hash)s"


@pytest.fixture
def store(migrated) -> TokenStore:
    return TokenStore(migrated)


@pytest.fixture
async def one(migrated) -> str:
    """A workspace without a token."""
    id_ = str(uuid4())
    await WorkspaceStore(migrated).create(NewWorkspace(id=id_, name="one", status=Status.ONLINE, runtime=""), None)
    return id_


def fresh() -> TokenHash:
    token = mint()
    return TokenHash(hash=token.hash, prefix=token.prefix)


async def test_a_token_has_an_owner_until_it_is_revoked(store, one, migrated):
    token = fresh()
    assert await store.find_owner(token.hash) is None
    made = await store.mint(one, token, limit=5)
    assert await store.find_owner(token.hash) == Owner(token_id=made, workspace_id=one)
    await migrated.execute(REVOKE, hash=token.hash)
    assert await store.find_owner(token.hash) is None


async def test_the_tokens_of_a_removed_workspace_are_nobodys(store, one, migrated):
    token = fresh()
    await store.mint(one, token, limit=5)
    await migrated.execute(REMOVE, id=one)
    assert await store.find_owner(token.hash) is None


async def test_only_live_tokens_count(store, one, migrated):
    assert not await store.has_live(one)
    tokens = [fresh(), fresh()]
    assert None not in [await store.mint(one, token, limit=2) for token in tokens]
    assert await store.has_live(one)
    assert await store.mint(one, fresh(), limit=2) is None
    await migrated.execute(REVOKE, hash=tokens[0].hash)
    assert await store.mint(one, fresh(), limit=2) is not None


async def test_the_limit_is_exact_when_many_are_minted_at_once(store, one):
    made = await asyncio.gather(*(store.mint(one, fresh(), limit=5) for _ in range(12)))
    assert len({one for one in made if one is not None}) == 5


async def test_nobody_gets_a_token_for_a_workspace_that_is_not_there(store, one, migrated):
    await migrated.execute(REMOVE, id=one)
    for id_ in (one, str(uuid4())):
        with pytest.raises(KeyError):
            await store.mint(id_, fresh(), limit=5)


async def test_one_hash_is_never_kept_twice(store, one):
    token = fresh()
    await store.mint(one, token, limit=5)
    with pytest.raises(StoreConflict) as refused:
        await store.mint(one, token, limit=5)
    assert refused.value.constraint == "tokens_hash_key"


async def test_a_hash_has_32_bytes(store, one):
    with pytest.raises(StoreConflict):
        await store.mint(one, TokenHash(hash=b"short", prefix="x"), limit=5)


async def test_the_organisations_tokens_are_apart_from_those_of_workspaces(store, one):
    mine, ours = fresh(), fresh()
    of_one = await store.mint(one, mine, limit=1)
    of_all = await store.mint(None, ours, limit=1, name="ci")
    assert await store.mint(None, fresh(), limit=1) is None
    assert await store.find_owner(ours.hash) == Owner(token_id=of_all, workspace_id=None)
    [shown] = await store.list_live(None)
    assert (shown.id, shown.name, shown.prefix, shown.last_used_at) == (of_all, "ci", ours.prefix, None)
    assert [each.id for each in await store.list_live(one)] == [of_one]
    assert await store.revoke(one, of_all) is None
    assert await store.revoke(None, of_one) is None
    assert await store.revoke(None, of_all) == ours.hash
    assert await store.revoke(None, of_all) is None
    assert await store.list_live(None) == []
    assert await store.find_owner(ours.hash) is None


async def test_the_limit_of_the_organisations_is_exact_too(store):
    made = await asyncio.gather(*(store.mint(None, fresh(), limit=3) for _ in range(8)))
    assert len({each for each in made if each is not None}) == 3


async def test_that_a_token_was_used_is_written_and_is_no_change_to_be_told(store, one, migrated):
    token = fresh()
    await store.mint(one, token, limit=5)
    before = await migrated.fetch_one("select count(*) as changes from changes")
    await store.note_used([token.hash, b"\0" * 32])
    [shown] = await store.list_live(one)
    assert shown.last_used_at is not None
    assert await migrated.fetch_one("select count(*) as changes from changes") == before
