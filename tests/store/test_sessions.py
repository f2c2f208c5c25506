import asyncio

import pytest

from gateway.core.tokens import mint
from gateway.ports import TokenHash
from gateway.store.sessions import SessionStore
from gateway.store.tokens import TokenStore

ADMIN_HASH = b"\x07" * 32


@pytest.fixture
def store(migrated) -> SessionStore:
    return SessionStore(migrated)


async def test_a_session_lasts_until_it_is_over_or_ended(store, migrated):
    first, second = mint().hash, mint().hash
    for one in (first, second):
        await store.open(one, token_id=None, admin_hash=ADMIN_HASH, lasts_s=60)
    found = await store.find(first)
    assert found is not None
    assert found.admin_hash == ADMIN_HASH
    assert 50 < found.left_s <= 60
    await store.end(first)
    assert await store.find(first) is None
    assert await store.find(second) is not None
    await migrated.execute("update sessions set expires_at = now()")
    assert await store.find(second) is None


async def test_a_session_ends_with_the_token_that_opened_it_and_the_caches_are_told(store, migrated):
    tokens, token, session = TokenStore(migrated), mint(), mint().hash
    token_id = await tokens.mint(None, TokenHash(hash=token.hash, prefix=token.prefix), limit=5)
    assert token_id is not None
    await store.open(session, token_id=token_id, admin_hash=None, lasts_s=60)
    assert await store.find(session) is not None
    await migrated.execute("delete from changes")
    await tokens.revoke(None, token_id)
    assert await store.find(session) is None
    told = await migrated.fetch("select kind, key from changes order by kind")
    assert [(one["kind"], one["key"]) for one in told] == [("session", session.hex()), ("token", token.hash.hex())]


async def test_sessions_that_are_long_over_go(store, migrated):
    await store.open(mint().hash, token_id=None, admin_hash=ADMIN_HASH, lasts_s=60)
    await migrated.execute("update sessions set expires_at = now() - interval '2 days'")
    await store.open(mint().hash, token_id=None, admin_hash=ADMIN_HASH, lasts_s=60)
    row = await migrated.fetch_one("select count(*) as left from sessions")
    assert row == {"left": 1}


async def test_a_code_is_good_once_and_for_its_time_whoever_comes_first(store, migrated):
    code, late = mint().hash, mint().hash
    await store.create_code(code, admin_hash=ADMIN_HASH, lasts_s=60)
    claimed = await asyncio.gather(*(store.claim_code(code) for _ in range(5)))
    assert sorted(claimed, key=str) == sorted([ADMIN_HASH, None, None, None, None], key=str)
    await store.create_code(late, admin_hash=ADMIN_HASH, lasts_s=60)
    await migrated.execute("update login_codes set expires_at = now()")
    assert await store.claim_code(late) is None
    assert await store.claim_code(mint().hash) is None
