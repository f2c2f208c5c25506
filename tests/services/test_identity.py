import pytest

from gateway.core.callers import Admin, Anonymous, Holder, Local, Member, Stranger
from gateway.core.refusals import Code, Refusal
from gateway.core.tokens import hash_token
from gateway.ports import OpenSession, StoreUnavailable
from gateway.services.identity import BEAT_STALE_S, CALL_STALE_S, MISSING_S, Identity
from tests.services.memory import Clock, Sessions, Tokens

ID = "00000000-0000-4000-8000-00000000000a"
ADMIN = "the operator's own token"
GOOD = "a" * 43


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store() -> Tokens:
    store = Tokens()
    store.owners[hash_token(GOOD)] = ID
    return store


@pytest.fixture
def identity(store, clock) -> Identity:
    return Identity(store, Sessions(), admin_token=ADMIN, open_locally=False, ttl_s=10, now=clock)


async def unavailable(identity: Identity, bearer: str, stale_s: float) -> bool:
    try:
        await identity.tell(bearer, stale_s=stale_s)
    except Refusal as refused:
        return refused.code is Code.PLATFORM_UNAVAILABLE
    return False


@pytest.mark.parametrize(
    ("bearer", "admin_token", "open_locally", "principal"),
    [
        (None, ADMIN, False, Anonymous()),
        (None, None, False, Anonymous()),
        (None, None, True, Local()),
        (ADMIN, ADMIN, False, Admin()),
        (ADMIN, None, False, Stranger()),
        (ADMIN, None, True, Stranger()),
        (ADMIN[:-1], ADMIN, False, Stranger()),
        (ADMIN + " ", ADMIN, False, Stranger()),
        (GOOD, ADMIN, False, Holder(workspace_id=ID)),
        (GOOD, None, True, Holder(workspace_id=ID)),
        (GOOD[:-1], ADMIN, False, Stranger()),
        ("", ADMIN, False, Stranger()),
        ("\udcff\ud800", ADMIN, False, Stranger()),
        ("ключ", ADMIN, False, Stranger()),
    ],
)
async def test_who_a_bearer_is(store, bearer, admin_token, open_locally, principal):
    identity = Identity(store, Sessions(), admin_token=admin_token, open_locally=open_locally, ttl_s=10)
    assert await identity.tell(bearer) == principal


async def test_a_token_is_asked_about_once_until_it_is_old_or_forgotten(identity, store, clock):
    for _ in range(3):
        await identity.tell(GOOD)
    assert store.asked == 1
    clock.at += 11
    await identity.tell(GOOD)
    assert store.asked == 2
    identity.forget_token(hash_token(GOOD).hex())
    await identity.tell(GOOD)
    assert store.asked == 3


async def test_a_revoked_token_is_a_strangers_as_soon_as_the_change_is_told(identity, store):
    await identity.tell(GOOD)
    store.owners.clear()
    assert await identity.tell(GOOD) == Holder(workspace_id=ID)
    identity.forget_token(hash_token(GOOD).hex())
    assert await identity.tell(GOOD) == Stranger()


async def test_the_operator_needs_no_database(identity, store):
    store.away = True
    assert await identity.tell(ADMIN) == Admin()
    assert await identity.tell(None) == Anonymous()


async def test_while_the_database_is_away_a_token_seen_valid_is_good_for_calls_and_longer_for_heartbeats(
    identity, store, clock
):
    await identity.tell(GOOD)
    seen = clock.at
    store.away = True
    for age_s, for_calls, for_beats in (
        (11, True, True),
        (CALL_STALE_S - 0.1, True, True),
        (CALL_STALE_S, False, True),
        (BEAT_STALE_S - 0.1, False, True),
        (BEAT_STALE_S, False, False),
    ):
        clock.at = seen + age_s
        assert await unavailable(identity, GOOD, CALL_STALE_S) is not for_calls, age_s
        assert await unavailable(identity, GOOD, BEAT_STALE_S) is not for_beats, age_s
    assert (CALL_STALE_S, BEAT_STALE_S) == (30, 15 * 60)


async def test_a_use_while_the_database_is_away_does_not_make_a_token_any_younger(identity, store, clock):
    await identity.tell(GOOD)
    store.away = True
    for _ in range(2):
        clock.at += 16
        last = await unavailable(identity, GOOD, CALL_STALE_S)
    assert last


async def test_while_the_database_is_away_nobody_can_say_whose_an_unknown_or_revoked_token_is(identity, store):
    store.away = True
    assert await unavailable(identity, "never seen", BEAT_STALE_S)
    store.away = False
    await identity.tell(GOOD)
    store.away = True
    identity.forget_token(hash_token(GOOD).hex())
    assert await unavailable(identity, GOOD, BEAT_STALE_S)


async def test_a_flood_of_the_same_wrong_token_asks_once_until_a_change_is_told(identity, store, clock):
    for _ in range(100):
        assert await identity.tell("wrong") == Stranger()
    assert store.asked == 1
    store.owners[hash_token("wrong")] = ID
    identity.forget_token(hash_token("wrong").hex())
    assert await identity.tell("wrong") == Holder(workspace_id=ID)
    store.owners.clear()
    identity.forget_token(hash_token("wrong").hex())
    assert await identity.tell("wrong") == Stranger()
    clock.at += MISSING_S + 1
    await identity.tell("wrong")
    assert store.asked == 4


async def test_the_organisations_token_makes_a_member(identity, store):
    store.owners[hash_token("ours")] = None
    assert await identity.tell("ours") == Member()


async def test_a_session_is_somebody_until_it_is_over_ended_or_the_operators_token_is_another(store, clock):
    sessions = Sessions()
    identity = Identity(store, sessions, admin_token=ADMIN, open_locally=False, ttl_s=10, now=clock)
    sessions.rows[hash_token("admin")] = OpenSession(admin_hash=hash_token(ADMIN), left_s=60)
    sessions.rows[hash_token("old")] = OpenSession(admin_hash=hash_token("another"), left_s=60)
    sessions.rows[hash_token("member")] = OpenSession(admin_hash=None, left_s=5)
    assert await identity.tell(None, "admin") == Admin()
    assert await identity.tell(None, "member") == Member()
    assert await identity.tell(None, "old") == await identity.tell(None, "none") == Stranger()
    assert await identity.tell(GOOD, "admin") == Holder(workspace_id=ID)
    clock.at += 5
    assert await identity.tell(None, "member") == Stranger()
    del sessions.rows[hash_token("admin")]
    identity.forget_session(hash_token("admin").hex())
    assert await identity.tell(None, "admin") == Stranger()


async def test_while_the_database_is_away_a_session_must_wait(store, clock):
    sessions = Sessions()
    identity = Identity(store, sessions, admin_token=ADMIN, open_locally=False, ttl_s=10, now=clock)
    sessions.rows[hash_token("admin")] = OpenSession(admin_hash=hash_token(ADMIN), left_s=600)
    await identity.tell(None, "admin")
    sessions.away = True
    clock.at += 11
    with pytest.raises(Refusal) as refused:
        await identity.tell(None, "admin")
    assert refused.value.code is Code.PLATFORM_UNAVAILABLE


async def test_in_an_open_dev_a_session_that_has_ended_is_no_hindrance(store):
    identity = Identity(store, Sessions(), admin_token=None, open_locally=True, ttl_s=10)
    assert await identity.tell(None, "ended") == Local()


async def test_tokens_used_are_written_once_a_batch(identity, store):
    for _ in range(3):
        await identity.tell(GOOD)
    await identity.tell("wrong")
    await identity.flush()
    await identity.flush()
    assert store.used == [{hash_token(GOOD)}]


async def test_tokens_used_while_the_database_is_away_are_written_when_it_is_back(identity, store):
    await identity.tell(GOOD)
    store.away = True
    with pytest.raises(StoreUnavailable):
        await identity.flush()
    store.away = False
    await identity.flush()
    assert store.used == [{hash_token(GOOD)}]


async def test_who_was_good_here_is_known_until_it_is_good_no_more(identity, store, clock):
    assert identity.knows(None, None)
    assert identity.knows(ADMIN, None)
    assert not identity.knows(GOOD, None)
    await identity.tell(GOOD)
    clock.at += 3600
    identity.forget_token(hash_token(GOOD).hex())
    assert identity.knows(GOOD, None), "though it has to be asked about again"
    store.owners.clear()
    await identity.tell(GOOD)
    assert not identity.knows(GOOD, None)


async def test_those_who_were_good_are_bounded(identity, store, monkeypatch):
    monkeypatch.setattr("gateway.services.identity.CAPACITY", 2)
    tokens = [letter * 43 for letter in "bcd"]
    for token in tokens:
        store.owners[hash_token(token)] = ID
        await identity.tell(token)
    assert [identity.knows(token, None) for token in tokens] == [False, True, True]
