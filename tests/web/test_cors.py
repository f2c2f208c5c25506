"""Pages of the sites that are named may ask and read the answers; all others' may not."""

from collections.abc import Mapping
from typing import Final

import pytest
from aiohttp import web
from aiohttp.test_utils import make_mocked_request

from gateway.web.cors import CrossOrigin
from tests.harness.cast import Cast

pytestmark = pytest.mark.asyncio(loop_scope="module")

FRIEND: Final = "http://localhost:3000"
"""Named by default."""
STRANGER: Final = "http://elsewhere.example"
ASKING: Final = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "authorization"}
GIVEN: Final = "Access-Control-Allow-Origin"


async def ask_before(cast: Cast, path: str, headers: Mapping[str, str]) -> tuple[int, Mapping[str, str]]:
    status, _, answered = await cast.world.request("OPTIONS", path, headers={"Authorization": None, **headers})
    return status, answered


async def test_a_browser_that_asks_first_is_told_what_its_page_may_send(cast: Cast):
    status, headers = await ask_before(cast, f"/workspaces/{cast.target.id}/a2a", {"Origin": FRIEND, **ASKING})
    assert status == 204
    assert headers[GIVEN] == FRIEND
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Access-Control-Allow-Methods"] == "POST"
    allowed = {name.strip() for name in headers["Access-Control-Allow-Headers"].split(",")}
    assert allowed == {
        "Origin", "Content-Type", "Authorization", "X-Workspace-ID", "Last-Event-ID", "X-Timeout", "A2A-Version",
        "A2A-Extensions", "X-A2A-Call-ID", "X-On-Disconnect", "Prefer", "traceparent", "tracestate",
    }  # fmt: skip
    assert headers["Vary"] == "Origin"


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/workspaces", {"Origin": STRANGER, **ASKING}, 405),
        ("/workspaces", {"Origin": FRIEND}, 405),
        ("/workspaces", ASKING, 405),
        ("/nowhere", {"Origin": FRIEND, **ASKING}, 404),
    ],
)
async def test_every_other_question_gets_the_usual_answer(
    cast: Cast, path: str, headers: Mapping[str, str], status: int
):
    answered, given = await ask_before(cast, path, headers)
    assert answered == status
    assert "Access-Control-Allow-Methods" not in given


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/healthz", 200),
        ("/workspaces", 200),
        ("/workspaces/00000000-0000-4000-8000-000000000404", 404),
        ("/nowhere", 404),
    ],
)
async def test_answers_and_refusals_may_be_read_by_pages_of_named_sites_alone(cast: Cast, path: str, status: int):
    for origin, told in ((FRIEND, FRIEND), (STRANGER, None), ("null", None), (f"{FRIEND}/", None)):
        answered, _, headers = await cast.world.request("GET", path, headers={"Origin": origin})
        assert (answered, headers.get(GIVEN), headers["Vary"]) == (status, told, "Origin"), origin
    _, _, headers = await cast.world.request("GET", path)
    assert GIVEN not in headers


async def test_streams_may_be_read_by_pages_of_named_sites(cast: Cast):
    stream = f"{cast.gateway.url}/workspaces/{cast.target.id}/events/stream"
    async with cast.world.session.get(stream, headers={"Origin": FRIEND, **cast.target.bearer}) as response:
        assert response.headers[GIVEN] == FRIEND
        exposed = set(response.headers["Access-Control-Expose-Headers"].split(", "))
    limits = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
    assert exposed == {"Retry-After", "X-Request-ID", "X-A2A-Call-ID", "X-A2A-Resumable", *limits}
    assert limits == {name for name in response.headers if name.startswith("X-RateLimit")}, "all that there are"


async def test_without_named_sites_nothing_is_said():
    response = web.Response()
    await CrossOrigin([]).add_headers(make_mocked_request("GET", "/", headers={"Origin": FRIEND}), response)
    assert not response.headers.keys() & {GIVEN, "Vary"}
