"""The composition root: what it opens, what it does without, and what it leaves behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from uuid import uuid4

import psycopg2
import pytest
from structlog.testing import capture_logs

from events import redis
from gateway import app
from gateway.app import bus, running
from gateway.core.callers import Admin
from gateway.core.workspaces import Beat
from gateway.ports import StoreUnavailable
from gateway.services.workspaces import Wanted
from gateway.settings import Settings
from gateway.store.vault import BadKey
from gateway.web import keys
from tests.harness import valkey as valkeys

FAR_MORE_S = 10 * bus.MEASURE_S


@pytest.fixture
def settings(servers, migrated_database_url) -> Settings:
    return Settings(
        database_url=migrated_database_url,
        redis_url=servers.redis_url,
        redis_prefix=f"test:{{{uuid4().hex}}}",
        admin_token="a token of the operator",
        write_every_s=60,
    )


def with_(settings: Settings, **other: object) -> Settings:

    return replace(settings, **other)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[app.Gateway]:
    async with app.opened(settings, dev=False) as gateway:
        yield gateway


async def enter(settings: Settings) -> None:
    async with opened(settings):
        pass


async def test_with_both_datastores_it_is_ready_and_hears_its_own_bus(settings):
    async with opened(settings) as gateway:
        report = await gateway.readiness.report()
    assert (report.ready, report.database, report.bus) == (True, "up", "up")


async def test_with_redis_away_it_is_ready_all_the_same_and_says_that_the_bus_is_down(settings, tmp_path, monkeypatch):
    monkeypatch.setattr(bus, "READY_S", 0.05)
    monkeypatch.setattr(running, "FLUSH_S", 0.05)
    with capture_logs() as logs:
        async with opened(with_(settings, redis_url=f"unix://{tmp_path}/nobody")) as gateway:
            report = await gateway.readiness.report()
            created = await gateway.application[keys.WORKSPACES].create(Wanted(name="x"))
    assert (report.ready, report.database, report.bus) == (True, "up", "blind")
    assert created.workspace_id
    said = {entry["event"]: entry for entry in logs}
    assert "bus_not_up" in said
    assert said["not_written_down"]["what"] == "events"


@pytest.mark.parametrize(
    ("other", "error"),
    [
        ({"database_url": None}, ValueError),
        ({"redis_url": None}, ValueError),
        ({"database_url": "mysql://x/y"}, ValueError),
        ({"redis_url": "http://x/y"}, ValueError),
        ({"database_url": "postgresql://u:secret@127.0.0.1:1/x"}, StoreUnavailable),
    ],
)
async def test_what_it_cannot_do_without_is_told_in_one_sentence_that_keeps_secrets(settings, other, error):
    with pytest.raises(error) as refused:
        await enter(with_(settings, **other))
    assert str(refused.value)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


async def test_a_key_file_that_cannot_be_used_is_refused(settings, tmp_path):
    with pytest.raises(BadKey, match="cannot be read"):
        await enter(with_(settings, secrets_key_file=tmp_path / "nowhere"))


async def test_leaving_writes_down_what_was_still_waiting(settings, servers):
    async with opened(settings) as gateway:
        created = await gateway.application[keys.WORKSPACES].create(Wanted(name="x", external=True))
        one = created.workspace_id
        await gateway.application[keys.REGISTRY].heartbeat(Admin(), one, Beat(current_task="the last"))
    session = psycopg2.connect(settings.database_url)
    try:
        with session.cursor() as cursor:
            cursor.execute("select current_task from liveness where workspace_id = %s", (one,))
            assert cursor.fetchall() == [("the last",)]
    finally:
        session.close()
    async with redis.opened(servers.redis_url, prefix=settings.redis_prefix, journal_length=100) as link:
        told = [heard.event.type async for heard in link.read((0, 0))]
    assert told == ["WORKSPACE_AWAITING_AGENT", "WORKSPACE_ONLINE", "TASK_UPDATED"]


async def test_draining_takes_it_out_of_service_before_anything_ends(settings):
    async with opened(settings) as gateway:
        await gateway.drain()
        report = await gateway.readiness.report()
    assert (report.ready, report.draining, report.database) == (False, True, "up")


async def test_an_end_on_purpose_does_not_look_as_if_the_bus_were_lost(settings):
    with capture_logs() as logs:
        await enter(settings)
    assert [entry["state"] for entry in logs if entry["event"] == "bus_state"] == ["repairing", "up"]


async def test_whoever_asks_for_the_length_of_the_journal_does_not_wait_for_a_redis_that_hangs(monkeypatch):
    monkeypatch.setattr(redis, "ANSWER_S", 1000.0)
    async with (
        valkeys.running() as server,
        redis.opened(server.url, prefix="test:{bus}", journal_length=100) as link,
    ):
        assert await bus.journal_entries(link) == 0
        server.stall()
        async with asyncio.timeout(FAR_MORE_S):
            assert await bus.journal_entries(link) is None
        server.go_on()
        assert await bus.journal_entries(link) == 0
