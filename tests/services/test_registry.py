"""Registers, heartbeats and cards, on the real store."""

import asyncio
from collections.abc import Awaitable, Callable
from uuid import uuid4

import pytest

from gateway.core.address import Reach
from gateway.core.callers import Admin, Anonymous, Holder, Local, Principal, Stranger
from gateway.core.refusals import Code, Refusal
from gateway.core.tokens import hash_token, mint
from gateway.core.workspaces import Beat, RuntimeMetadata, Status
from gateway.services.changes import ChangeReader
from gateway.services.directory import Directory
from gateway.services.heartbeats import Heartbeats
from gateway.services.registry import Registered, Registration, Registry
from gateway.store.vault import FernetVault, new_key
from tests.harness.world import eventually
from tests.services.memory import Workspaces

URL = "http://127.0.0.1:9999/a2a"
CARD = {"name": "an agent", "skills": []}
VAULT = FernetVault(new_key().encode())

Build = Callable[..., Registry]


@pytest.fixture
def build(stores, bus) -> Build:
    """Returns a registry on the real stores; what it caches is believed until it is forgotten."""

    def build(**other: object) -> Registry:
        given = {
            "workspaces": stores.workspaces, "tokens": stores.tokens, "liveness": stores.liveness, "bus": bus,
            "directory": Directory(stores.workspaces, ttl_s=300), "heartbeats": Heartbeats(stores.liveness, every_s=60),
            "vault": VAULT, "reach": Reach.SAME_NETWORK, "tokenless": False, "self_created": False,
        }  # fmt: skip
        return Registry(**{**given, **other})

    return build


@pytest.fixture
def registry(build) -> Registry:
    return build()


def said(workspace_id: str, **other: object) -> Registration:
    return Registration(**{"workspace_id": workspace_id, "url": URL, "agent_card": CARD, **other})


async def outcome(work) -> Code | object:
    """What it returned, or the code with which it refused."""
    try:
        return await work
    except Refusal as refused:
        return refused.code


def principal(name: str, own_id: str) -> Principal:
    return {
        "admin": Admin(),
        "own": Holder(workspace_id=own_id),
        "other": Holder(workspace_id=str(uuid4())),
        "stranger": Stranger(),
        "anonymous": Anonymous(),
        "local": Local(),
    }[name]


async def workspace_in(stores, state: str) -> str:
    match state:
        case "unknown":
            return str(uuid4())
        case "removed":
            return await stores.make(Status.REMOVED, token=mint().hash)
        case "equipped":
            return await stores.make(Status.AWAITING_AGENT, token=mint().hash)
        case _:
            return await stores.make(Status.AWAITING_AGENT)


PRINCIPALS = ("admin", "own", "other", "stranger", "anonymous", "local")
OK, TOKEN = "ok", "ok, with a first token"
STRICT = {
    # who:            admin, own, other, stranger, anonymous, local
    "equipped": (OK, OK, Code.NOT_ALLOWED, Code.INVALID_CREDENTIAL, Code.CREDENTIAL_REQUIRED, Code.CREDENTIAL_REQUIRED),
    "bare": (OK, OK, Code.NOT_ALLOWED, Code.INVALID_CREDENTIAL, Code.CREDENTIAL_REQUIRED, Code.CREDENTIAL_REQUIRED),
    "removed": (Code.REMOVED,) * 6,
    "unknown": (Code.NOT_FOUND, *(Code.INVALID_CREDENTIAL,) * 5),
}
OPEN = {
    "equipped": STRICT["equipped"],
    "bare": (OK, OK, Code.NOT_ALLOWED, Code.INVALID_CREDENTIAL, TOKEN, TOKEN),
    "removed": STRICT["removed"],
    "unknown": (OK, OK, Code.NOT_ALLOWED, Code.INVALID_CREDENTIAL, TOKEN, TOKEN),
}


@pytest.mark.parametrize("table", [STRICT, OPEN], ids=["serve", "dev"])
async def test_who_may_register_what(build, stores, heard, table):
    opened = table is OPEN
    registry = build(tokenless=opened, self_created=opened)
    for state, row in table.items():
        for name, expected in zip(PRINCIPALS, row, strict=True):
            id_ = await workspace_in(stores, state)
            answer = await outcome(registry.register(principal(name, id_), said(id_)))
            if isinstance(expected, Code):
                assert answer is expected, (state, name)
                assert await heard() == [], (state, name)
                continue
            assert isinstance(answer, Registered), (state, name, answer)
            assert (answer.auth_token is not None) is (expected is TOKEN), (state, name)
            assert await heard.names() == ["WORKSPACE_ONLINE"]
            workspace = await stores.workspaces.find(id_)
            assert (workspace.status, workspace.url, workspace.agent_card) == (Status.ONLINE, URL, CARD)


async def test_a_register_is_told_as_a_sign_of_life_and_wakes_the_caches(registry, stores, heard):
    one = await stores.make(Status.AWAITING_AGENT, delivery_mode="push")
    answer = await registry.register(Holder(workspace_id=one), said(one))
    event, payload = await heard.one("WORKSPACE_ONLINE")
    assert (event.workspace_id, event.sign) == (one, True)
    assert payload == {"name": "one", "url": URL, "agent_card": CARD}
    assert (answer.delivery_mode, heard.wake_ups) == ("push", 1)
    assert (await stores.liveness.silence([one]))[one] < 60


async def test_the_replica_that_took_a_register_knows_of_it_before_it_answers(registry, stores):
    one = await stores.make(Status.AWAITING_AGENT)
    await registry.heartbeat(Holder(workspace_id=one), one, Beat())
    await registry.register(Holder(workspace_id=one), said(one, url="http://127.0.0.1:8001/"))
    assert (await registry._directory.get(one)).url == "http://127.0.0.1:8001/"


@pytest.mark.parametrize(
    ("before", "after"),
    [(status, Status.ONLINE if status.value in (
        "provisioning", "online", "degraded", "offline", "awaiting_agent", "failed"
    ) else status) for status in Status if status is not Status.REMOVED],
)  # fmt: skip
async def test_a_register_brings_online_what_is_not_put_to_sleep_on_purpose(registry, stores, heard, before, after):
    one = await stores.make(before)
    await registry.register(Admin(), said(one))
    assert (await stores.workspaces.find(one)).status is after
    assert await heard.names() == (["WORKSPACE_ONLINE"] if after is Status.ONLINE else [])


async def test_the_inbound_secret_is_the_same_at_every_register_on_every_replica(build, stores):
    one = await stores.make()
    secrets = {(await build().register(Admin(), said(one))).inbound_secret for _ in range(3)}
    assert len(secrets) == 1
    assert len(secrets.pop()) >= 32
    other_key = build(vault=FernetVault(new_key().encode()))
    assert (await other_key.register(Admin(), said(one))).inbound_secret is None
    assert (await build(vault=None).register(Admin(), said(one))).inbound_secret is None


async def test_without_a_key_no_secret_is_minted_and_the_first_key_mints_one(build, stores):
    one = await stores.make()
    assert (await build(vault=None).register(Admin(), said(one))).inbound_secret is None
    assert await stores.ask("select inbound_secret from workspaces") is None
    assert (await build().register(Admin(), said(one))).inbound_secret is not None


async def test_a_first_token_is_given_once(build, stores):
    registry = build(tokenless=True, self_created=True)
    one = str(uuid4())
    token = (await registry.register(Local(), said(one))).auth_token
    owner = await stores.tokens.find_owner(hash_token(token))
    assert owner is not None
    assert owner.workspace_id == one
    assert await outcome(registry.register(Local(), said(one))) is Code.CREDENTIAL_REQUIRED
    assert (await registry.register(Holder(workspace_id=one), said(one))).auth_token is None
    assert await stores.ask("select count(*) from tokens") == 1


async def test_of_two_who_claim_a_workspace_at_once_one_gets_its_token(build, stores):
    registry = build(tokenless=True, self_created=True)
    for _ in range(5):
        one = await stores.make()
        answers = await asyncio.gather(*(outcome(registry.register(Local(), said(one))) for _ in range(3)))
        tokens = [answer.auth_token for answer in answers if isinstance(answer, Registered)]
        assert len(tokens) == 1
        assert answers.count(Code.CREDENTIAL_REQUIRED) == 2


@pytest.mark.parametrize(
    ("name", "kept"),
    [("a name", "a name"), (None, None), ("", None), ("x" * 201, None), ("line\nbreak", None), (7, None)],
)
async def test_a_workspace_that_creates_itself_is_called_as_its_card_says_if_that_is_a_name(build, stores, name, kept):
    registry = build(tokenless=True, self_created=True)
    one = str(uuid4())
    await registry.register(Local(), said(one, agent_card={"name": name}))
    assert (await stores.workspaces.find(one)).name == (kept or one)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"url": None}, "url"),
        ({"url": ""}, "url"),
        ({"url": "ftp://127.0.0.1/"}, "url"),
        ({"url": "http://169.254.169.254/"}, "url"),
    ],
)
async def test_a_register_that_nobody_could_call_back_is_refused_and_changes_nothing(registry, stores, fields, field):
    one = await stores.make(Status.AWAITING_AGENT, url="http://127.0.0.1:8001/", delivery_mode="push")
    with pytest.raises(Refusal) as refused:
        await registry.register(Admin(), said(one, **fields))
    assert (refused.value.code, refused.value.fields) == (Code.INVALID_REQUEST, {"field": field})
    workspace = await stores.workspaces.find(one)
    assert (workspace.status, workspace.url, workspace.agent_card) == (
        Status.AWAITING_AGENT,
        "http://127.0.0.1:8001/",
        None,
    )


@pytest.mark.parametrize(
    ("stored", "says", "mode"),
    [
        (None, None, "push"),
        ("push", None, "push"),
        ("poll", None, "poll"),
        ("push", "poll", "poll"),
        (None, "push", "push"),
    ],
)
async def test_an_external_agent_gets_the_mode_that_it_says_or_has_or_is_called(registry, stores, stored, says, mode):
    one = await stores.make(Status.AWAITING_AGENT, delivery_mode=stored)
    answer = await registry.register(Admin(), said(one, delivery_mode=says))
    assert (answer.delivery_mode, (await stores.workspaces.find(one)).delivery_mode) == (mode, mode)


@pytest.mark.parametrize(
    ("url", "kept"),
    [(None, None), ("", None), ("ftp://x/", None), ("http://169.254.169.254/", None), (URL, URL)],
)
async def test_of_an_agent_that_polls_only_a_url_that_could_be_called_is_kept(registry, stores, url, kept):
    one = await stores.make(Status.AWAITING_AGENT)
    await registry.register(Admin(), said(one, url=url, delivery_mode="poll"))
    workspace = await stores.workspaces.find(one)
    assert (workspace.url, workspace.status) == (kept, Status.ONLINE)


async def test_a_hosted_gateway_takes_no_private_url(build, stores):
    one = await stores.make(delivery_mode="push")
    registry = build(reach=Reach.HOSTED)
    assert await outcome(registry.register(Admin(), said(one))) is Code.INVALID_REQUEST
    assert isinstance(await registry.register(Admin(), said(one, url="https://agents.example.com/")), Registered)


async def test_a_workspace_that_is_removed_while_it_registers_is_unknown(registry, stores):
    one = await stores.make()
    await registry.heartbeat(Admin(), one, Beat())
    await stores.remove(one)
    assert await outcome(registry.register(Admin(), said(one))) is Code.NOT_FOUND
    assert (await stores.workspaces.find(one)).status is Status.REMOVED


# -- heartbeat

BEATS = {
    "equipped": (OK, OK, Code.NOT_ALLOWED, Code.INVALID_CREDENTIAL, Code.CREDENTIAL_REQUIRED, OK),
    "removed": (Code.REMOVED,) * 6,
    # of what there is none, those who may not ask do not learn that there is none
    "unknown": (
        Code.NOT_FOUND,
        Code.NOT_FOUND,
        Code.NOT_ALLOWED,
        Code.INVALID_CREDENTIAL,
        Code.CREDENTIAL_REQUIRED,
        Code.NOT_FOUND,
    ),
}


@pytest.mark.parametrize("state", list(BEATS))
async def test_whose_heartbeats_count(registry, stores, heard, state):
    for name, expected in zip(PRINCIPALS, BEATS[state], strict=True):
        id_ = await workspace_in(stores, state)
        answer = await outcome(registry.heartbeat(principal(name, id_), id_, Beat()))
        assert answer is (None if expected is OK else expected), name
        assert ("WORKSPACE_HEARTBEAT" in await heard.names()) is (expected is OK), name


@pytest.mark.parametrize(
    ("before", "beat", "after"),
    [
        (Status.PROVISIONING, Beat(), Status.ONLINE),
        (Status.OFFLINE, Beat(), Status.ONLINE),
        (Status.AWAITING_AGENT, Beat(), Status.ONLINE),
        (Status.ONLINE, Beat(error_rate=0.5), Status.DEGRADED),
        (Status.ONLINE, Beat(runtime_state="wedged"), Status.DEGRADED),
        (Status.DEGRADED, Beat(error_rate=0.05), Status.ONLINE),
        (Status.DEGRADED, Beat(error_rate=0.2), Status.DEGRADED),
        (Status.FAILED, Beat(), Status.FAILED),
        (Status.PAUSED, Beat(), Status.PAUSED),
        (Status.HIBERNATING, Beat(), Status.HIBERNATING),
        (Status.HIBERNATED, Beat(), Status.HIBERNATED),
    ],
)
async def test_a_heartbeat_moves_the_status_and_says_so_once(registry, stores, heard, before, beat, after):
    one = await stores.make(before)
    for _ in range(2):
        await registry.heartbeat(Admin(), one, beat)
    assert (await stores.workspaces.find(one)).status is after
    moved = {Status.ONLINE: "WORKSPACE_ONLINE", Status.DEGRADED: "WORKSPACE_DEGRADED"}
    names = [name for name in await heard.names() if name != "WORKSPACE_HEARTBEAT"]
    assert names == ([moved[after]] if after is not before else [])


async def test_a_heartbeat_is_a_sign_of_life_unless_it_is_wedged(registry, stores, heard):
    one = await stores.make()
    await registry.heartbeat(Admin(), one, Beat(active_tasks=2, uptime_seconds=9))
    event, payload = await heard.one("WORKSPACE_HEARTBEAT")
    assert (event.sign, payload) == (True, {"active_tasks": 2, "uptime_seconds": 9})
    await registry.heartbeat(Admin(), one, Beat(runtime_state="wedged", current_task="stuck"))
    assert not any(event.sign for event in await heard())


async def test_a_task_is_told_when_it_changes_and_not_again(registry, stores, heard):
    one = await stores.make()
    for task in (None, "", "a", "a", "b", None, None):
        await registry.heartbeat(Admin(), one, Beat(current_task=task, active_tasks=1))
    told = [event.payload for event in await heard() if event.type == "TASK_UPDATED"]
    assert told == [b'{"current_task":"%b","active_tasks":1}' % task for task in (b"a", b"b", b"")]


async def test_a_task_that_was_told_by_another_replica_or_before_a_restart_is_not_told_again(build, stores, heard):
    one = await stores.make()
    first = build()
    await first.heartbeat(Admin(), one, Beat(current_task="a"))
    await first._heartbeats.flush()
    await heard()
    restarted, other = build(), build()
    other.note_task(one, "b")
    await restarted.heartbeat(Admin(), one, Beat(current_task="a"))
    await other.heartbeat(Admin(), one, Beat(current_task="b"))
    assert "TASK_UPDATED" not in await heard.names()


async def test_what_a_runtime_declares_is_seen_by_another_replica_without_waiting_for_its_cache(
    build, stores, replicas, tasks
):
    one = await stores.make()
    there = await replicas.open()
    directory = Directory(there.workspaces, ttl_s=300)
    reader = ChangeReader(there.changes, {"workspace": directory.forget, "token": lambda _: None}, every_s=0.02)
    await reader.start()
    tasks.spawn(reader.run(), "read")
    assert (await directory.get(one)).metadata == RuntimeMetadata()
    here = build()
    declared = RuntimeMetadata(capabilities=frozenset({"session"}), idle_timeout_s=7.5)
    await here.heartbeat(Holder(workspace_id=one), one, Beat(metadata=declared))

    async def seen() -> RuntimeMetadata:
        return (await directory.get(one)).metadata

    await becomes(seen, declared)
    await here.heartbeat(Holder(workspace_id=one), one, Beat())
    assert (await stores.workspaces.find(one)).metadata == declared, "a beat without the block changes nothing"
    await here.heartbeat(Holder(workspace_id=one), one, Beat(metadata=RuntimeMetadata()))
    await becomes(seen, RuntimeMetadata())


async def becomes(ask: Callable[[], Awaitable[object]], wanted: object) -> None:
    """Ask until the answer is the wanted one, for ten seconds at most."""
    async with asyncio.timeout(10):
        while await ask() != wanted:  # noqa: ASYNC110 - another replica sets no event here
            await asyncio.sleep(0.01)


async def test_a_declared_block_that_says_nothing_new_writes_nothing(registry, stores, heard):
    one = await stores.make()
    declared = Beat(metadata=RuntimeMetadata(capabilities=frozenset({"session"})))
    await registry.heartbeat(Admin(), one, declared)
    changes = await stores.ask("select count(*) from changes")
    await heard()
    heard.wake_ups = 0
    await registry.heartbeat(Admin(), one, declared)
    assert await stores.ask("select count(*) from changes") == changes
    assert await heard.names() == ["WORKSPACE_HEARTBEAT"]
    assert heard.wake_ups == 0


async def test_an_agent_that_manages_its_own_status_is_not_degraded_by_its_error_rate(registry, stores):
    one = await stores.make()
    own = RuntimeMetadata(capabilities=frozenset({"status_mgmt"}))
    await registry.heartbeat(Admin(), one, Beat(error_rate=0.9, metadata=own))
    assert (await stores.workspaces.find(one)).status is Status.ONLINE


async def test_while_the_database_is_away_a_known_tokens_heartbeat_is_told_and_waits_to_be_written(build, heard):
    store = Workspaces()
    store.away = True
    registry = build(directory=Directory(store, ttl_s=300))
    one = str(uuid4())
    await registry.heartbeat(Holder(workspace_id=one), one, Beat(current_task="a"))
    assert await heard.names() == ["WORKSPACE_HEARTBEAT", "TASK_UPDATED"]
    assert repr(registry._heartbeats) == "<Heartbeats pending=1>"
    assert await outcome(registry.heartbeat(Holder(workspace_id=str(uuid4())), one, Beat())) is Code.NOT_ALLOWED


# -- card


@pytest.mark.parametrize("state", list(BEATS))
async def test_who_may_change_a_card(registry, stores, heard, state):
    for name, expected in zip(PRINCIPALS, BEATS[state], strict=True):
        id_ = await workspace_in(stores, state)
        answer = await outcome(registry.update_card(principal(name, id_), id_, CARD))
        assert answer is (None if expected is OK else expected), name
        assert await heard.names() == (["AGENT_CARD_UPDATED"] if expected is OK else []), name
        if expected is OK:
            assert (await stores.workspaces.find(id_)).agent_card == CARD


async def test_a_new_card_is_a_sign_of_life(registry, stores, heard):
    one = await stores.make()
    await registry.update_card(Admin(), one, CARD)
    event, payload = await heard.one("AGENT_CARD_UPDATED")
    assert (event.sign, payload) == (True, {"agent_card": CARD})
    assert (await stores.liveness.silence([one]))[one] < 60
    assert heard.wake_ups == 1


async def test_while_the_database_is_away_nothing_can_be_registered_or_changed(build):
    store = Workspaces()
    store.away = True
    registry = build(directory=Directory(store, ttl_s=300))
    one = str(uuid4())
    assert await outcome(registry.register(Admin(), said(one))) is Code.PLATFORM_UNAVAILABLE
    assert await outcome(registry.update_card(Admin(), one, CARD)) is Code.PLATFORM_UNAVAILABLE


async def test_events_reach_a_reader_only_after_the_row_is_written(registry, stores, channel):
    """Commit, then publish: whoever hears of it can read it."""
    one = await stores.make(Status.AWAITING_AGENT)
    seen: list[Status] = []
    send = channel.send

    async def look(events, first_sequence) -> None:
        if any(event.type == "WORKSPACE_ONLINE" for event in events):
            seen.append((await stores.workspaces.find(one)).status)
        await send(events, first_sequence)

    channel.send = look
    await registry.register(Admin(), said(one))
    await eventually(lambda: seen)
    assert seen == [Status.ONLINE]
