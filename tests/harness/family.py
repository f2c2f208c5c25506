"""The processes below a process, seen while they come and go: PostgreSQL's helpers end whenever they like."""

from collections.abc import Callable, Iterable
from typing import TypeVar

import psutil

T = TypeVar("T")


def descendants(pid: int) -> list[psutil.Process]:
    """Everything that a process has started, and what that has started."""
    return psutil.Process(pid).children(recursive=True)


def seen(processes: Iterable[psutil.Process], look: Callable[[psutil.Process], T]) -> list[T]:
    """What `look` says of each process that is still there."""
    answers = []
    for process in processes:
        try:
            answers.append(look(process))
        except psutil.NoSuchProcess:  # a zombie is one, too
            continue
    return answers


def gone(processes: Iterable[psutil.Process]) -> bool:
    """Whether all of them have ended, waited for or not."""
    running = seen(processes, lambda process: process.is_running() and process.status() != psutil.STATUS_ZOMBIE)
    return not any(running)
