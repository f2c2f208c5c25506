"""What the gateway refuses, and the stable code of each refusal."""

from enum import StrEnum
from typing import Any


class Code(StrEnum):
    """The stable codes of refusals; `web/refusals.py` gives each its HTTP status (a test walks both)."""

    INVALID_REQUEST = "invalid_request"
    INVALID_CREDENTIAL = "invalid_credential"
    CREDENTIAL_REQUIRED = "credential_required"
    NOT_ALLOWED = "not_allowed"
    FORGED_CALLER = "invalid_caller"
    CANNOT_COMMUNICATE = "cannot_communicate"
    BUDGET_EXCEEDED = "budget_exceeded"
    CROSS_SITE = "cross_site"
    CONFIRMATION_REQUIRED = "confirmation_required"
    NOT_FOUND = "not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    BODY_TIMEOUT = "body_timeout"
    REMOVED = "removed"
    EXPIRED = "expired"
    CURSOR_GONE = "cursor_gone"
    NO_STREAM = "no_stream"
    CALL_ENDED = "call_ended"
    CALL_UNDER_WAY = "call_under_way"
    MESSAGE_ID_REUSED = "message_id_reused"
    ALREADY_COMPLETED = "already_completed"
    TOO_LARGE = "too_large"
    UNKNOWN_CODING = "unknown_coding"
    TOO_MANY_TOKENS = "too_many_tokens"
    RATE_LIMITED = "rate_limited"
    TOO_DEEP = "too_deep"
    UNSAFE_URL = "unsafe_url"
    NO_URL = "no_url"
    OVERLOADED = "overloaded"
    INBOX_FULL = "inbox_full"
    DRAINING = "draining"
    INTERRUPTED = "interrupted"
    PLATFORM_UNAVAILABLE = "platform_unavailable"
    INTERNAL = "internal"


class Refusal(Exception):
    """A refusal: a sentence for people, a stable code for programs, and what else the contract shows beside them."""

    def __init__(self, code: Code, sentence: str, *, retry_after_s: int | None = None, **fields: Any) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.retry_after_s = retry_after_s
        self.fields = fields

    def to_json(self) -> dict[str, Any]:
        """Return the body: `error` and `code`, then the fields."""
        return {"error": self.sentence, "code": self.code.value, **self.fields}


def bad_field(name: str, wrong: str) -> Refusal:
    """Refuse a request because of one field: `name: what is wrong with it`."""
    return Refusal(Code.INVALID_REQUEST, f"{name}: {wrong}", field=name)


def unknown_workspace() -> Refusal:
    """Refuse because there is no such workspace, or none that this caller may know of."""
    return Refusal(Code.NOT_FOUND, "workspace not found")


def platform_unavailable() -> Refusal:
    """Refuse because a datastore that must be asked does not answer."""
    return Refusal(Code.PLATFORM_UNAVAILABLE, "the platform is temporarily unavailable", retry_after_s=5)


def credential_required() -> Refusal:
    """Refuse because nobody said who they are."""
    return Refusal(Code.CREDENTIAL_REQUIRED, "a bearer token is required")


def invalid_credential() -> Refusal:
    """Refuse because a token is unknown, revoked, or of a removed workspace."""
    return Refusal(Code.INVALID_CREDENTIAL, "invalid or revoked token")


def not_allowed() -> Refusal:
    """Refuse because this credential may not do this."""
    return Refusal(Code.NOT_ALLOWED, "this credential may not do that")


def no_url(status: str) -> Refusal:
    """Refuse because nobody has said where a workspace's agent listens; `status` is the workspace's."""
    return Refusal(Code.NO_URL, "workspace has no URL", retry_after_s=15, status=status)


def not_routable() -> Refusal:
    """Refuse because a workspace's url must not be called; why is for the log alone."""
    return Refusal(Code.UNSAFE_URL, "workspace URL is not publicly routable")
