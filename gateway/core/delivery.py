"""Where a message goes next: out to the agent, into its inbox, or nowhere, and why."""

from dataclasses import dataclass
from enum import StrEnum
from typing import assert_never

from gateway.core import address
from gateway.core.workspaces import Status, Workspace


class Mode(StrEnum):
    """How an agent gets its messages; the database's CHECK holds the same words."""

    PUSH = "push"
    POLL = "poll"


@dataclass(frozen=True, kw_only=True, slots=True)
class Park:
    """Into its inbox: the agent polls."""


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


Decision = Park | Push | NoUrl | UnsafeUrl | Gone


def find_mode(workspace: Workspace) -> Mode | None:
    """Return how it says that it gets its messages, None where that is not said or no word that is known here.

    Then it counts as push, which loses nothing: what cannot be delivered is told at once.
    """
    try:
        return Mode(workspace.delivery_mode or "")
    except ValueError:
        return None


def decide_registered(said: str | None, known: Workspace | None, url: str | None) -> Mode:
    """Return the mode after a register: what it says, else what is stored, else what suits who runs the agent.

    An agent that names a url wants to be called there.
    """
    if said is not None:
        return Mode(said)
    stored = None if known is None else find_mode(known)
    if stored is not None:
        return stored
    return Mode.POLL if known is not None and known.external and not url else Mode.PUSH


def decide(workspace: Workspace, reach: address.Reach) -> Decision:
    """Return where a message for this workspace goes."""
    if workspace.removed:
        return Gone()
    if find_mode(workspace) is Mode.POLL:
        return Park()
    if not workspace.url:
        return NoUrl(status=workspace.status)
    match address.check_url(workspace.url, reach):
        case address.Safe():
            return Push(url=workspace.url)
        case address.Unsafe(reason=reason):
            return UnsafeUrl(reason=reason)
        case never:
            assert_never(never)
