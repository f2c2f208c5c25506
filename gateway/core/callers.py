"""Who is asking, and who is calling."""

from dataclasses import dataclass
from typing import Final

SYSTEM_PREFIXES: Final = ("webhook:", "system:", "channel:", "test:")
"""Callers inside the process; a request that claims to be one of them is forged."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Anonymous:
    """Nobody said who they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stranger:
    """Somebody whose token is unknown, revoked, or of a removed workspace."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Local:
    """A browser or runtime on this very machine, let in by `dev` without a credential."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Admin:
    """The operator: bearer equal to ADMIN_TOKEN."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """A workspace, by its token."""

    workspace_id: str


Principal = Anonymous | Stranger | Local | Admin | Holder


def is_forged(claimed: str) -> bool:
    """Return whether an X-Workspace-ID claims to be a caller inside the process."""
    return claimed.startswith(SYSTEM_PREFIXES)
