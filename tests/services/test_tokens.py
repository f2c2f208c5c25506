from uuid import uuid4

import pytest

from gateway.core.callers import Holder, Stranger
from gateway.core.refusals import Code, Refusal
from gateway.core.tokens import MAX_LIVE, hash_token
from gateway.core.workspaces import Status
from gateway.services.directory import Directory
from gateway.services.identity import Identity
from gateway.services.tokens import TokenService
from tests.services.memory import Sessions, Workspaces


@pytest.fixture
def identity(stores) -> Identity:
    return Identity(stores.tokens, Sessions(), admin_token=None, open_locally=False, ttl_s=300)


@pytest.fixture
def service(stores, bus, identity) -> TokenService:
    return TokenService(
        tokens=stores.tokens, directory=Directory(stores.workspaces, ttl_s=300), identity=identity, bus=bus
    )


async def refusal(work) -> Refusal:
    with pytest.raises(Refusal) as refused:
        await work
    return refused.value


@pytest.mark.parametrize("of_organisation", [True, False])
async def test_there_is_a_bounded_number_of_tokens_each_good_and_shown_once(service, stores, of_organisation):
    owner = None if of_organisation else await stores.make()
    given = [await service.mint(owner) for _ in range(MAX_LIVE)]
    assert len({one.text for one in given}) == MAX_LIVE
    assert all(one.text not in repr(one) for one in given)
    assert [one.id for one in await service.list_live(owner)] == [one.id for one in given]
    assert (await refusal(service.mint(owner))).code is Code.TOO_MANY_TOKENS
    await service.revoke(owner, given[0].id)
    await service.mint(owner)


async def test_a_revoked_token_is_a_strangers_at_once_and_all_are_told(service, stores, identity, heard):
    one = await stores.make()
    given = await service.mint(one)
    assert await identity.tell(given.text) == Holder(workspace_id=one)
    await service.revoke(one, given.id)
    assert await identity.tell(given.text) == Stranger()
    assert (await refusal(service.revoke(one, given.id))).code is Code.NOT_FOUND
    assert await heard() == []
    assert heard.wake_ups == 1


async def test_nobody_revokes_what_is_anothers(service, stores, identity):
    one, other = await stores.make(), await stores.make()
    given = await service.mint(one)
    for owner in (other, None):
        assert (await refusal(service.revoke(owner, given.id))).code is Code.NOT_FOUND
    assert await identity.tell(given.text) == Holder(workspace_id=one)


async def test_no_token_is_minted_for_nobody(service, stores):
    gone, removed_later = await stores.make(Status.REMOVED), await stores.make()
    for work in (service.mint, service.list_live):
        assert (await refusal(work(gone))).code is Code.REMOVED
        assert (await refusal(work(str(uuid4())))).code is Code.NOT_FOUND
    await service.mint(removed_later)
    await stores.remove(removed_later)
    assert (await refusal(service.mint(removed_later))).code is Code.NOT_FOUND


async def test_what_is_minted_is_known_though_somebody_tried_it_before(service, stores, identity, monkeypatch):
    one = await stores.make()
    assert await identity.tell("a" * 43) == Stranger()
    monkeypatch.setattr("gateway.core.tokens.secrets.token_urlsafe", lambda _: "a" * 43)
    given = await service.mint(one)
    assert given.text == "a" * 43
    identity.forget_token(hash_token(given.text).hex())  # as the list of changes says
    assert await identity.tell(given.text) == Holder(workspace_id=one)


async def test_while_the_database_is_away_nothing_is_given_or_taken(stores, bus, identity):
    away = Workspaces()
    away.away = True
    service = TokenService(tokens=stores.tokens, directory=Directory(away, ttl_s=300), identity=identity, bus=bus)
    for work in (service.mint("x"), service.list_live("x"), service.revoke("x", "y")):
        refused = await refusal(work)
        assert (refused.code, refused.retry_after_s) == (Code.PLATFORM_UNAVAILABLE, 5)
