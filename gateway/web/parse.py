"""How requests come in: their bodies, ids and credentials, each checked once."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import parse_qsl, urlsplit

import orjson
from aiohttp import web
from pydantic import BaseModel, ValidationError

from events.event import CATALOGUE
from gateway.core import jsontext
from gateway.core.callers import Principal, find_credential
from gateway.core.clients import Network, client_address
from gateway.core.coding import unfold
from gateway.core.ids import find_uuid
from gateway.core.refusals import Code, Refusal, bad_field, invalid_credential, unknown_workspace
from gateway.ports import NoRoom
from gateway.services.room import Hold, Room
from gateway.web import keys

M = TypeVar("M", bound=BaseModel)

PRINCIPAL: Final[web.RequestKey[Principal]] = web.RequestKey("principal")
"""Where the middleware leaves who is asking."""
SESSION_COOKIE: Final = "a2a_session"
PUBLIC_ORIGIN: Final = web.AppKey("public_origin", str)
"""The origin of the gateway's public address; empty if it has none."""
MAX_SEARCH_CHARS: Final = 200
MAX_NAMED: Final = 1000
"""Workspaces that a reader may name."""
ROOM: Final = web.AppKey("room", Room)
"""What bodies may take, all together."""
HOLD: Final[web.RequestKey[Hold]] = web.RequestKey("hold")
"""What counts the bytes of a request that has a body; released when its answer has been written."""
UNPROVEN: Final[web.RequestKey[Refusal | None]] = web.RequestKey("unproven")
"""There if who asks has shown no good credential: then what to say of a body that is not small, None to say what is
wrong with it."""
SMALL_BYTES: Final = 4 * 1024
"""What is read of such a body: enough to learn that one's workspace is removed."""
LOGIN_BYTES: Final = 8 * 1024
"""What is read of it where nobody need show a credential: enough to log in with the longest token."""
PACE: Final = web.AppKey["Pace"]("pace")
PROVEN_S: Final = 1.0
"""If a body takes longer to come than a revoked token may be good for, it is asked once more whether it is."""
SETTLE_S: Final = 3.0
"""For how long a body may come more slowly than the slowest pace."""
TRUSTED_PROXIES: Final[web.AppKey[Sequence[Network]]] = web.AppKey("trusted_proxies")
"""Whose X-Forwarded-For is believed."""
_HOST: Final = re.compile(r"(?:[0-9A-Za-z._-]+|\[[0-9A-Fa-f:.]+\])(?::[0-9]{1,5})?")


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """How slowly a body may come: its last byte after `longest_s` seconds, and so many bytes a second on the way."""

    longest_s: float
    least_bytes_per_s: int


async def raw(request: web.Request) -> bytes:
    """Return the body; refuses one that is too large, comes too slowly, cannot be decoded, or does not fit any more."""
    try:
        return await (_small(request) if UNPROVEN in request else _whole(request))
    except TimeoutError:
        refused = Refusal(Code.BODY_TIMEOUT, "the request's body took too long to arrive")
    except NoRoom:
        refused = Refusal(Code.OVERLOADED, "too many bodies at once", retry_after_s=2)
    except web.RequestPayloadError:  # cut off
        refused = Refusal(Code.INVALID_REQUEST, "the body is not encoded as its headers say")
    except Refusal as found:
        refused = found
    raise request.get(UNPROVEN) or refused


async def _small(request: web.Request) -> bytes:
    """Return a body that takes nothing of the room, which strangers could fill: it is short, and comes soon."""
    coding, instead = request.headers.get("Content-Encoding", ""), request[UNPROVEN]
    limit_bytes = LOGIN_BYTES if instead is None else SMALL_BYTES
    if (request.content_length or 0) > limit_bytes:
        raise _too_large(limit_bytes)
    if coding and instead is not None:
        raise instead
    received = bytearray()
    async with asyncio.timeout(min(request.app[PACE].longest_s, SETTLE_S)):
        while chunk := await request.content.readany():
            received += chunk
            if len(received) > limit_bytes:
                raise _too_large(limit_bytes)
    return unfold(bytes(received), coding, limit_bytes=limit_bytes)


async def _whole(request: web.Request) -> bytes:
    """Return a body, counted."""
    hold = request[HOLD] = request.app[ROOM].hold()
    if (request.content_length or 0) > request.client_max_size:
        raise _too_large(request.client_max_size)
    if request.content.is_eof():
        received = request.content.read_nowait()  # all of it came with the headers, as nearly always
        hold.grow_by_request(len(received))
    else:
        began = asyncio.get_running_loop().time()
        received = await _arriving(request, hold)
        if asyncio.get_running_loop().time() - began > PROVEN_S:
            await check_still_good(request)
    if len(received) > request.client_max_size:
        raise _too_large(request.client_max_size)
    coding = request.headers.get("Content-Encoding")
    if coding is None:
        return received
    unfolded = unfold(received, coding, limit_bytes=request.client_max_size)
    hold.grow_by_request(len(unfolded))
    return unfolded


async def _arriving(request: web.Request, hold: Hold) -> bytes:
    """Return a body that is still to come; raises TimeoutError if it falls behind its pace."""
    pace, received = request.app[PACE], bytearray()
    began = asyncio.get_running_loop().time()
    async with asyncio.timeout_at(began + min(pace.longest_s, SETTLE_S)) as deadline:
        while chunk := await request.content.readany():
            hold.grow_by_request(len(chunk))
            received += chunk
            if len(received) > request.client_max_size:
                raise _too_large(request.client_max_size)
            within_s = min(pace.longest_s, SETTLE_S + len(received) / pace.least_bytes_per_s)
            deadline.reschedule(began + within_s)
    return bytes(received)


def _too_large(limit_bytes: int) -> Refusal:
    return Refusal(Code.TOO_LARGE, f"the body is larger than {limit_bytes} bytes")


async def body(request: web.Request, model: type[M], *, form: bool = False) -> M:
    """Return the JSON body as its model; refuses what does not fit, naming the field. form: a page's may do, too."""
    received = await raw(request)
    if form and request.content_type == "application/x-www-form-urlencoded":
        return _fitting(dict(parse_qsl(received.decode("utf-8", "replace"))), model)
    return read(received, model)


def read(received: bytes, model: type[M]) -> M:
    """Return what was received as its model; refuses what does not fit, naming the field."""
    return _fitting(_json(received), model)


def _fitting(value: object, model: type[M]) -> M:
    if not isinstance(value, dict):
        raise Refusal(Code.INVALID_REQUEST, "the body must be a JSON object")
    try:
        return model.model_validate(value)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        name = ".".join(str(part) for part in first["loc"])
        wrong = first["msg"].removeprefix("Value error, ")
        raise Refusal(Code.INVALID_REQUEST, f"{name}: {wrong}", field=name) from None


def _json(received: bytes) -> object:
    if jsontext.is_crowded(received):
        raise Refusal(Code.INVALID_REQUEST, f"the body has more than {jsontext.MAX_CROWD} arrays, objects or names")
    try:
        return orjson.loads(received)
    except orjson.JSONDecodeError:
        raise Refusal(Code.INVALID_REQUEST, "the body is not valid JSON") from None


def workspace_id(request: web.Request) -> str:
    """Return the workspace that the path names; what is no UUID is no workspace."""
    found = find_uuid(request.match_info["workspace_id"])
    if found is None:
        raise unknown_workspace()
    return found


def workspace_ids(request: web.Request) -> frozenset[str] | None:
    """Return the workspaces that the query names (`?workspace=` repeated), None if it names none."""
    named = request.query.getall("workspace", [])
    return ids("workspace", named) or None


def ids(name: str, named: Sequence[str]) -> frozenset[str]:
    """Return these as workspaces' ids; refuses what is none, and more than MAX_NAMED."""
    if len(named) > MAX_NAMED:
        raise bad_field(name, f"may have {MAX_NAMED} values at most")
    found = [find_uuid(one) for one in named]
    if None in found:
        raise bad_field(name, "must be a workspace's UUID")
    return frozenset(one for one in found if one is not None)


def event_types(request: web.Request) -> frozenset[str] | None:
    """Return the types of events that the query names (`?type=` repeated), None if it names none."""
    named = frozenset(request.query.getall("type", []))
    if not named <= CATALOGUE.keys():
        raise bad_field("type", f"must be one of {', '.join(sorted(CATALOGUE))}")
    return named or None


def last_event_id(request: web.Request) -> str | None:
    """Return the last id that a reader says it has seen, whatever it is; None from one that begins."""
    return request.headers.get("Last-Event-ID") or request.query.get("last_event_id") or None


def _single(request: web.Request, name: str) -> str | None:
    """The value of a header that says who asks; given twice, it says nothing."""
    values = request.headers.getall(name, [])
    if len(values) > 1:
        raise Refusal(Code.INVALID_CREDENTIAL, f"{name} is given more than once")
    return values[0] if values else None


def claimed(request: web.Request) -> str | None:
    """Return the X-Workspace-ID header."""
    return _single(request, "X-Workspace-ID")


def bearer(request: web.Request) -> str | None:
    """Return the bearer token, None without an Authorization header; refuses another scheme or an empty token."""
    header = _single(request, "Authorization")
    if header is None:
        return None
    scheme, _, token = header.partition(" ")
    token = token.strip()
    if scheme.lower() != "bearer" or not token:
        raise Refusal(Code.INVALID_CREDENTIAL, "Authorization must be a bearer token")
    return token


def is_own_origin(request: web.Request, origin: str) -> bool:
    """Return whether pages of this origin are this gateway's own."""
    public = request.app[PUBLIC_ORIGIN]
    if public and origin == public:
        return True
    try:
        return urlsplit(origin).netloc == request.host
    except ValueError:
        return False


def call_id(request: web.Request) -> str:
    """Return the call that the path names; what is no UUID is no call."""
    found = find_uuid(request.match_info["call_id"])
    if found is None:
        raise Refusal(Code.NOT_FOUND, "no such call")
    return found


def delegation_id(request: web.Request) -> str:
    """Return the delegation that the path names; what is no UUID is no delegation."""
    found = find_uuid(request.match_info["delegation_id"])
    if found is None:
        raise Refusal(Code.NOT_FOUND, "no such call")
    return found


def token_id(request: web.Request) -> str:
    """Return the token that the path names; what is no UUID is no token."""
    found = find_uuid(request.match_info["token_id"])
    if found is None:
        raise Refusal(Code.NOT_FOUND, "no such live token")
    return found


def search(request: web.Request) -> str:
    """Return what the query looks for (`?q=`), nothing without one; refuses what is too long or no text."""
    said = request.query.get("q", "")
    if len(said) > MAX_SEARCH_CHARS or not (said == "" or said.isprintable()):
        raise bad_field("q", f"must be one line of {MAX_SEARCH_CHARS} characters at most")
    return said


def flag(request: web.Request, name: str) -> bool:
    """Return a yes or no of the query, no without one; refuses what is neither."""
    said = request.query.get(name, "false").lower()
    if said not in ("true", "false", "1", "0"):
        raise bad_field(name, "must be true or false")
    return said in ("true", "1")


def base_url(request: web.Request) -> str:
    """Return the address under which the client reached us; refuses a Host header that is none."""
    if _HOST.fullmatch(request.host) is None:
        raise bad_field("Host", "must be a host, with a port if need be")
    return f"{request.scheme}://{request.host}"


def peer(request: web.Request) -> str:
    """Return the client's address, as far as it can be believed."""
    trusted = request.app[TRUSTED_PROXIES]
    forwarded_for = request.headers.getall("X-Forwarded-For", []) if trusted else []
    return client_address(request.remote, forwarded_for, trusted)


async def check_still_good(request: web.Request) -> None:
    """Refuse whose credential has been taken back, or has ended, since the request began."""
    shown = find_credential(principal(request))
    if shown is not None and not await request.app[keys.IDENTITY].is_good(shown):
        raise invalid_credential()


def principal(request: web.Request) -> Principal:
    """Return who is asking, as the middleware has found out."""
    return request[PRINCIPAL]
