"""Who is asking, and who is calling."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

SYSTEM_PREFIXES: Final = ("webhook:", "system:", "channel:", "test:")
"""Callers inside the process; a request that claims to be one of them is forged."""


class Proof(StrEnum):
    """What somebody has shown; the values are the kinds under which changes of it are listed."""

    TOKEN = "token"  # noqa: S105 - a word, no secret
    SESSION = "session"


@dataclass(frozen=True, kw_only=True, slots=True)
class Credential:
    """What was shown, by its hash, and when it ends by itself (on the monotonic clock); None: it does not."""

    proof: Proof
    hash: bytes = field(repr=False)
    until: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Anonymous:
    """Nobody said who they are."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stranger:
    """Somebody whose token is unknown, revoked, or of a removed workspace, or whose session has ended."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Local:
    """A browser or runtime on this very machine, let in by `dev` without a credential."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Admin:
    """The operator: by the bearer that equals ADMIN_TOKEN, or in a browser's session that it has opened."""

    credential: Credential | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """Somebody of the organisation: by one of its tokens, or in a browser's session that one has opened."""

    credential: Credential | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class Holder:
    """A workspace, by its token."""

    workspace_id: str
    credential: Credential | None = field(default=None, compare=False)


@dataclass(frozen=True, kw_only=True, slots=True)
class System:
    """A caller inside the process, such as a webhook's; no request can become one. `kind` is one of SYSTEM_PREFIXES."""

    kind: str
    name: str

    def __post_init__(self) -> None:
        if self.kind not in SYSTEM_PREFIXES:
            raise ValueError(f"{self.kind!r} is no kind of system caller")


Principal = Anonymous | Stranger | Local | Admin | Member | Holder | System


def is_forged(claimed: str) -> bool:
    """Return whether an X-Workspace-ID claims to be a caller inside the process."""
    return claimed.startswith(SYSTEM_PREFIXES)


def find_credential(principal: Principal) -> Credential | None:
    """Return what this one has shown, None where that is nothing that could end."""
    match principal:
        case Admin(credential=shown) | Member(credential=shown) | Holder(credential=shown):
            return shown
        case _:
            return None
