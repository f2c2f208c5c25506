"""Every field of every body, given values of the wrong type or size, is refused by its name."""

from collections.abc import Mapping, Sequence
from typing import Any, Final
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from gateway.web import models
from gateway.web.routes import ROUTES
from tests.harness.cast import GOOD, Cast

pytestmark = pytest.mark.asyncio(loop_scope="module")

HUGE: Final = 10**299
UNKNOWN: Final = "00000000-0000-4000-8000-000000000404"
DEEP: Final[dict[str, Any]] = {}
inner = DEEP
for _ in range(models.MAX_LEVELS):
    inner["a"] = inner = {}

NOT_TEXT: Final = (0, 1.5, True, [], {})
NOT_A_LINE: Final = (*NOT_TEXT, "two\nlines", "a\x00b", "\x7f", "x" * 5000)
NOT_A_UUID: Final = (*NOT_TEXT, "", "demo", "0" * 36, str(uuid4()) + "0", "\x00")
NOT_A_COUNT: Final = (-1, 1.5, "1", True, None, [], HUGE)
NOT_A_CARD: Final = (None, 1, "{}", [], DEEP)
UNSAFE: Final = (
    "",
    "demo",
    "//host/",
    "ftp://host/",
    "http://",
    "http://a:b@host/",
    "http://host:0/",
    "http://2130706433/",
)
NOT_REACHED: Final = ("http://169.254.169.254/", "http://0.0.0.0/", "http://[ff02::1]/", "http://100.64.0.1/")

WRONG: Final[Mapping[type[BaseModel], Mapping[str, Sequence[Any]]]] = {
    models.Register: {
        "id": (None, *NOT_A_UUID),
        "url": (None, *NOT_A_LINE, *UNSAFE, *NOT_REACHED),
        "agent_card": NOT_A_CARD,
        "delivery_mode": (*NOT_TEXT, "", "Poll", "pull", "x" * 17),
        "events_url": (*NOT_A_LINE, *UNSAFE, *NOT_REACHED),
    },
    models.Heartbeat: {"workspace_id": (None, *NOT_A_UUID)},
    models.CheckAccess: {"caller_id": (None, *NOT_A_UUID), "target_id": (None, *NOT_A_UUID)},
    models.EditWorkspace: {
        "name": (None, "", " ", *NOT_A_LINE),
        "role": NOT_A_LINE,
        "tier": (*NOT_A_COUNT, 101),
        "parent_id": (*NOT_A_UUID, str(UUID(int=1))),
        "collapsed": (None, 0, 1, "true", [], {}),
        "runtime": (None, "external\n", *NOT_A_LINE, "managed"),
        "workspace_dir": (*NOT_A_LINE, "", "work", "/", "/etc/x", "/a/../b", "/a//b", "/a/."),
        "x": (None, "1", True, [], {}),
        "y": (None, "1", True, [], {}),
        "url": (*NOT_A_LINE, *UNSAFE, *NOT_REACHED),
        "delivery_mode": (*NOT_TEXT, "", "polling", "PUSH", "push\n"),
        "max_concurrent_tasks": (*NOT_A_COUNT, 0, 1001),
        "events_url": (*NOT_A_LINE, *UNSAFE, *NOT_REACHED),
    },
    models.LogActivity: {
        "activity_type": (None, *NOT_TEXT, "", "a2a", "A2A_SEND", "error\n"),
        "method": NOT_A_LINE,
        "summary": (*NOT_TEXT, "x" * 5000),
        "target_id": NOT_A_UUID,
        "source_id": NOT_A_UUID,
        "status": NOT_A_LINE,
        "error_detail": (*NOT_TEXT, "x" * 5000),
        "duration_ms": (-1, 1.5, "1", True, [], HUGE),
        "request_body": (1, "{}", [], DEEP),
        "response_body": (1, "{}", [], DEEP),
        "metadata": (1, "{}", [], DEEP),
    },
    models.Notify: {
        "message": (None, "", *NOT_TEXT),
        "type": NOT_A_LINE,
        "attachments": (
            None,
            {},
            "x",
            [1],
            [{}],
            [{"uri": "x"}],
            [{"name": "x"}],
            [{"uri": "", "name": "x"}],
            [{"uri": "x", "name": 1}],
            [{"uri": "x", "name": "x", "size": -1}],
        ),
    },
    models.Delegate: {
        "target_id": (None, *NOT_A_UUID),
        "task": (None, "", " ", *NOT_TEXT),
        "idempotency_key": ("", " ", *NOT_A_LINE),
    },
    models.RecordDelegation: {
        "target_id": (None, *NOT_A_UUID),
        "task": (None, "", " ", *NOT_TEXT),
        "delegation_id": (None, *NOT_A_UUID),
    },
    models.UpdateDelegation: {
        "status": (None, *NOT_TEXT, "", "pending", "Completed", "failed\n"),
        "error": (*NOT_TEXT, "x" * 5000),
        "response_preview": (*NOT_TEXT, "x" * 5000),
    },
    models.Reply: {"body": (*NOT_A_CARD, {}, {"result": 1, "error": {}}, {"error": 1})},
    models.Progress: {"event": NOT_A_CARD, "final": (None, 0, 1, "true", [], {})},
    models.SetBudget: {"budget_limit": (2**53 + 1, *(value for value in NOT_A_COUNT if value is not None))},
    models.MintToken: {"name": ("", " ", *NOT_A_LINE)},
    models.Login: {"token": (None, "", *NOT_A_LINE), "code": ("", "one beside a token", *NOT_A_LINE)},
    models.UpdateCard: {"workspace_id": (None, *NOT_A_UUID), "agent_card": NOT_A_CARD},
    models.CreateWorkspace: {
        "name": (None, "", " ", *NOT_A_LINE),
        "role": NOT_A_LINE,
        "template": NOT_A_LINE,
        "model": NOT_A_LINE,
        "tier": (*NOT_A_COUNT, 101),
        "runtime": NOT_A_LINE,
        "external": (None, 0, 1, "true", [], {}),
        "url": (*NOT_A_LINE, *UNSAFE[1:], *NOT_REACHED),
        "agent_auth": ("", "Bearer cannot be kept without a key", *NOT_A_LINE),
        "workspace_dir": (*NOT_A_LINE, "", "work", "/", "/etc/x", "/a/../b", "/a//b", "/a/."),
        "workspace_access": NOT_A_LINE,
        "parent_id": (*NOT_A_UUID, str(uuid4())),
        "budget_limit": (-1, 1.5, "1", True, [], HUGE, models.MAX_CENTS + 1),
        "max_concurrent_tasks": (*NOT_A_COUNT, 0, 1001),
        "delivery_mode": (*NOT_TEXT, "", "polling", "PUSH", "push\n"),
        "secrets": (1, "x", [], {"KEY": "value"}),
        "canvas": (None, 1, "0,0", [], {"x": "1"}, {"x": True}, {"y": None}, {"y": []}),
    },
}
"""For each field of each body what is refused. A new field needs its row."""

ODD: Final[Mapping[str, Sequence[Any]]] = {
    "active_tasks": (None, "1", True, -1, [], {}, HUGE),
    "current_task": (None, 1, [], {}, "a\x00b", "x" * 10_000),
    "error_rate": (None, "0.1", True, -1, [], {}, HUGE),
    "sample_error": (None, 1, [], {}, "a\x00b", "x" * 10_000),
    "uptime_seconds": (None, "1", True, -1, [], {}, HUGE),
    "monthly_spend": (None, "1", True, -1, [], {}, HUGE),
    "runtime_state": (None, 1, [], {}, "a\x00b", "x" * 10_000),
    "runtime_metadata": (
        None, 1, "x", [], DEEP,
        {"capabilities": []}, {"capabilities": {"session": 1, "a\x00b": True, "": True}},
        {"idle_timeout_seconds": "1"}, {"idle_timeout_seconds": -1}, {"idle_timeout_seconds": HUGE},
    ),
}  # fmt: skip
"""What a heartbeat may say beside its id: whatever it is, it never fails the beat (wire.md 3)."""

FIELDS: Final = [(model, field) for model, fields in WRONG.items() for field in fields]


async def test_every_field_has_its_row():
    assert set(WRONG) == {route.body for route in ROUTES if route.body is not None}
    for model, fields in WRONG.items():
        optional = ODD if model is models.Heartbeat else {}
        assert {*fields, *optional} == set(model.model_fields), model.__name__


@pytest.mark.parametrize(("model", "field"), FIELDS, ids=[f"{model.__name__}.{field}" for model, field in FIELDS])
async def test_a_field_is_refused_by_its_name(cast: Cast, model: type[BaseModel], field: str):
    route = next(route for route in ROUTES if route.body is model)
    good = GOOD[f"{route.method} {route.path}"]
    assert good is not None
    for value in WRONG[model][field]:
        path = route.path.format(workspace_id=cast.target.id, call_id=UNKNOWN, delegation_id=UNKNOWN)
        status, body, _ = await cast.world.request(route.method, path, json={**good(cast), field: value})
        assert (status, body["code"]) == (400, "invalid_request"), value
        assert body["field"].split(".")[0] == ("token" if value == "one beside a token" else field), value
        assert body["error"].startswith(f"{body['field']}: "), value


@pytest.mark.parametrize(
    "field", [field for field in WRONG[models.Register] if field not in ("delivery_mode", "events_url")]
)
async def test_a_missing_field_is_refused_by_its_name(cast: Cast, field: str):
    said = {"id": cast.target.id, "url": cast.agent.url, "agent_card": {}}
    del said[field]
    status, body, _ = await cast.world.request("POST", "/registry/register", json=said)
    assert (status, body["field"]) == (400, field)


@pytest.mark.parametrize("field", ODD)
async def test_an_odd_optional_field_never_fails_a_heartbeat(cast: Cast, field: str):
    for value in ODD[field]:
        assert await cast.world.beat(cast.target, **{field: value}) == 200, value


@pytest.mark.parametrize("route", ["register", "heartbeat", "update-card"])
async def test_an_unknown_workspace_is_not_found(cast: Cast, route: str):
    unknown = str(uuid4())
    said = {"id": unknown, "workspace_id": unknown, "url": cast.agent.url, "agent_card": {}}
    status, body, _ = await cast.world.request("POST", f"/registry/{route}", json=said)
    assert (status, body["code"]) == (404, "not_found")


async def test_a_card_keeps_what_can_be_kept_of_odd_values(cast: Cast):
    odd = {"a\x00b": "c\x00d", "huge": HUGE, "\ufffe": "\U0001f600"}
    said = {"workspace_id": cast.target.id, "agent_card": odd}
    assert (await cast.world.request("POST", "/registry/update-card", json=said))[0] == 200
    _, shown, _ = await cast.world.request("GET", f"/workspaces/{cast.target.id}")
    assert shown["agent_card"] == {"ab": "cd", "huge": float(HUGE), "\ufffe": "\U0001f600"}
