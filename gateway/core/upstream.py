"""What becomes of an event that an agent serves itself: an AGENT_EVENT, or one of ours where a setting allows it."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.core import views
from gateway.core.sse import ServerEvent

AGENT_EVENT: Final = "AGENT_EVENT"
HIDDEN: Final = "(hidden)"
TYPE_CHARS: Final = 200
TASK_CHARS: Final = 4096


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 2**31


def _is_task(value: Any) -> bool:
    return isinstance(value, str) and len(value) <= TASK_CHARS


def _is_list(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, dict) for one in value)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Shape:
    """The fields that an event of a kind may have; those `needed` it must have. All else is left out."""

    fields: Mapping[str, Callable[[Any], bool]]
    needed: frozenset[str]


_SHAPES: Final[Mapping[str, _Shape]] = {
    "AGENT_MESSAGE": _Shape(fields={"message": _is_text, "attachments": _is_list}, needed=frozenset({"message"})),
    "TASK_UPDATED": _Shape(
        fields={"current_task": _is_task, "active_tasks": _is_count},
        needed=frozenset({"current_task", "active_tasks"}),
    ),
}
KEEPABLE: Final = frozenset(_SHAPES)
"""What an agent may tell in our own words: nothing that says what the gateway, or somebody else, has done."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """An event as it goes onto the bus."""

    type: str
    data: dict[str, Any]


def told(came: ServerEvent, workspace_id: str, *, keeps: Collection[str], secret: str | None) -> Told:
    """Return what is told of an event that came from this workspace's agent, whatever it claims to be from.

    keeps: the types of KEEPABLE that stay what they are if their data is what we say ourselves. secret: what we show to
    the agent; it is told to nobody, though the agent may repeat it.
    """
    name, text = came.type, came.data
    if secret:
        name, text = name.replace(secret, HIDDEN), text.replace(secret.encode(), HIDDEN.encode())
    type_, data = _open(name, text)
    shape = _SHAPES.get(type_) if type_ in keeps else None
    if shape is not None and isinstance(data, dict):
        kept = {name: data[name] for name, good in shape.fields.items() if name in data and good(data[name])}
        if shape.needed <= kept.keys():
            return Told(type=type_, data=kept | ({"workspace_id": workspace_id} if type_ == "AGENT_MESSAGE" else {}))
    return Told(type=AGENT_EVENT, data={"type": type_, "data": data})


def _open(type_: str, text: bytes) -> tuple[str, Any]:
    """Return an event's type and data: those of its envelope if it has one (`type`, and `data` beside it)."""
    parsed = views.parse(text)
    if parsed is None and text.strip() != b"null":
        return _short(type_), text.decode("utf-8", "replace")
    if isinstance(parsed, dict) and isinstance(parsed.get("type"), str):
        return _short(parsed["type"]), parsed.get("data", parsed)
    return _short(type_), parsed


def _short(type_: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in type_[:TYPE_CHARS])
