"""What every request passes: an id, the check of who may, and an answer for whatever goes wrong."""

import ipaddress
from collections.abc import Mapping
from http import HTTPStatus
from typing import Final, assert_never
from urllib.parse import urlsplit

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware
from multidict import CIMultiDict

from gateway.core.callers import (
    Admin,
    Anonymous,
    Credential,
    Holder,
    Local,
    Member,
    Principal,
    Proof,
    Stranger,
    System,
    find_credential,
)
from gateway.core.ids import is_sane_request_id, new_id
from gateway.core.rates import Tariff
from gateway.core.refusals import Code, Refusal, credential_required, invalid_credential, not_allowed
from gateway.services.identity import BEAT_STALE_S, CALL_STALE_S
from gateway.services.tolls import Toll, of_address, of_credential, of_workspace
from gateway.web import forwarded, keys, parse, render
from gateway.web.routes import Route, Scope

log = structlog.get_logger("gateway.web")

SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
LOOPBACK_NAMES: Final = frozenset({"localhost", "127.0.0.1", "::1"})
TRANSPORT_SECURITY: Final = "max-age=31536000"
"""For browsers that reach us by TLS: never without it for a year (RFC 6797)."""
SERVER: Final = "a2a-gateway"
"""What we say we are: not of what we are made, nor how old it is."""
SECURITY_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}


def guard(routes: Mapping[Handler, Route]) -> Middleware:
    """Return the middleware; `routes` finds the row of a handler."""

    unnamed = forwarded.Unnamed()

    @web.middleware
    async def guarded(request: web.Request, handler: Handler) -> web.StreamResponse:
        claimed = request.headers.get("X-Request-ID", "")
        request[keys.REQUEST_ID] = claimed if is_sane_request_id(claimed) else new_id()
        request[keys.CALL_ID] = ""
        unnamed.note(request)
        try:
            route = routes.get(request.match_info.handler)
            if route is not None:
                if route.a2a:
                    request[keys.CALL_ID] = new_id()
                await _let_in(request, route)
            return await handler(request)
        except Refusal as refused:
            if request[keys.CALL_ID]:  # it may be about an earlier call, which can be explained
                request[keys.CALL_ID] = refused.fields.get("call_id", request[keys.CALL_ID])
            return render.refusal(await _counted(request, refused))
        except web.HTTPException as error:
            return _translated(error)
        except ConnectionError:
            raise  # the client is gone: there is nobody to answer
        except Exception:  # not a refusal, so a bug: logged with its trace, and nothing of it shown
            log.exception("request_broke", method=request.method, request_id=request[keys.REQUEST_ID])
            return render.refusal(Refusal(Code.INTERNAL, "internal error"))

    return guarded


async def _let_in(request: web.Request, route: Route) -> None:
    """Find out who asks, take what the request costs, and refuse who may not use this route."""
    tolls, identity = request.app[keys.TOLLS], request.app[keys.IDENTITY]
    if route.scope is Scope.EVERYBODY:
        request[parse.UNPROVEN] = None
        request[keys.TOLL] = Toll(route.tariff, of_address(parse.peer(request)))
        await tolls.take(request[keys.TOLL])
        return
    stale_s = BEAT_STALE_S if route.scope is Scope.RUNTIME else CALL_STALE_S
    bearer, session = parse.bearer(request), request.cookies.get(parse.SESSION_COOKIE)
    if not identity.knows(bearer, session):
        tolls.check(_failure(request))
    principal = await identity.tell(bearer, session, stale_s=stale_s)
    if isinstance(principal, Local) and not _is_local(request):
        principal = Anonymous()
    shown = find_credential(principal)
    if shown is not None and shown.proof is Proof.SESSION:
        _check_same_site(request, route)
    request[parse.PRINCIPAL] = principal
    toll = request[keys.TOLL] = _toll(request, route, principal)
    unknown = isinstance(principal, Anonymous | Stranger) and route.scope is not Scope.RUNTIME
    if route.tariff is not Tariff.CALL and not unknown:  # a call's is taken with all else that it needs of Redis
        await tolls.take(toll)
    match route.scope:
        case Scope.RUNTIME:
            _note_unproven(request, principal)
        case Scope.CALLER | Scope.PARTY:
            _check_known(principal)  # before anything is read of what somebody sends
        case Scope.INSPECTOR:
            if not _on_this_machine(request):
                _check_member(principal)
        case Scope.MEMBER:
            _check_member(principal)
        case Scope.OPERATOR:
            _check_operator(principal)
        case Scope.TESTER:
            _check_tester(request, principal)
        case Scope.VIEWER | Scope.ASKER:
            if not isinstance(principal, Holder):
                _check_member(principal)
        case Scope.OWNER:
            if not isinstance(principal, Holder):
                _check_member(principal)
            elif principal.workspace_id != parse.workspace_id(request):
                raise not_allowed()
        case Scope.NEIGHBOUR:
            if not isinstance(principal, Holder):
                _check_member(principal)
            elif not await request.app[keys.ADMISSION].may_talk(principal.workspace_id, parse.workspace_id(request)):
                raise not_allowed()
        case never:
            assert_never(never)


def _toll(request: web.Request, route: Route, principal: Principal) -> Toll:
    """What a request pays: out of its credential's bucket, or else its address's."""
    match principal:
        case Local():
            return Toll(route.tariff, "local", free=True)
        case Admin(credential=None):
            return Toll(Tariff.REQUEST if route.tariff is Tariff.STRICT else route.tariff, "admin")
        case Admin(credential=Credential(hash=key)) | Member(credential=Credential(hash=key)):
            return Toll(route.tariff, of_credential(key))
        case Holder(workspace_id=workspace_id):
            return Toll(route.tariff, of_workspace(workspace_id))
        case _:
            return Toll(route.tariff, of_address(parse.peer(request)))


def _failure(request: web.Request) -> Toll:
    return Toll(Tariff.FAILURE, of_address(parse.peer(request)))


async def _counted(request: web.Request, refused: Refusal) -> Refusal:
    """Take what is owed: for a call that was refused before it was paid, and by who could show no good credential.

    Return what is to be said of it.
    """
    tolls, toll = request.app[keys.TOLLS], request.get(keys.TOLL)
    try:
        if toll is not None and toll.tariff is Tariff.CALL and toll.standing is None and _is_known(request):
            await tolls.take(toll)
        if refused.code in (Code.INVALID_CREDENTIAL, Code.CREDENTIAL_REQUIRED):
            await tolls.take(_failure(request))
    except Refusal as too_many:
        return too_many
    return refused


def _is_known(request: web.Request) -> bool:
    return not isinstance(request.get(parse.PRINCIPAL), Anonymous | Stranger | None)


def _is_local(request: web.Request) -> bool:
    """Whether a request without a credential was meant for this machine by somebody on it.

    A page of another site can make the browser of whoever runs `dev` send requests here: by their Origin they are told,
    and by their Host where the site's own name was made to lead to loopback (DNS rebinding). What a proxy here
    passes on was meant for the proxy.
    """
    if forwarded.is_passed_on(request):
        return False
    origin = request.headers.get("Origin")
    hosts = [f"//{request.host}", *([origin] if origin is not None else [])]
    return all(_hostname(host) in LOOPBACK_NAMES for host in hosts)


def _hostname(url: str) -> str | None:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None


def _check_known(principal: Principal) -> None:
    match principal:
        case Stranger():
            raise invalid_credential()
        case Anonymous():
            raise credential_required()


def _note_unproven(request: web.Request, principal: Principal) -> None:
    """The body says which workspace it is about, and so what to answer: of whoever may do nothing only a small one."""
    match principal:
        case Stranger():
            request[parse.UNPROVEN] = invalid_credential()
        case Anonymous() if not request.app[keys.REGISTRY].tokenless:
            request[parse.UNPROVEN] = credential_required()


def _check_member(principal: Principal) -> None:
    if not isinstance(principal, Member):
        _check_operator(principal)


def _check_operator(principal: Principal) -> None:
    match principal:
        case Admin() | Local():
            return
        case Holder() | Member() | System():
            raise not_allowed()
        case Stranger():
            raise invalid_credential()
        case Anonymous():
            raise credential_required()
        case never:
            assert_never(never)


def _check_tester(request: web.Request, principal: Principal) -> None:
    """Where tokens for tests are given out: to whoever shows exactly ADMIN_TOKEN, or is here in an open `dev`."""
    if not request.app[keys.TEST_TOKENS]:
        raise Refusal(Code.NOT_FOUND, "no such route")
    match principal:
        case Local():
            return
        case Admin(credential=None):
            return
        case Anonymous():
            raise credential_required()
        case _:
            raise invalid_credential()


def _check_same_site(request: web.Request, route: Route) -> None:
    """A cookie is sent by whatever page makes the browser ask: what changes something must come from one of ours.

    That is told by the Origin, or else by Sec-Fetch-Site; a request with neither is no browser's of today.
    """
    socket = route.status == HTTPStatus.SWITCHING_PROTOCOLS
    if request.method in SAFE_METHODS and not socket and not route.plain:  # which calls an agent
        return
    origin = request.headers.get("Origin")
    if origin is None:
        if not socket and request.headers.get("Sec-Fetch-Site") in ("same-origin", "none"):
            return
    elif parse.is_own_origin(request, origin) or request.app[keys.CROSS_ORIGIN].allows(origin):
        return
    raise Refusal(Code.CROSS_SITE, "a page of another site may not do this with your session")


def _on_this_machine(request: web.Request) -> bool:
    try:
        return ipaddress.ip_address(parse.peer(request)).is_loopback and not forwarded.is_passed_on(request)
    except ValueError:
        return False


def _translated(error: web.HTTPException) -> web.Response:
    """aiohttp's own answers, in our form."""
    match error:
        case web.HTTPMethodNotAllowed():
            response = render.refusal(Refusal(Code.METHOD_NOT_ALLOWED, "method not allowed"))
            response.headers["Allow"] = error.headers["Allow"]
            return response
        case web.HTTPNotFound():
            return render.refusal(Refusal(Code.NOT_FOUND, "no such route"))
        case web.HTTPRequestEntityTooLarge():
            return render.refusal(Refusal(Code.TOO_LARGE, "the body is too large"))
        case _:
            sentence = error.reason or "bad request"
            return render.json({"error": sentence, "code": Code.INVALID_REQUEST.value}, status=error.status)


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Put on every answer what every answer has (a signal: it sees streams too)."""
    headers: CIMultiDict[str] = response.headers
    for name, value in SECURITY_HEADERS.items():
        headers.setdefault(name, value)
    if request.app[parse.PUBLIC_ORIGIN].startswith("https:"):
        headers["Strict-Transport-Security"] = TRANSPORT_SECURITY
    headers["Server"] = SERVER
    headers["X-Request-ID"] = request.get(keys.REQUEST_ID) or new_id()
    toll = request.get(keys.TOLL)
    if toll is not None and toll.standing is not None:
        headers.update(toll.standing.headers())
    call_id = request.get(keys.CALL_ID)
    if call_id:
        headers["X-A2A-Call-ID"] = call_id
