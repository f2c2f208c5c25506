"""Where a message goes next: out to the agent, or nowhere, and why."""

from dataclasses import dataclass
from typing import assert_never

from gateway.core import address
from gateway.core.workspaces import Status, Workspace


@dataclass(frozen=True, kw_only=True, slots=True)
class Push:
    """Out, to this url; its name is resolved and checked when the connection is made."""

    url: str


@dataclass(frozen=True, kw_only=True, slots=True)
class NoUrl:
    """Nowhere: nobody has said where the agent listens."""

    status: Status


@dataclass(frozen=True, kw_only=True, slots=True)
class UnsafeUrl:
    """Nowhere: the url must not be reached from here."""

    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Gone:
    """Nowhere, ever again."""


Decision = Push | NoUrl | UnsafeUrl | Gone


def decide(workspace: Workspace, reach: address.Reach) -> Decision:
    """Return where a message for this workspace goes."""
    if workspace.removed:
        return Gone()
    if not workspace.url:
        return NoUrl(status=workspace.status)
    match address.check_url(workspace.url, reach):
        case address.Safe():
            return Push(url=workspace.url)
        case address.Unsafe(reason=reason):
            return UnsafeUrl(reason=reason)
        case never:
            assert_never(never)
