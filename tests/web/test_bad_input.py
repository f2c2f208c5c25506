"""Every route, given everything that it must refuse, says so in the documented way; nothing breaks behind it."""

import gzip
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

import orjson
import pytest

from gateway.core.callers import SYSTEM_PREFIXES
from gateway.web.routes import ROUTES, Route, Scope
from tests.harness.cast import GOOD, LIMIT_BYTES, OPERATIONS, Cast, trickle

pytestmark = pytest.mark.asyncio(loop_scope="module")

UNKNOWN: Final = "00000000-0000-4000-8000-000000000404"


@dataclass(frozen=True, kw_only=True)
class Bad:
    """One way to be wrong, and the refusal of it. None in `headers` leaves a header out; `id` stands in the path.

    `{target}` in `query` is the workspace that is asked for.
    """

    what: str
    status: int
    code: str
    headers: Callable[[Cast], Mapping[str, str | None]] = field(default=lambda _: {})
    data: bytes | None = None
    id: str | None = None
    query: str = ""
    names: str | None = None


def saying(name: str, value: str | None) -> Callable[[Cast], Mapping[str, str | None]]:
    return lambda _: {name: value}


NOBODY: Final = tuple(
    Bad(what=what, status=401, code=code, headers=saying("Authorization", value))
    for what, code, value in (
        ("no Authorization", "credential_required", None),
        ("another scheme", "invalid_credential", "Basic YTpi"),
        ("an empty bearer", "invalid_credential", "Bearer "),
        ("an unknown token", "invalid_credential", f"Bearer {'x' * 43}"),
    )
)
STRANGE: Final = {
    Scope.RUNTIME: "not_allowed",
    Scope.CALLER: "cannot_communicate",
    Scope.NEIGHBOUR: "not_allowed",
    Scope.OWNER: "not_allowed",
    Scope.ASKER: "not_allowed",
    Scope.MEMBER: "not_allowed",
    Scope.OPERATOR: "not_allowed",
}
"""What a workspace with nothing to do with the target is told."""
IDS: Final = (
    Bad(what="no UUID", status=404, code="not_found", id="demo"),
    Bad(what="an unknown UUID", status=404, code="not_found", id=UNKNOWN),
    Bad(what="a NUL in the path", status=404, code="not_found", id="%00"),
    Bad(what="half a UTF-8 character in the path", status=404, code="not_found", id="%C3"),
    Bad(what="another path in the path", status=404, code="not_found", id="..%2F..%2Fworkspaces"),
)
NAMES: Final = (
    Bad(
        what="no UUID among the workspaces",
        status=400,
        code="invalid_request",
        query="workspace=demo",
        names="workspace",
    ),
    Bad(what="an unknown workspace", status=404, code="not_found", query=f"workspace={UNKNOWN}"),
    Bad(what="no type of event", status=400, code="invalid_request", query="type=GAP", names="type"),
    Bad(
        what="a workspace that may not be seen",
        status=403,
        code="not_allowed",
        query="workspace={target}",
        headers=lambda cast: cast.stranger.bearer,
    ),
)
"""What readers may not name."""
BAD_QUERIES: Final[Mapping[str, tuple[str, ...]]] = {
    "after": ("", "x", "1.2"),
    "stale_secs": ("", "-1", "nan"),
    "type": ("", "a2a", "A2A_SEND", "%00"),
    "source": ("", "people", "Canvas"),
    "peer_id": ("", "demo", "0" * 36, "%00"),
    "since_id": ("", "demo", UNKNOWN + "0"),
    "since_secs": ("", "0", "-1", "nan", "1e3", "soon"),
    "before_ts": ("", "yesterday", "0001-01-01T00:00:00%2B14:00", "2026-13-01T00:00:00Z", "%00"),
    "limit": ("", "0", "-1", "1.5", "many", "9" * 10),
    "wait": ("", "-1", "nan", "5s"),
}
"""For each value of a query what is refused."""
ZIPPED: Final = {"Content-Encoding": "gzip", "Connection": "close"}
BODIES: Final = (
    Bad(what="a body over the limit", status=413, code="too_large", data=b" " * (LIMIT_BYTES + 1)),
    Bad(what="a gzip bomb", status=413, code="too_large", data=gzip.compress(bytes(2**24)), headers=lambda _: ZIPPED),
    Bad(what="no gzip", status=400, code="invalid_request", data=b"{}", headers=lambda _: ZIPPED),
)
UNREADABLE: Final = {
    "nothing": b"",
    "malformed JSON": b'{"id":',
    "two documents": b"{}{}",
    "a BOM of UTF-16": "{}".encode("utf-16"),
    "half a UTF-8 character": b'{"name":"\xc3"}',
    "NaN": b'{"tier":NaN}',
    "2,000 levels": b'{"agent_card":{"a":' + b"[" * 2000 + b"]" * 2000 + b"}}",
}
NO_OBJECT: Final = {"a list": b"[{}]", "a text": b'"{}"', "a number": b"1", "null": b"null"}
CALLERS: Final = (
    *(
        Bad(
            what=f"a forged {prefix}", status=403, code="invalid_caller", headers=saying("X-Workspace-ID", f"{prefix}x")
        )
        for prefix in SYSTEM_PREFIXES
    ),
    *(
        Bad(what=f"{name} {value!r}", status=400, code="invalid_request", names=name, headers=saying(name, value))
        for name, values in {
            "X-Workspace-ID": ("me", "{}", "0", "0" * 36, UNKNOWN + "0"),
            "X-On-Disconnect": ("", "close", "detach, cancel"),
            "X-Timeout": ("", "soon", "-1", "nan", "inf", "1e999", "5s"),
        }.items()
        for value in values
    ),
    Bad(what="an unknown caller", status=403, code="cannot_communicate", headers=saying("X-Workspace-ID", UNKNOWN)),
    Bad(
        what="a caller that may not call",
        status=403,
        code="cannot_communicate",
        headers=lambda cast: {"X-Workspace-ID": cast.stranger.id},
    ),
    Bad(
        what="a caller that is not the bearer",
        status=401,
        code="invalid_credential",
        headers=lambda cast: {"X-Workspace-ID": cast.stranger.id, **cast.target.bearer},
    ),
)


def rows_of(route: Route) -> Iterator[Bad]:
    """Everything that this route must refuse."""
    if route.scope not in (Scope.EVERYBODY, Scope.INSPECTOR, Scope.TESTER):
        yield from NOBODY
    if route.scope is Scope.PARTY:
        yield Bad(what="a stranger's token", status=404, code="not_found", headers=lambda cast: cast.stranger.bearer)
    if route.scope in STRANGE:
        yield Bad(
            what="a stranger's token", status=403, code=STRANGE[route.scope], headers=lambda cast: cast.stranger.bearer
        )
    if route.scope is Scope.VIEWER:
        yield from NAMES
    elif route.stream:
        for name in ("type", "workspace"):
            yield Bad(
                what=f"a {name} it does not take",
                status=400,
                code="invalid_request",
                query=f"{name}={{target}}",
                names=name,
            )
    if "{workspace_id}" in route.path:
        yield from IDS
    if route.search:
        for what, said in (("too long a search", "x" * 201), ("a search of two lines", "a%0Ab"), ("a NUL", "%00")):
            yield Bad(what=what, status=400, code="invalid_request", query=f"q={said}", names="q")
    for name in route.query:
        for said in BAD_QUERIES[name]:
            yield Bad(what=f"{name} {said!r}", status=400, code="invalid_request", query=f"{name}={said}", names=name)
    if route.confirm:
        yield Bad(
            what="neither yes nor no", status=400, code="invalid_request", query="confirm=perhaps", names="confirm"
        )
    if route.takes_body:
        yield from BODIES
        codes = ("invalid_json", "invalid_request") if route.rpc else ("invalid_request", "invalid_request")
        for code, bodies in zip(codes, (UNREADABLE, NO_OBJECT), strict=True):
            for what, data in bodies.items():
                yield Bad(what=what, status=400, code=code, data=data)
    if route.a2a:
        yield from CALLERS
    if route.rpc:
        yield Bad(what="an object that is no call", status=400, code="invalid_request", data=b"{}", names="method")
    elif route.body is not None:
        yield Bad(what="a lone surrogate", status=400, code="invalid_request", data=b'{"name":"\\ud800"}')


def path_of(path: str, workspace_id: str, method: str = "GET") -> str:
    """The path with this workspace in it, and nobody's token, call and delegation."""
    operation = OPERATIONS.get(method, "tasks")
    return path.format(
        workspace_id=workspace_id, token_id=UNKNOWN, call_id=UNKNOWN, delegation_id=UNKNOWN, operation=operation
    )


TABLE: Final = [(route, bad) for route in ROUTES for bad in rows_of(route)]


@pytest.mark.parametrize(("route", "bad"), TABLE, ids=[f"{r.method} {r.path}: {b.what}" for r, b in TABLE])
async def test_a_route_refuses(cast: Cast, route: Route, bad: Bad):
    good = GOOD[f"{route.method} {route.path}"]
    data = bad.data if bad.data is not None or good is None else orjson.dumps(good(cast))
    path = path_of(route.path, bad.id or cast.target.id, route.method)
    query = bad.query or ("stale_secs=1000" if "stale_secs" in route.query else "")  # which has to be there
    if query:
        path = f"{path}?{query.format(target=cast.target.id)}"
    status, body, headers = await cast.world.request(route.method, path, headers=bad.headers(cast), data=data)
    assert (status, body["code"]) == (bad.status, bad.code)
    assert body["error"]
    assert headers["X-Request-ID"]
    assert ("X-A2A-Call-ID" in headers) == route.a2a
    assert (headers.get("WWW-Authenticate") == "Bearer") == (status == 401)
    if bad.code == "invalid_caller":
        assert body["error"] == "invalid caller ID"
    if route.rpc and bad.data is not None and bad not in BODIES:  # what the gateway says as a JSON-RPC server
        assert body["error"]["code"] == {"invalid_json": -32700, "invalid_request": -32600}[bad.code]
        assert body["error"]["data"].get("field") == bad.names
    elif bad.names is not None:
        assert body["field"] == bad.names


@pytest.mark.parametrize("route", [r for r in ROUTES if r.takes_body], ids=lambda r: f"{r.method} {r.path}")
async def test_a_body_that_takes_too_long_is_refused(cast: Cast, route: Route):
    path = path_of(route.path, cast.target.id, route.method)
    status, body = await trickle(cast.gateway.url, path, method=route.method)
    assert (status, body["code"]) == (408, "body_timeout")


@pytest.mark.parametrize("path", sorted({route.path for route in ROUTES}))
async def test_another_method_is_refused_with_those_that_are_allowed(cast: Cast, path: str):
    allowed = {route.method for route in ROUTES if route.path == path}
    for method in {"GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"} - allowed:
        status, body, headers = await cast.world.request(method, path_of(path, cast.target.id))
        assert (status, body["code"]) == (405, "method_not_allowed"), method
        assert set(headers["Allow"].split(",")) == allowed


@pytest.mark.parametrize("path", ["/", "/nope", "/workspaces/", "//healthz", "/registry", "/%FF", "/workspaces/a/b"])
async def test_a_path_that_leads_nowhere_is_refused(cast: Cast, path: str):
    status, body, _ = await cast.world.request("GET", path)
    assert (status, body) == (404, {"error": "no such route", "code": "not_found"})
