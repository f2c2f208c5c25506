"""What an agent's own event becomes: our envelope, our workspace, and our words only where they are as we say them."""

from typing import Any, Final

import orjson
import pytest

from events.event import CATALOGUE, event
from gateway.core.sse import ServerEvent
from gateway.core.upstream import AGENT_EVENT, KEEPABLE, TYPE_CHARS, told

ALL: Final = KEEPABLE
ID: Final = "11111111-1111-4111-8111-111111111111"


def tell(data: Any, type_: str = "message", *, keeps: frozenset[str] = frozenset(), secret: str | None = None):
    raw = data if isinstance(data, bytes) else orjson.dumps(data)
    one = told(ServerEvent(type=type_, data=raw), ID, keeps=keeps, secret=secret)
    return one.type, one.data


@pytest.mark.parametrize(
    ("data", "type_", "expected"),
    [
        ({"type": "STEP", "data": {"a": 1}}, "message", {"type": "STEP", "data": {"a": 1}}),
        ({"type": "STEP", "data": None}, "message", {"type": "STEP", "data": None}),
        ({"type": "STEP", "a": 1}, "message", {"type": "STEP", "data": {"type": "STEP", "a": 1}}),
        ({"type": 7}, "named", {"type": "named", "data": {"type": 7}}),
        ([1, 2], "named", {"type": "named", "data": [1, 2]}),
        (b"null", "message", {"type": "message", "data": None}),
        (b"plain text", "named", {"type": "named", "data": "plain text"}),
        (b"", "ping", {"type": "ping", "data": ""}),
        (b"\xff{", "message", {"type": "message", "data": "�{"}),
    ],
)
def test_its_type_and_data_are_told(data: Any, type_: str, expected: dict[str, Any]):
    assert tell(data, type_) == (AGENT_EVENT, expected)


@pytest.mark.parametrize("type_", sorted(CATALOGUE))
def test_no_event_of_ours_can_be_made_unless_it_is_allowed(type_: str):
    said = {"message": "hi", "current_task": "t", "active_tasks": 1, "call_id": "c"}
    assert tell({"type": type_, "data": said})[0] == AGENT_EVENT
    assert tell(said, type_)[0] == AGENT_EVENT
    kept = tell({"type": type_, "data": said}, keeps=ALL)[0]
    assert kept == (type_ if type_ in KEEPABLE else AGENT_EVENT)


def test_what_is_kept_has_our_fields_alone_and_our_workspace():
    said = {"message": "hi", "workspace_id": "somebody else", "name": "the operator", "attachments": [{"uri": "u"}]}
    assert tell({"type": "AGENT_MESSAGE", "data": said}, keeps=ALL) == (
        "AGENT_MESSAGE",
        {"message": "hi", "attachments": [{"uri": "u"}], "workspace_id": ID},
    )
    assert tell({"current_task": "t", "active_tasks": 2, "x": 1}, "TASK_UPDATED", keeps=ALL) == (
        "TASK_UPDATED",
        {"current_task": "t", "active_tasks": 2},
    )


@pytest.mark.parametrize(
    "data",
    [
        {}, {"current_task": 7, "active_tasks": 1}, {"current_task": "t"}, {"current_task": "t", "active_tasks": True},
        {"current_task": "t", "active_tasks": -1}, {"current_task": "x" * 5000, "active_tasks": 1}, [], "t", None,
    ],
)  # fmt: skip
def test_what_is_not_as_we_say_it_is_no_event_of_ours(data: Any):
    assert tell({"type": "TASK_UPDATED", "data": data}, keeps=ALL) == (
        AGENT_EVENT,
        {"type": "TASK_UPDATED", "data": data},
    )


@pytest.mark.parametrize("type_", sorted(KEEPABLE))
def test_what_may_be_kept_may_be_a_sign_and_has_fields_of_the_catalogue(type_: str):
    said = {"message": "hi", "current_task": "t", "active_tasks": 1, "attachments": []}
    kept, data = tell({"type": type_, "data": said}, keeps=ALL)
    assert set(data) <= set(CATALOGUE[kept].data)
    assert event(kept, ID, data, sign=True).sign


def test_what_was_shown_to_the_agent_is_told_to_nobody():
    secret = "s3cr3t-words"
    shown = tell({"type": f"echo {secret}", "data": {"authorization": f"Bearer {secret}"}}, secret=secret)
    assert secret not in repr(shown)
    assert secret not in repr(tell(b"x", f"a {secret}", secret=secret))
    assert shown[1]["data"] == {"authorization": "Bearer (hidden)"}


def test_a_type_is_short_and_printable():
    assert tell(b"1", "a\x01b\u2028" + "x" * 1000)[1]["type"] == "a?b?" + "x" * (TYPE_CHARS - 4)


def test_a_large_event_travels_cut_as_the_bus_cuts():
    made = event(*_args(tell(orjson.dumps({"type": "BIG", "data": "x" * 100_000}))), sign=True)
    assert len(made.payload) < 64 * 1024
    assert orjson.loads(made.payload)["truncated"] is True


def _args(one: tuple[str, dict[str, Any]]) -> tuple[str, str, dict[str, Any]]:
    return one[0], ID, one[1]
