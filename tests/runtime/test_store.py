"""runtime.store: running tasks stay, ended ones are bounded."""

from datetime import UTC, datetime

from runtime.store import TaskStore
from runtime.task import State, Task


def begun(incoming, text="x"):
    return Task.begun(incoming(text), title=text[:10], at=datetime.now(UTC))


def ended(task):
    return task.ended(State.COMPLETED, text="done", at=datetime.now(UTC))


def test_a_task_is_found_in_its_newest_value(incoming):
    store = TaskStore()
    task = begun(incoming)
    store.put(task)
    assert store.find(task.id) is task
    done = ended(task)
    store.put(done)
    assert store.find(task.id) is done
    assert store.find("other") is None


def test_the_oldest_ended_task_is_forgotten_first_and_a_running_one_never(incoming):
    store = TaskStore(limit_count=2)
    running = begun(incoming)
    store.put(running)
    tasks = [ended(begun(incoming)) for _ in range(3)]
    for task in tasks:
        store.put(task)
    assert [store.find(task.id) for task in tasks] == [None, *tasks[1:]]
    assert store.find(running.id) is running
    assert "running=1 ended=2" in repr(store)


def test_ended_tasks_are_bounded_in_bytes_too(incoming):
    store = TaskStore(limit_bytes=5000)
    small, large, too_large = (ended(begun(incoming, "x" * size)) for size in (10, 3000, 6000))
    store.put(small)
    store.put(large)
    assert store.find(small.id) is small
    store.put(too_large)
    assert [store.find(task.id) for task in (small, large, too_large)] == [None, None, None]
    assert "ended=0 bytes=0" in repr(store)
