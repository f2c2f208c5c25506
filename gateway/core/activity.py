"""What stands in a history, and what of it people want to see at once."""

from typing import Any, Final, Literal, get_args

ActivityType = Literal[
    "a2a_send", "a2a_receive", "task_update", "agent_log", "skill_promotion", "memory_write", "error"
]  # fmt: skip
"""The types of rows; the database's CHECK holds the same words (a test compares them)."""
TYPES: Final[tuple[str, ...]] = get_args(ActivityType)
MOST_TEXT: Final = 2000
"""Characters of a message's text that are shown beside its row."""


def source(source_id: str | None) -> str:
    """Return who is behind a row: a person (`canvas`) or an agent."""
    return "canvas" if source_id is None else "agent"


def peer_id(workspace_id: str, source_id: str | None, target_id: str | None) -> str | None:
    """Return the other workspace of a row, None if there is none."""
    other = source_id if source_id != workspace_id else target_id
    return None if other == workspace_id else other


def text(request_body: Any) -> str | None:
    """Return what a message says, its text parts joined by newlines; None where that is not to be seen."""
    match request_body:
        case {"params": {"message": {"parts": list(parts)}}}:
            said = [part["text"] for part in parts if isinstance(part, dict) and isinstance(part.get("text"), str)]
            return "\n".join(said)[:MOST_TEXT] if said else None
        case _:
            return None
