"""The web application, empty of services: its middleware, its routes, and what the settings say of them."""

from importlib.metadata import version
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web

from gateway.settings import Settings
from gateway.web import guard, keys, openapi, parse, protocol
from gateway.web.cors import CrossOrigin
from gateway.web.routes import ROUTES

OPERATION: Final = r"{operation:(?!calls/|queue$|queue/|\.well-known/).+}"
"""A path of an agent's, with slashes: not one of ours that asks by another verb."""


def site(settings: Settings, cross_origin: CrossOrigin) -> web.Application:
    """Return an application that finds its services under the keys of `web/keys.py`, once they have been put there."""
    application = web.Application(
        middlewares=[cross_origin.middleware, guard.guard({route.handler: route for route in ROUTES})],
        client_max_size=settings.max_request_bytes,
    )
    application.on_response_prepare.append(guard.add_headers)
    application.on_response_prepare.append(cross_origin.add_headers)
    application[keys.TEST_TOKENS] = settings.enable_test_tokens
    application[keys.CROSS_ORIGIN] = cross_origin
    application[keys.PUBLIC_URL] = settings.public_url or ""
    application[parse.PUBLIC_ORIGIN] = _origin(settings.public_url)
    application[keys.OPENAPI] = openapi.document(ROUTES, version=version("a2a-gateway"))
    application[parse.PACE] = parse.Pace(longest_s=settings.body_timeout_s, least_bytes_per_s=settings.body_pace)
    application[parse.TRUSTED_PROXIES] = settings.trusted_proxies
    for route in sorted(ROUTES, key=lambda one: not one.rpc):  # the router looks through them in turn
        path = route.path.replace("{operation}", OPERATION)
        application.router.add_route(route.method, path, route.handler, expect_handler=protocol.expect)
    return application


def _origin(url: str | None) -> str:
    parts = urlsplit(url or "")
    return f"{parts.scheme}://{parts.netloc}" if parts.netloc else ""
