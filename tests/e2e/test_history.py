"""The history of a workspace, as its agent writes it and as people and agents read it."""

from typing import Any

import pytest

from tests.harness.world import Workspace, World, eventually

NOWHERE = "00000000-0000-0000-0000-000000000000"


async def read(world: World, of: Workspace, query: str = "") -> list[dict[str, Any]]:
    status, rows, _ = await world.request("GET", f"/workspaces/{of.id}/activity{query}", headers=of.bearer)
    assert status == 200, rows
    return rows


async def read_all(world: World, of: Workspace, count: int, query: str = "") -> list[dict[str, Any]]:
    """Rows are written in batches: read until there are so many."""
    rows: list[dict[str, Any]] = []
    for _ in range(200):
        rows = await read(world, of, query)
        if len(rows) >= count:
            break
        await world.beat(of)
    assert len(rows) == count
    return rows


async def write(world: World, of: Workspace, **fields: Any) -> tuple[int, Any]:
    line = {"activity_type": "agent_log", **fields}
    status, said, _ = await world.request("POST", f"/workspaces/{of.id}/activity", json=line, headers=of.bearer)
    return status, said


async def test_a_call_stands_in_the_histories_of_both(world: World):
    await world.start()
    agent = await world.agent()
    target, caller = await world.workspace(agent.url), await world.workspace()
    assert (await world.call(target, "hello", headers=caller.bearer))[0] == 200
    [row] = await read_all(world, target, 1)
    assert (row["activity_type"], row["source_id"], row["target_id"]) == ("a2a_receive", caller.id, target.id)
    assert row["request_body"]["params"]["message"]["parts"][0]["text"] == "hello"
    assert row["data"]["source"] == "agent"
    assert (row["data"]["text"], row["data"]["peer_id"]) == ("hello", caller.id)
    assert row["data"]["peer_name"].startswith("agent ")
    [sent] = await read_all(world, caller, 1)
    assert (sent["activity_type"], sent["data"]["peer_id"]) == ("a2a_send", target.id)
    assert "request_body" not in sent


async def test_a_parked_call_has_one_row_whose_id_is_the_messages(world: World):
    await world.start()
    target = await world.workspace(delivery_mode="poll")
    _, parked, _ = await world.call(target, "hello")
    [row] = await read_all(world, target, 1)
    assert (row["id"], row["status"], row["data"]["text"]) == (parked["id"], "queued", "hello")
    path = f"/workspaces/{target.id}/inbox/{parked['id']}/reply"
    answer = {"body": {"result": {"kind": "message"}}}
    assert (await world.request("POST", path, json=answer, headers=target.bearer))[0] == 200
    [row] = await read_all(world, target, 1)
    assert (row["status"], row["response_body"]) == ("ok", answer["body"])


async def test_an_agent_reads_on_from_where_it_was(world: World):
    await world.start()
    one = await world.workspace()
    for number in range(5):
        assert await write(world, one, summary=str(number)) == (200, {"status": "logged"})
    rows = await read_all(world, one, 5)
    assert [row["summary"] for row in rows] == ["4", "3", "2", "1", "0"]
    after = await read(world, one, f"?since_id={rows[3]['id']}&limit=2")
    assert [row["summary"] for row in after] == ["2", "3"]
    assert await read(world, one, f"?since_id={rows[0]['id']}") == []


async def test_a_cursor_that_is_gone_or_anothers_is_told_so(world: World):
    await world.start()
    one, other = await world.workspace(), await world.workspace()
    await write(world, other)
    [foreign] = await read_all(world, other, 1)
    for cursor in (NOWHERE, foreign["id"], one.id):
        status, said, _ = await world.request("GET", f"/workspaces/{one.id}/activity?since_id={cursor}")
        assert (status, said["code"]) == (410, "cursor_gone")


async def test_filters_are_all_kept(world: World):
    await world.start()
    agent = await world.agent()
    one, caller = await world.workspace(agent.url), await world.workspace()
    await world.call(one)
    await world.call(one, headers=caller.bearer)
    await write(world, one, activity_type="error", source_id=one.id)
    rows = await read_all(world, one, 3)
    everything = [row["id"] for row in rows]

    async def ids(query: str) -> list[str]:
        return [row["id"] for row in await read(world, one, query)]

    of = {row["activity_type"] + row["data"]["source"]: row["id"] for row in rows}
    assert await ids("?type=error") == [of["erroragent"]]
    assert await ids("?source=canvas") == [of["a2a_receivecanvas"]]
    assert await ids(f"?peer_id={caller.id}") == [of["a2a_receiveagent"]]
    assert await ids(f"?peer_id={caller.id}&type=error") == []
    assert await ids("?since_secs=3600") == await ids("?since_secs=99999999") == everything
    assert await ids(f"?before_ts={rows[0]['created_at']}".replace("+", "%2B")) != everything
    assert await ids("?before_ts=2020-01-01T00:00:00Z") == []
    assert await ids("?before_ts=2897-02-06T09:59:24.2-22:46") == everything
    assert await ids("?limit=1") == everything[:1]
    assert await ids("?limit=100000") == everything


async def test_nobody_writes_in_anothers_name_or_history(world: World):
    await world.start()
    one, other = await world.workspace(), await world.workspace()
    assert (await write(world, one, source_id=other.id))[0] == 403
    status, _, _ = await world.request(
        "POST", f"/workspaces/{one.id}/activity", json={"activity_type": "error"}, headers=other.bearer
    )
    assert status == 403
    assert await read(world, one) == []


async def test_what_an_agent_writes_is_told_live(world: World):
    await world.start()
    one = await world.workspace()
    async with world.reading(one) as reader:
        trace = {"tool_trace": [{"tool": "search"}]}
        assert (await write(world, one, summary="found it", metadata=trace))[0] == 200
        await eventually(lambda: reader.of("ACTIVITY_LOGGED"))
    [told] = reader.of("ACTIVITY_LOGGED")
    assert told["summary"] == "found it"
    [row] = await read_all(world, one, 1)
    assert (row["tool_trace"], row["metadata"]) == (trace["tool_trace"], trace)


async def notify(world: World, of: Workspace, **fields: Any) -> tuple[int, Any]:
    status, said, _ = await world.request("POST", f"/workspaces/{of.id}/notify", json=fields, headers=of.bearer)
    return status, said


async def test_a_notice_reaches_people_live_and_whole(world: World):
    await world.start()
    one = await world.workspace()
    long = "x" * 200_000
    attachment = {"uri": "workspace:/report.pdf", "name": "report.pdf", "mimeType": "application/pdf", "size": 5}
    async with world.reading(one) as reader:
        assert await notify(world, one, message=long, attachments=[attachment]) == (200, {"status": "sent"})
        await eventually(lambda: reader.of("AGENT_MESSAGE"))
    [told] = reader.of("AGENT_MESSAGE")
    assert (told["message"], told["attachments"], told["workspace_id"]) == (long, [attachment], one.id)
    [row] = await read_all(world, one, 1)
    assert (row["method"], row["source_id"], row["data"]["source"]) == ("notify", None, "canvas")


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({}, "message is required"),
        ({"message": ""}, "message is required"),
        ({"message": "x", "attachments": [{"uri": "a", "name": "b"}, {"uri": "a"}]}, "attachment[1]: uri and name are"),
    ],
)
async def test_a_notice_that_says_nothing_is_refused_in_known_words(world: World, fields: Any, sentence: str):
    await world.start()
    one = await world.workspace()
    status, said = await notify(world, one, **fields)
    assert (status, said["code"]) == (400, "invalid_request")
    assert sentence in said["error"]


async def test_the_end_of_a_delegation_needs_no_words(world: World):
    await world.start()
    one = await world.workspace()
    assert (await notify(world, one, type="delegation_complete"))[0] == 200
