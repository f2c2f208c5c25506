"""A2A over HTTP+JSON: which requests this binding has, what the gateway must know of each, and how its errors look.

A request is its verb and path; they go on as they came. Paths that are none of A2A's do not: whatever else an agent's
server has is not for callers. Nor do extended cards, whose urls would lead around the gateway.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from http import HTTPStatus
from types import MappingProxyType
from typing import Any, Final
from urllib.parse import quote, unquote, urlsplit

import orjson

from gateway.core import jsontext
from gateway.core.envelope import DIGEST_BYTES, INVALID_JSON, INVALID_REQUEST, BadEnvelope, Envelope

BINDING: Final = "HTTP+JSON"
"""How agent cards call it."""
V0: Final = "v1/"
"""What stands before every path of A2A 0.3; in A2A 1.0 nothing does, or whose agent it is (`tenant`)."""
SUBSCRIBE: Final = "tasks:subscribe"
STREAM: Final = "message:stream"
DOMAIN: Final = "a2a-gateway"
MOST_INTERFACES: Final = 64
"""How many of each list of a card are looked at, for each request: an agent may write thousands."""

_CHARACTER: Final = r"(?:[A-Za-z0-9._~!$&'()*+,;=@:-]|%[0-9A-Fa-f]{2})"
_TASK: Final = rf"tasks/(?P<task>{_CHARACTER}+)"
_CONFIGS: Final = rf"{_TASK}/pushNotificationConfigs"
_QUERY: Final = re.compile(rf"(?:{_CHARACTER}|[/?])*")
_PREFIX: Final = re.compile(rf"(?P<prefix>{_CHARACTER}+/)(?P<path>.+)")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_PATHS: Final[tuple[tuple[re.Pattern[str], Mapping[str, str]], ...]] = tuple(
    (re.compile(pattern), MappingProxyType(verbs))
    for pattern, verbs in (
        ("message:send", {"POST": "message:send"}),
        ("message:stream", {"POST": STREAM}),
        ("tasks", {"GET": "tasks:list"}),
        (f"{_TASK}:cancel", {"POST": "tasks:cancel"}),
        (f"{_TASK}:subscribe", {"GET": SUBSCRIBE, "POST": SUBSCRIBE}),
        (_CONFIGS, {"GET": "pushNotificationConfigs:list", "POST": "pushNotificationConfigs:set"}),
        (
            rf"{_CONFIGS}/(?P<config>{_CHARACTER}+)",
            {"GET": "pushNotificationConfigs:get", "DELETE": "pushNotificationConfigs:delete"},
        ),
        (_TASK, {"GET": "tasks:get"}),
    )
)
"""Each path with what its verbs ask for: the name that histories show."""

_STATUSES: Final[Mapping[int, str]] = {
    HTTPStatus.BAD_REQUEST: "INVALID_ARGUMENT",
    HTTPStatus.PAYMENT_REQUIRED: "RESOURCE_EXHAUSTED",
    HTTPStatus.FORBIDDEN: "PERMISSION_DENIED",
    HTTPStatus.CONFLICT: "ABORTED",
    HTTPStatus.GONE: "NOT_FOUND",
    HTTPStatus.INTERNAL_SERVER_ERROR: "INTERNAL",
    HTTPStatus.BAD_GATEWAY: "UNAVAILABLE",
    HTTPStatus.SERVICE_UNAVAILABLE: "UNAVAILABLE",
    HTTPStatus.GATEWAY_TIMEOUT: "DEADLINE_EXCEEDED",
}
"""Beside HTTP's statuses the names that google.rpc.Code has for them: A2A 1.0 writes errors so."""
SAYS_NO: Final = frozenset({"TASK_NOT_FOUND", "UNSUPPORTED_OPERATION", "METHOD_NOT_FOUND", "VERSION_NOT_SUPPORTED"})
"""Reasons by which an agent says that it does not know a task, or cannot go on with its stream."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Operation:
    """A request as it goes on: its verb, and its path below the agent's url, raw, with its query.

    name: what histories call it, with `v1/` before it where it is of A2A 0.3. prefix: what stands before all paths.
    task_id: of the task that it is about, None if of none.
    """

    verb: str
    path: str
    name: str
    prefix: str
    task_id: str | None

    @property
    def v1(self) -> bool:
        """Whether it is of A2A 1.0."""
        return not self.name.startswith(V0)

    @property
    def streaming(self) -> bool:
        """Whether its answer ought to be a stream."""
        return self.name.removeprefix(V0) in (STREAM, SUBSCRIBE)

    def cancel(self, task_id: str) -> "Operation":
        """Return the request that calls off a task of the same agent."""
        path = f"{self.prefix}tasks/{quote(task_id, safe='')}:cancel"
        name = "tasks:cancel" if self.v1 else f"{V0}tasks:cancel"
        return Operation(verb="POST", path=path, name=name, prefix=self.prefix, task_id=task_id)


@dataclass(frozen=True, kw_only=True, slots=True)
class OtherVerbs:
    """There is such a path, with these verbs only."""

    verbs: frozenset[str]


def find(verb: str, path: str, query: str, *, a2a_version: str | None) -> Operation | OtherVerbs | None:
    """Return what a request asks for; None where A2A has no such path. Both parts are raw, as they came.

    a2a_version: the header of that name; without one, paths below `v1/` are of A2A 0.3.
    """
    if not _QUERY.fullmatch(query):
        return None
    found = _match(path)
    prefix = ""
    if found is None and (parts := _PREFIX.fullmatch(path)) is not None and _is_name(parts["prefix"][:-1]):
        found, prefix = _match(parts["path"]), parts["prefix"]
    if found is None:
        return None
    match, verbs = found
    if verb not in verbs:
        return OtherVerbs(verbs=frozenset(verbs))
    old = prefix == V0 and not (a2a_version or "").strip().startswith("1")
    return Operation(
        verb=verb,
        path=f"{path}?{query}" if query else path,
        name=V0 + verbs[verb] if old else verbs[verb],
        prefix=prefix,
        task_id=unquote(match["task"]) if "task" in match.re.groupindex else None,
    )


def _match(path: str) -> tuple[re.Match[str], Mapping[str, str]] | None:
    for pattern, verbs in _PATHS:
        match = pattern.fullmatch(path)
        if match is not None and all(map(_is_name, match.groupdict().values())):
            return match, verbs
    return None


def _is_name(raw: str) -> bool:
    """Whether a segment names something, whoever reads it: not a way to other paths, once it is decoded."""
    try:
        name = unquote(raw, errors="strict")
    except UnicodeDecodeError:  # too long a way to write a dot is one to some
        return False
    bare = name.partition(";")[0]  # some take what follows for a parameter, and leave it out
    return bare not in ("", ".", "..") and not any(mark in name for mark in "/\\") and not _CONTROL.search(name)


def read(operation: Operation, body: bytes) -> Envelope | BadEnvelope:
    """Return what a request says, its body untouched, or why it must not go on. Never raises; takes linear time."""
    message_id = None
    if body and operation.verb != "POST":  # a server that does not expect one takes it for the next request
        return BadEnvelope(code=INVALID_REQUEST, message="only a POST may have a body")
    if body:
        try:
            said = jsontext.parse(body)
        except jsontext.Unparsable:
            return BadEnvelope(code=INVALID_JSON, message="invalid JSON")
        if not isinstance(said, dict):
            return BadEnvelope(code=INVALID_REQUEST, message="the body must be a JSON object")
        message_id = _find_message_id(said)
    elif operation.task_id is None and operation.verb == "POST":
        return BadEnvelope(code=INVALID_REQUEST, message="there is no body, and so no message")
    digest = b""
    if message_id is not None:
        digest = blake2b(b"%b\n%b" % (operation.path.encode(), body), digest_size=DIGEST_BYTES).digest()
    return Envelope(
        body=body,
        method=operation.name,
        id_json=None,
        message_id=message_id,
        client_message_id=message_id is not None,
        streaming=operation.streaming,
        expires_in_s=None,
        v1=operation.v1,
        digest=digest,
    )


def _find_message_id(said: Mapping[str, Any]) -> str | None:
    message = said.get("message")
    message_id = message.get("messageId") if isinstance(message, dict) else None
    if not isinstance(message_id, str):
        return None
    try:
        message_id.encode()
    except UnicodeEncodeError:  # lone surrogates, which nothing behind us could encode
        return None
    return message_id or None


# -- where an agent takes such requests


def find_url(card: Mapping[str, Any] | None, url: str, *, v1: bool) -> str:
    """Return where an agent takes requests of this binding: what its card says, if that is on the host of its own url,
    and else that url. v1: for A2A 1.0; what the card says of that version goes before what it says of others.

    An agent that is called by TLS is not called without it, whatever its card says: its credential goes there.
    """
    host, safe = _host(url), _is_safe(url)
    named = [one for one in _interfaces(card or {}) if _host(one[0]) == host and (_is_safe(one[0]) or not safe)]
    version = "1" if v1 else "0"
    return next((one for one, of in named if of.startswith(version)), named[0][0] if named else url)


def _interfaces(card: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The urls of this binding in a card of any version, with the version of each, "" where it is not said."""
    found: list[tuple[str, str]] = []
    for name, kind in (("supportedInterfaces", "protocolBinding"), ("additionalInterfaces", "transport")):
        listed = card.get(name)
        for one in listed[:MOST_INTERFACES] if isinstance(listed, list) else ():
            if isinstance(one, dict) and one.get(kind) == BINDING and isinstance(one.get("url"), str):
                version = one.get("protocolVersion")
                found.append((one["url"], version if isinstance(version, str) else ""))
    if card.get("preferredTransport") == BINDING and isinstance(card.get("url"), str):
        found.append((card["url"], "0"))
    return found


def _is_safe(url: str) -> bool:
    return url[:6].lower() == "https:"


def _host(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def below(url: str, path: str) -> str:
    """Return the url of a path, raw, with its query, below an agent's url, whose own query goes first."""
    parts = urlsplit(url)
    path, _, query = path.partition("?")
    query = "&".join(filter(None, (parts.query, query)))
    return parts._replace(path=f"{parts.path.rstrip('/')}/{path}", query=query, fragment="").geturl()


# -- how errors look


def error(status: int, message: str, fields: Mapping[str, Any]) -> bytes:
    """Return an error as A2A 1.0 writes it here, without the object around it.

    `{"code", "status", "message", "details": [ErrorInfo], "data"}`: `code` is the HTTP status, `data` what an error of
    ours has in JSON-RPC, and the details tell its `code` in capitals, as the reason.
    """
    info = {
        "@type": "type.googleapis.com/google.rpc.ErrorInfo",
        "reason": str(fields["code"]).upper(),
        "domain": DOMAIN,
        "metadata": {name: _text(value) for name, value in fields.items() if value is not None},
    }
    name = _STATUSES.get(status, "UNKNOWN")
    return orjson.dumps({"code": status, "status": name, "message": message, "details": [info], "data": dict(fields)})


def _text(value: Any) -> str:
    return value if isinstance(value, str) else orjson.dumps(value).decode()


def error_event(raw: bytes) -> bytes:
    """Return the event of an error."""
    return b'event: error\ndata: {"error":%b}\n\n' % raw


def is_no(said: Mapping[str, Any]) -> bool:
    """Return whether an answer says that its agent does not know the task, or cannot do that."""
    wrong = said.get("error")
    details = wrong.get("details") if isinstance(wrong, dict) else None
    return isinstance(details, list) and any(
        isinstance(one, dict) and isinstance(one.get("reason"), str) and one["reason"] in SAYS_NO for one in details
    )
