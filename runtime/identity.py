"""Who this agent is, kept in a file that only its user can read and that is never half written."""

import os
import uuid
from dataclasses import asdict, dataclass, field
from pathlib import Path

import orjson


class IdentityError(Exception):
    """The state folder does not hold what it should; the sentence names the path."""


@dataclass(frozen=True, kw_only=True)
class Identity:
    """A workspace id (UUID), its bearer token, and the secret its gateway sends to `/internal` routes."""

    workspace_id: str
    token: str | None = field(default=None, repr=False)
    inbound_secret: str | None = field(default=None, repr=False)


def path_of(state_dir: Path, workspace_id: str) -> Path:
    """Where the identity of a workspace is kept: one file per workspace."""
    return state_dir / f"{workspace_id}.json"


def find_identity(state_dir: Path, workspace_id: str | None) -> Identity | None:
    """The kept identity of a workspace; with None, of the only workspace in the folder.

    Raises IdentityError for a file that cannot be read, and for None where the folder holds several.
    """
    if workspace_id is not None:
        return _find(path_of(state_dir, workspace_id))
    kept = sorted(path for path in state_dir.glob("*.json") if _is_uuid(path.stem))
    if len(kept) > 1:
        raise IdentityError(f"{state_dir} keeps {len(kept)} workspaces: set WORKSPACE_ID to one of their ids")
    return _find(kept[0]) if kept else None


def keep_identity(state_dir: Path, identity: Identity) -> None:
    """Write the identity with mode 0600: after a crash the file is the old one or the new one. Blocks on fsync."""
    path = path_of(state_dir, identity.workspace_id)
    draft = path.with_suffix(f".{os.getpid()}.tmp")
    try:
        state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        draft.unlink(missing_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(orjson.dumps(asdict(identity)))
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
        _sync_folder(state_dir)
    except OSError as error:
        raise IdentityError(f"{path} cannot be written: {error.strerror}") from error


def _find(path: Path) -> Identity | None:
    try:
        kept = orjson.loads(path.read_bytes())
        identity = Identity(
            workspace_id=kept["workspace_id"], token=kept["token"], inbound_secret=kept["inbound_secret"]
        )
    except FileNotFoundError:
        return None
    except OSError as error:
        raise IdentityError(f"{path} cannot be read: {error.strerror}") from error
    except (ValueError, TypeError, KeyError) as error:
        raise IdentityError(f"{path} is not an identity file: move it away to start with a new identity") from error
    if identity.workspace_id != path.stem:
        raise IdentityError(f"{path} holds the identity of another workspace")
    return identity


def _is_uuid(text: str) -> bool:
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
