"""Where the gateway may go: a url that somebody names is refused with the reason, one that is stored without it."""

from typing import assert_never

import structlog

from gateway.core import address, delivery
from gateway.core.refusals import bad_field, no_url, not_routable
from gateway.core.workspaces import Workspace
from gateway.services.directory import removed

log = structlog.get_logger("gateway.reach")


def safe_url(url: str, reach: address.Reach, *, field: str = "url") -> str:
    """Return the url if it may be called; refuses the field that named it, with the reason."""
    match address.check_url(url, reach):
        case address.Safe():
            return url
        case address.Unsafe(reason=reason):
            raise bad_field(field, reason)
        case never:
            assert_never(never)


def get_url(workspace: Workspace, reach: address.Reach) -> str:
    """Return where a workspace's agent is called; refuses with removed, no_url, or unsafe_url and no reason."""
    match delivery.decide(workspace, reach):
        case delivery.Push(url=url):
            return url
        case delivery.Park():  # nobody calls an agent that polls, whatever url it may have
            raise no_url(workspace.status.value)
        case delivery.NoUrl(status=status):
            raise no_url(status.value)
        case delivery.UnsafeUrl(reason=reason):
            log.warning("unsafe_url", workspace_id=workspace.id, reason=reason)
            raise not_routable()
        case delivery.Gone():
            raise removed(workspace)
        case never:
            assert_never(never)
