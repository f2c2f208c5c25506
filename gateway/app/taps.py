"""What this process does when it hears an event, whichever replica it comes from."""

from collections.abc import Callable

import orjson

from events.frame import Frame
from gateway.core.calls import State
from gateway.services.drain import Drain
from gateway.services.registry import Registry
from gateway.services.wakes import Wakes

Tap = Callable[[Frame], None]


def task_noter(registry: Registry) -> Tap:
    """Return what remembers the task that a workspace says it works on."""

    def note(heard: Frame) -> None:
        registry.note_task(heard.event.workspace_id, orjson.loads(heard.event.payload)["current_task"])

    return note


def inbox_waker(agents: Wakes) -> Tap:
    """Return what wakes the agents that wait for a message, when one was put into their inbox."""

    def wake(heard: Frame) -> None:
        workspace_id = heard.event.workspace_id
        if workspace_id in agents and orjson.loads(heard.event.payload).get("status") == State.QUEUED.value:
            agents.wake(workspace_id)

    return wake


def queue_stirrer(drain: Drain) -> Tap:
    """Return what sends the calls that wait for an agent which says that it has time."""

    def stir(heard: Frame) -> None:
        if heard.event.sign and drain.waits(heard.event.workspace_id):
            drain.beat(heard.event.workspace_id, orjson.loads(heard.event.payload)["active_tasks"])

    return stir


def call_waker(callers: Wakes) -> Tap:
    """Return what wakes the callers that stay for an answer, when their call has ended."""

    def wake(heard: Frame) -> None:
        if len(callers):
            callers.wake(orjson.loads(heard.event.payload)["call_id"])

    return wake
