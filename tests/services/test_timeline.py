import pytest

from gateway.core.callers import Admin, Holder
from gateway.core.refusals import Code, Refusal
from gateway.core.views import VIEW_BYTES
from gateway.ports import Filters, StoreUnavailable
from gateway.services.activity import ActivityLog
from gateway.services.directory import Directory
from gateway.services.timeline import Entry, Notice, Timeline

NOWHERE = "00000000-0000-0000-0000-000000000000"


class Story:
    """A workspace's history, and what writes it."""

    def __init__(self, stores, bus, one: str) -> None:
        self.stores, self.one = stores, one
        self.log = ActivityLog(stores.activity, bus, capacity=100, every_s=1)
        self.timeline = Timeline(
            history=stores.activity, activity=self.log, directory=Directory(stores.workspaces, ttl_s=300), bus=bus
        )

    async def write(self, **fields: object) -> None:
        await self.timeline.log(Holder(workspace_id=self.one), self.one, Entry(activity_type="agent_log", **fields))
        await self.log.flush()

    async def read(self, **filters: object):
        since_id = filters.pop("since_id", None)
        return await self.timeline.list(self.one, Filters(**filters), since_id=since_id)


@pytest.fixture
async def story(stores, bus) -> Story:
    return Story(stores, bus, await stores.make())


async def test_what_an_agent_writes_is_a_sign_of_its_life_and_what_others_write_is_none(story, heard):
    await story.timeline.log(Holder(workspace_id=story.one), story.one, Entry(activity_type="agent_log", summary="a"))
    event, payload = await heard.one("ACTIVITY_LOGGED")
    assert (event.workspace_id, event.sign, payload["summary"]) == (story.one, True, "a")
    await story.timeline.log(Admin(), story.one, Entry(activity_type="agent_log"))
    await story.timeline.notify(Admin(), story.one, Notice(message="b"))
    assert [one.sign for one in await heard()] == [False, False, False]


async def test_a_line_is_read_as_it_was_written_and_cut_when_long(story):
    said = {
        "method": "m",
        "summary": "s",
        "status": "ok",
        "error_detail": "e",
        "duration_ms": 5,
        "source_id": story.one,
    }
    bodies = {"request_body": {"a": 1}, "response_body": {"b": "x" * VIEW_BYTES}, "metadata": {"tool_trace": [1]}}
    await story.write(**said, **bodies)
    [line] = await story.read()
    assert {name: getattr(line, name) for name in said} == said
    assert (line.request_body, line.metadata) == ({"a": 1}, {"tool_trace": [1]})
    assert line.response_body["truncated"] is True


async def test_nobody_writes_in_the_name_of_another(story):
    for source_id, good in ((None, True), (story.one, True), (NOWHERE, False)):
        if good:
            await story.write(source_id=source_id)
            continue
        with pytest.raises(Refusal) as refused:
            await story.write(source_id=source_id)
        assert refused.value.code is Code.NOT_ALLOWED
    assert len(await story.read()) == 2


async def test_a_cursor_that_is_none_of_this_history_is_gone(story, stores):
    await story.write(summary="1")
    await story.write(summary="2")
    [_, first] = await story.read()
    assert [line.summary for line in await story.read(since_id=first.id)] == ["2"]
    await stores.database.execute("delete from activity where id = %(id)s", id=first.id)
    for cursor in (first.id, NOWHERE):
        with pytest.raises(Refusal) as refused:
            await story.read(since_id=cursor)
        assert refused.value.code is Code.CURSOR_GONE


async def test_a_notice_is_told_and_stands_in_the_history(story, heard):
    attachment = {"uri": "workspace:/a", "name": "a", "mimeType": "text/plain", "size": 3}
    await story.timeline.notify(
        Holder(workspace_id=story.one), story.one, Notice(message="x", attachments=[attachment])
    )
    event, payload = await heard.one("AGENT_MESSAGE")
    assert (event.workspace_id, event.sign) == (story.one, True)
    assert payload == {"message": "x", "workspace_id": story.one, "name": "one", "attachments": [attachment]}
    await story.log.flush()
    [line] = await story.read()
    assert (line.activity_type, line.method, line.source_id) == ("a2a_receive", "notify", None)
    assert line.response_body == {"result": "x", "parts": [{"kind": "file", "file": attachment}]}


async def test_a_history_that_cannot_be_read_is_said_to_be_away(story, monkeypatch):
    async def away(*_: object) -> None:
        raise StoreUnavailable("away")

    monkeypatch.setattr(story.stores.activity, "list_newest", away)
    with pytest.raises(Refusal) as refused:
        await story.read()
    assert refused.value.code is Code.PLATFORM_UNAVAILABLE


async def test_of_a_workspace_that_is_gone_nothing_is_told(story, stores):
    await stores.remove(story.one)
    with pytest.raises(Refusal) as refused:
        await story.read()
    assert refused.value.code is Code.REMOVED
