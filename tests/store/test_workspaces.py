from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest

from gateway.core.workspaces import MOVES, RuntimeMetadata, Status
from gateway.ports import NewWorkspace, StoreConflict, TokenHash
from gateway.store.liveness import LivenessStore
from gateway.store.tokens import TokenStore
from gateway.store.workspaces import WorkspaceStore

TOKEN = TokenHash(hash=b"\x01" * 32, prefix="abcdefgh")
REMOVE = "update workspaces set status = 'removed', removed_at = now() where id = %(id)s"


@pytest.fixture
def store(migrated) -> WorkspaceStore:
    return WorkspaceStore(migrated)


def new(status: Status = Status.ONLINE, **fields: object) -> NewWorkspace:
    return NewWorkspace(**{"id": str(uuid4()), "name": "one", "status": status, "runtime": "", **fields})


async def test_a_workspace_is_found_as_it_was_written(store):
    parent = new()
    await store.create(parent, None)
    written = new(
        name="Ä \x00name", runtime="external", role="r", tier=2, url="http://a/", parent_id=parent.id, x=1.5, y=-2.0,
        delivery_mode="push", max_concurrent_tasks=3, budget_limit=0, workspace_dir="/w", agent_auth=b"\x00\xff",
    )  # fmt: skip
    assert await store.create(written, None)
    found = await store.find(written.id)
    expected = asdict(written) | {"name": "Ä name"}
    for name in ("template", "model", "workspace_access"):
        expected.pop(name)
    assert {name: getattr(found, name) for name in expected} == expected
    assert (found.external, found.removed, found.metadata) == (True, False, RuntimeMetadata())
    assert (found.active_tasks, found.error_rate, found.spend.cents, found.last_heartbeat_at) == (0, 0.0, 0, None)


async def test_nobody_is_found_under_an_unknown_id(store):
    assert await store.find(str(uuid4())) is None


async def test_an_id_that_is_taken_stays_what_it_is_and_brings_no_token_along(store, migrated):
    first = new(name="first")
    assert await store.create(first, TOKEN)
    second = TokenHash(hash=b"\x02" * 32, prefix="x")
    assert not await store.create(new(id=first.id, name="second"), second)
    assert (await store.find(first.id)).name == "first"
    tokens = TokenStore(migrated)
    owner = await tokens.find_owner(TOKEN.hash)
    assert owner is not None
    assert owner.workspace_id == first.id
    assert await tokens.find_owner(second.hash) is None


async def test_a_workspace_whose_token_is_refused_is_not_written_either(store):
    await store.create(new(), TOKEN)
    late = new()
    with pytest.raises(StoreConflict):
        await store.create(late, TOKEN)
    assert await store.find(late.id) is None


async def test_a_parent_must_exist(store):
    with pytest.raises(StoreConflict) as refused:
        await store.create(new(parent_id=str(uuid4())), None)
    assert refused.value.constraint == "workspaces_parent_id_fkey"


async def test_the_list_is_complete_and_without_the_removed(store, migrated):
    some = [new(name=str(number)) for number in range(3)]
    for one in some:
        await store.create(one, None)
    await migrated.execute(REMOVE, id=some[1].id)
    assert [one.name for one in await store.list_all()] == ["0", "2"]


@pytest.mark.parametrize("to", [status for status in Status if status is not Status.REMOVED])
async def test_the_moves_of_the_table_are_made_and_no_others(store, to):
    for source in Status:
        if source is Status.REMOVED:
            continue
        one = new(source)
        await store.create(one, None)
        allowed = source in MOVES[to]
        assert await store.move(one.id, to) is allowed, (source, to)
        assert (await store.find(one.id)).status is (to if allowed else source)


async def test_of_two_who_make_one_move_one_has_made_it(store):
    one = new(Status.OFFLINE)
    await store.create(one, None)
    assert [await store.move(one.id, Status.ONLINE) for _ in range(2)] == [True, False]
    assert not await store.move(str(uuid4()), Status.ONLINE)


async def test_a_register_keeps_the_secret_and_the_url_that_are_there(store):
    one = new(Status.AWAITING_AGENT, url="http://old/")
    await store.create(one, None)
    said = {"agent_card": {"name": "x\x00", "n": 2**63}, "delivery_mode": "push"}
    assert await store.register(one.id, url="http://new/", inbound_secret=None, **said) is None
    assert await store.register(one.id, url=None, inbound_secret=b"first", **said) == b"first"
    assert await store.register(one.id, url=None, inbound_secret=b"second", **said) == b"first"
    found = await store.find(one.id)
    assert (found.url, found.agent_card, found.status) == ("http://new/", {"name": "x", "n": 2**63}, one.status)


async def test_what_is_removed_or_unknown_cannot_be_registered_or_given_a_card(store, migrated):
    one = new(url="http://old/")
    await store.create(one, None)
    await migrated.execute(REMOVE, id=one.id)
    for id_ in (one.id, str(uuid4())):
        with pytest.raises(KeyError):
            await store.register(id_, url="http://x/", agent_card={}, delivery_mode="push", inbound_secret=None)
        assert not await store.update_card(id_, {})
        await store.update_runtime_metadata(id_, {"capabilities": {"session": True}})
    found = await store.find(one.id)
    assert (found.removed, found.url, found.agent_card, found.metadata) == (
        True,
        "http://old/",
        None,
        RuntimeMetadata(),
    )
    assert datetime.now(UTC) - found.removed_at < timedelta(minutes=1)


async def test_a_card_and_a_declared_block_are_found_again(store):
    one = new()
    await store.create(one, None)
    assert await store.update_card(one.id, {"name": "card"})
    block = RuntimeMetadata(capabilities=frozenset({"session", "retry"}), idle_timeout_s=2.5)
    await store.update_runtime_metadata(one.id, block.to_json())
    found = await store.find(one.id)
    assert (found.agent_card, found.metadata) == ({"name": "card"}, block)


async def test_a_workspace_shows_its_last_heartbeat(store, migrated):
    one = new()
    await store.create(one, None)
    beat = {
        "workspace_id": one.id, "age_s": 30.0, "sign_age_s": None, "active_tasks": 2, "current_task": "t",
        "error_rate": 0.5, "sample_error": "e", "uptime_seconds": 9, "monthly_spend": 7, "runtime_state": "wedged",
    }  # fmt: skip
    await LivenessStore(migrated).record([beat])
    [found] = await store.list_all()
    assert (found.active_tasks, found.current_task, found.error_rate, found.sample_error) == (2, "t", 0.5, "e")
    assert (found.uptime_seconds, found.spend.cents, found.runtime_state) == (9, 7, "wedged")
    assert timedelta(seconds=29) < datetime.now(UTC) - found.last_heartbeat_at < timedelta(minutes=2)
