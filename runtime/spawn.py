"""Every task of this process has a name, an owner and an awaited end."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self, TypeVar

T = TypeVar("T")
Spawn = Callable[..., "asyncio.Task[Any]"]

CLOSE_LIMIT_S = 5.0

log = logging.getLogger(__name__)


class Tasks:
    """The owner of background tasks: it holds them, logs their deaths, and ends them when its `async with` ends."""

    def __init__(self) -> None:
        self._running: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<Tasks running={sorted(task.get_name() for task in self._running)}>"

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def spawn(self, work: Coroutine[Any, Any, T], *, name: str) -> "asyncio.Task[T]":
        """Start `work` in the running loop and keep it alive until it ends."""
        task = asyncio.create_task(work, name=name)  # noqa: TID251 - the one place that starts tasks in runtime
        self._running.add(task)
        task.add_done_callback(self._bury)
        return task

    async def close(self, limit_s: float = CLOSE_LIMIT_S) -> None:
        """Cancel what still runs and wait for it; what refuses to end within `limit_s` is named in the log."""
        running = set(self._running)
        for task in running:
            task.cancel()
        if running:
            _, stubborn = await asyncio.wait(running, timeout=limit_s)
            for task in stubborn:
                log.error("task_ignores_cancellation name=%s", task.get_name())

    def _bury(self, task: "asyncio.Task[Any]") -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("task_died name=%s", task.get_name(), exc_info=error)
