"""An A2A v0.3 task: a frozen value that ends once."""

from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from runtime.jsonrpc import JsonObject
from runtime.message import Incoming, agent_message, new_id, text_part


class State(StrEnum):
    """The task states this kit uses; all but WORKING are final."""

    WORKING = "working"
    COMPLETED = "completed"
    CANCELED = "canceled"
    FAILED = "failed"


@dataclass(frozen=True, kw_only=True)
class Task:
    """Work with an id: it is WORKING until `ended` makes another value of it. Times are UTC.

    `text` is its answer once it is COMPLETED; before, and when it ends otherwise, what was said on the way there.
    """

    id: str
    context_id: str
    title: str
    state: State
    changed_at: datetime
    history: tuple[JsonObject, ...]
    artifact_id: str
    text: str = ""
    explanation: JsonObject | None = None

    @classmethod
    def begun(cls, incoming: Incoming, *, title: str, at: datetime) -> Self:
        """The task that a message starts; the message is the first of its history."""
        task_id = new_id()
        return cls(
            id=task_id,
            context_id=incoming.context_id,
            title=title,
            state=State.WORKING,
            changed_at=at,
            history=({**incoming.original, "taskId": task_id},),
            artifact_id=new_id(),
        )

    def telling(self, text: str) -> Self:
        """The same task while it works, with what it has said so far."""
        return replace(self, text=text)

    def ended(self, state: State, *, text: str, at: datetime) -> "Task":
        """The same task in a final state: `text` is its answer when COMPLETED, else the status' explanation.

        Raises ValueError when the task had ended before, or `state` is not final.
        """
        if self.state is not State.WORKING or state is State.WORKING:
            raise ValueError(f"a task cannot go from {self.state} to {state}")
        if state is State.COMPLETED:
            return replace(self, state=state, changed_at=at, text=text)
        explanation = agent_message(text, context_id=self.context_id, task_id=self.id)
        return replace(self, state=state, changed_at=at, explanation=explanation)

    def artifact(self, text: str) -> JsonObject:
        """The Artifact of a task's answer, with this text: a task has no other."""
        return {"artifactId": self.artifact_id, "name": "answer", "parts": [text_part(text)]}

    def status(self) -> JsonObject:
        """The TaskStatus object of the specification."""
        timestamp = self.changed_at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        status: JsonObject = {"state": self.state.value, "timestamp": timestamp}
        if self.explanation is not None:
            status["message"] = self.explanation
        return status

    def to_json(self, *, history_length: int | None = None) -> JsonObject:
        """The Task object of the specification, with the last `history_length` messages, or all of them."""
        kept = len(self.history) if history_length is None else min(history_length, len(self.history))
        has_artifact = self.text or self.state is State.COMPLETED
        return {
            "kind": "task",
            "id": self.id,
            "contextId": self.context_id,
            "status": self.status(),
            "artifacts": [self.artifact(self.text)] if has_artifact else [],
            "history": list(self.history[len(self.history) - kept :]),
        }
