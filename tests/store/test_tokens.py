import asyncio
from uuid import uuid4

import pytest

from gateway.core.tokens import mint
from gateway.core.workspaces import Status
from gateway.ports import NewWorkspace, StoreConflict, TokenHash
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
    assert await store.mint(one, token, limit=5) == 1
    assert await store.find_owner(token.hash) == one
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
    assert [await store.mint(one, token, limit=2) for token in tokens] == [1, 2]
    assert await store.has_live(one)
    assert await store.mint(one, fresh(), limit=2) is None
    await migrated.execute(REVOKE, hash=tokens[0].hash)
    assert await store.mint(one, fresh(), limit=2) == 2


async def test_the_limit_is_exact_when_many_are_minted_at_once(store, one):
    counted = await asyncio.gather(*(store.mint(one, fresh(), limit=5) for _ in range(12)))
    assert sorted(count for count in counted if count is not None) == [1, 2, 3, 4, 5]


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
