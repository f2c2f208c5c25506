"""The tasks an agent remembers: all that run, and the latest that ended within a bound."""

from collections import OrderedDict

import orjson

from runtime.task import State, Task

LIMIT_COUNT = 1000
LIMIT_BYTES = 16 * 1024 * 1024


class TaskStore:
    """Tasks by id. The oldest ended ones are forgotten when there are more than `limit_count`, or when their JSON
    is larger than `limit_bytes`; a task that runs is never forgotten, its number is bounded by who starts it.
    """

    def __init__(self, *, limit_count: int = LIMIT_COUNT, limit_bytes: int = LIMIT_BYTES) -> None:
        self._limit_count = limit_count
        self._limit_bytes = limit_bytes
        self._running: dict[str, Task] = {}
        self._ended: OrderedDict[str, tuple[Task, int]] = OrderedDict()
        self._ended_bytes = 0

    def __repr__(self) -> str:
        return f"<TaskStore running={len(self._running)} ended={len(self._ended)} bytes={self._ended_bytes}>"

    def find(self, task_id: str) -> Task | None:
        """The task as it is now, or None when it was never here or is forgotten."""
        ended = self._ended.get(task_id)
        return ended[0] if ended is not None else self._running.get(task_id)

    def put(self, task: Task) -> None:
        """Remember the task's newest value."""
        if task.state is State.WORKING:
            self._running[task.id] = task
            return
        self._running.pop(task.id, None)
        size_bytes = len(orjson.dumps(task.to_json()))
        self._ended[task.id] = (task, size_bytes)
        self._ended_bytes += size_bytes
        while self._ended and (len(self._ended) > self._limit_count or self._ended_bytes > self._limit_bytes):
            _, (_, freed_bytes) = self._ended.popitem(last=False)
            self._ended_bytes -= freed_bytes
