"""A coroutine in a thread of its own, with a loop of its own: it goes on while the agent's loop is stuck."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

T = TypeVar("T")
CLOSE_LIMIT_S = 5.0


class Thread(Generic[T]):
    """Runs `work` once, as the block in which it may run: leaving the block cancels it and waits for its end."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, T]], *, name: str) -> None:
        self._work = work
        self._thread = threading.Thread(target=self._main, name=name, daemon=True)
        self._begun = threading.Event()
        self._ended: Future[T] = Future()
        self._task: asyncio.Task[T] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def __repr__(self) -> str:
        return f"<Thread {self._thread.name} alive={self._thread.is_alive()}>"

    async def __aenter__(self) -> Self:
        return self

    def start(self) -> "asyncio.Future[T]":
        """Start it; return the future of its result."""
        self._thread.start()
        self._begun.wait()
        return asyncio.wrap_future(self._ended)

    def call(self, function: Callable[[], object]) -> None:
        """Have something done in its loop, soon; nothing when it has not begun or has ended."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(function)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._task is not None:
            self.call(self._task.cancel)
            await asyncio.to_thread(self._thread.join, CLOSE_LIMIT_S)

    def _main(self) -> None:
        try:
            self._ended.set_result(asyncio.run(self._run()))
        except asyncio.CancelledError:
            self._ended.cancel()
        except BaseException as error:
            self._ended.set_exception(error)
        finally:
            self._begun.set()

    async def _run(self) -> T:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        self._begun.set()
        return await self._work()
