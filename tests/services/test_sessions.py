import pytest

from gateway.core.callers import Admin, Credential, Local, Member, Proof, Stranger
from gateway.core.refusals import Code, Refusal
from gateway.core.tokens import hash_token, mint
from gateway.ports import TokenHash
from gateway.services.identity import Identity
from gateway.services.sessions import Sessions, make_code
from gateway.store.sessions import SessionStore

ADMIN = "the operator's own token"


@pytest.fixture
def store(stores) -> SessionStore:
    return SessionStore(stores.database)


@pytest.fixture
def identity(stores, store) -> Identity:
    return Identity(stores.tokens, store, admin_token=ADMIN, open_locally=False, ttl_s=300)


@pytest.fixture
def sessions(store, identity, bus) -> Sessions:
    return Sessions(store, identity, bus, lasts_s=60)


async def token_of(stores, workspace_id: str | None) -> str:
    token = mint()
    await stores.tokens.mint(workspace_id, TokenHash(hash=token.hash, prefix=token.prefix), limit=50)
    return token.text


async def refused_code(work) -> Code:
    with pytest.raises(Refusal) as refused:
        await work
    return refused.value.code


async def test_a_session_may_what_its_token_may(sessions, identity, stores):
    by_operator = await sessions.open_by_token(ADMIN)
    by_member = await sessions.open_by_token(await token_of(stores, None))
    assert (by_operator.admin, by_member.admin) == (True, False)
    operator = await identity.tell(None, by_operator.text)
    member = await identity.tell(None, by_member.text)
    assert (operator, member) == (Admin(), Member())
    assert by_operator.text not in repr(by_operator)
    shown = sessions.show(operator)
    assert shown.admin
    assert shown.left_s is not None
    assert 50 < shown.left_s <= 60
    assert sessions.show(Local()).left_s is None


async def test_a_workspaces_token_and_a_strangers_open_none(sessions, stores):
    mine = await token_of(stores, await stores.make())
    assert await refused_code(sessions.open_by_token(mine)) is Code.NOT_ALLOWED
    assert await refused_code(sessions.open_by_token("x" * 43)) is Code.INVALID_CREDENTIAL


async def test_a_code_opens_one_session_of_the_operator_it_was_made_for(sessions, identity, store):
    code = await make_code(store, ADMIN)
    opened = await sessions.open_by_code(code)
    assert await identity.tell(None, opened.text) == Admin()
    assert await refused_code(sessions.open_by_code(code)) is Code.INVALID_CREDENTIAL
    assert await refused_code(sessions.open_by_code("x")) is Code.INVALID_CREDENTIAL
    of_another = await make_code(store, "another operator's token")
    assert await refused_code(sessions.open_by_code(of_another)) is Code.INVALID_CREDENTIAL


async def test_an_ended_session_is_a_strangers_at_once_and_all_are_told(sessions, identity, heard):
    opened = await sessions.open_by_token(ADMIN)
    other = await sessions.open_by_token(ADMIN)
    await sessions.end(await identity.tell(None, opened.text))
    assert await identity.tell(None, opened.text) == Stranger()
    assert await identity.tell(None, other.text) == Admin()
    assert await heard() == []
    assert heard.wake_ups == 1


async def test_only_who_is_here_by_a_session_can_end_it(sessions):
    by_token = Member(credential=Credential(proof=Proof.TOKEN, hash=hash_token("x")))
    for principal in (Admin(), Local(), by_token):
        assert await refused_code(sessions.end(principal)) is Code.INVALID_REQUEST
