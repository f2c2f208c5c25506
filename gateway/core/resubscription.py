"""Whether an agent can go on with the stream of a task, and whose stream is the same."""

from typing import Final

from gateway.core import http_json, jsontext
from gateway.core.answers import Answer
from gateway.core.endings import Ending
from gateway.core.streams import READ_BYTES, TASK_ID_CHARS


def says_no(answer: Answer) -> bool:
    """Return whether an agent that was asked for the rest of a task's stream cannot give it: it does not know the task
    or the method, or is not there."""
    if answer.status in STATUS_SAYS_NO or is_no(answer.body):
        return True
    return answer.status in _STATUS_NOT_THERE and jsontext.find_object(answer.body).get("code") in _NOT_THERE


def is_no(data: bytes) -> bool:
    """Return whether an answer says that its agent does not know the task, or cannot do that."""
    said = {} if len(data) > READ_BYTES or jsontext.is_crowded(data) else jsontext.find_object(data)
    error = said.get("error")
    return (isinstance(error, dict) and error.get("code") in _ERRORS_SAY_NO) or http_json.is_no(said)


_STATUS_NOT_THERE: Final = frozenset({502, 503, 504})
STATUS_SAYS_NO: Final = frozenset({404, 405, 501})
_ERRORS_SAY_NO: Final = frozenset({-32601, -32001, -32004, -32009})
"""Method not found, task not found, unsupported operation, version not supported."""
_NOT_THERE: Final = frozenset(
    ending.value
    for ending in (
        Ending.AGENT_ERROR,
        Ending.AGENT_BUSY,
        Ending.AGENT_UNREACHABLE,
        Ending.AGENT_RESTARTING,
        Ending.AGENT_RESET,
        Ending.FIRST_BYTE_TIMEOUT,
        Ending.IDLE_TIMEOUT,
        Ending.TRUNCATED,
    )
)


def find_task(body: bytes) -> str | None:
    """Return the task that a request is about, None if it names none."""
    params = None if len(body) > READ_BYTES or jsontext.is_crowded(body) else jsontext.find_object(body).get("params")
    named = params.get("id", params.get("name")) if isinstance(params, dict) else None
    if not isinstance(named, str):
        return None
    task_id = named.removeprefix("tasks/")
    return task_id if 0 < len(task_id) <= TASK_ID_CHARS else None


def is_one_language(method: str, other: str) -> bool:
    """Return whether the events of both methods look the same: before A2A 1.0 they have slashes, and those of HTTP+JSON
    have colons."""
    return ("/" in method) == ("/" in other) and (":" in method) == (":" in other)
