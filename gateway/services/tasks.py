"""Every task of the gateway: named, owned, mourned aloud, and awaited at the end."""

import asyncio
from collections.abc import Coroutine
from typing import Any, Self

import structlog

log = structlog.get_logger("gateway.tasks")


class Tasks:
    """The tasks of one process, as the block in which they live: leaving it cancels and awaits what still runs."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[None]] = set()
        self.deaths = 0

    def __repr__(self) -> str:
        return f"<Tasks running={len(self._running)} deaths={self.deaths}>"

    def __len__(self) -> int:
        return len(self._running)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        while self._running:
            running = list(self._running)
            for task in running:
                task.cancel()
            await asyncio.wait(running, timeout=10)
            stuck = [task.get_name() for task in running if not task.done()]
            if stuck:
                log.error("tasks_stuck", names=stuck)
                return

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> "asyncio.Task[None]":
        """Start a task; if it dies of an exception, that is logged with its trace."""
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._running.add(task)
        task.add_done_callback(self._done)
        return task

    def _done(self, task: "asyncio.Task[None]") -> None:
        self._running.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None:
            self.deaths += 1
            log.error("task_died", name=task.get_name(), exc_info=error)
