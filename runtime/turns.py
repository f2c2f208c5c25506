"""The turns an agent is taking: each is started, found, cancelled and ended here."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

from runtime.agent import Agent, Turn
from runtime.jsonrpc import Code, JsonObject, RpcError
from runtime.message import Incoming, agent_message
from runtime.spawn import Spawn
from runtime.store import TaskStore
from runtime.task import State, Task

CANCEL_LIMIT_S = 1.0


class Busy(RpcError):
    """The agent takes no further turn now; HTTP says so with 503 and Retry-After, in seconds."""

    retry_after_s = 5

    def __init__(self, sentence: str) -> None:
        super().__init__(Code.BUSY, sentence)


class Cut(RpcError):
    """The turn was stopped before its end."""

    def __init__(self, sentence: str) -> None:
        super().__init__(Code.INTERNAL_ERROR, sentence)


@dataclass(frozen=True, kw_only=True)
class Vitals:
    """What a heartbeat says about the work: how many turns run, and the newest task's title or an empty string."""

    active_tasks: int
    current_task: str


class Turns:
    """The running turns and the tasks they leave behind.

    A turn goes on when its caller leaves. `on_change` is called when a task begins and when it ends.
    """

    def __init__(self, agent: Agent, *, spawn: Spawn, store: TaskStore, on_change: Callable[[], None]) -> None:
        self._agent = agent
        self._spawn = spawn
        self._store = store
        self._on_change = on_change
        self._running: dict[Turn, asyncio.Task[str]] = {}
        self._begun: dict[str, Turn] = {}
        self._closing = False

    def __repr__(self) -> str:
        return f"<Turns running={len(self._running)} tasks={len(self._begun)} closing={self._closing}>"

    def vitals(self) -> Vitals:
        """The work as it is now; may be asked from another thread."""
        begun = list(self._begun.values())
        newest = begun[-1] if begun else None
        title = newest.task.title if newest is not None and newest.task is not None else ""
        return Vitals(active_tasks=len(self._running), current_task=title)

    async def send(self, incoming: Incoming) -> JsonObject:
        """Take a turn and return its Message or Task; raise `RpcError` where it is refused or fails.

        A sender that does not block gets the Task as soon as it begins, and a Message when it is ready.
        """
        return await self.begin(incoming).get_reply()

    def begin(self, incoming: Incoming) -> Turn:
        """Take a turn, and return it while it goes on; raise `RpcError` where it is refused."""
        if self._closing:
            raise Busy("the agent is stopping")
        if len(self._running) >= self._agent.max_active:
            raise Busy("the agent is working on as many messages as it takes at once")
        if incoming.task_id is not None:
            task = self.get(incoming.task_id)
            raise RpcError(Code.UNSUPPORTED_OPERATION, f"task {task.id} takes no further messages")
        turn = Turn(incoming, on_begin=self._begin)
        work = self._spawn(self._take(turn), name=f"turn {incoming.message_id[:64]}")
        self._running[turn] = work
        work.add_done_callback(lambda done: self._end(turn, done))
        return turn

    def get_running(self, task_id: str) -> Turn:
        """The turn of a task that goes on; TASK_NOT_FOUND as of `get`, UNSUPPORTED_OPERATION when it has ended."""
        task = self.get(task_id)
        turn = self._begun.get(task_id)
        if turn is None:
            raise RpcError(Code.UNSUPPORTED_OPERATION, f"task {task_id} is {task.state}: nothing more comes of it")
        return turn

    def get(self, task_id: str) -> Task:
        """The task as it is now; TASK_NOT_FOUND when it was never here or is forgotten."""
        turn = self._begun.get(task_id)
        task = turn.shown() if turn is not None else self._store.find(task_id)
        if task is None:
            raise RpcError(Code.TASK_NOT_FOUND, "Task not found")
        return task

    async def cancel(self, task_id: str) -> Task:
        """Stop the task's turn and return the task as it ended; TASK_NOT_CANCELABLE when it cannot be stopped."""
        task = self.get(task_id)
        turn = self._begun.get(task_id)
        if turn is None:
            raise RpcError(Code.TASK_NOT_CANCELABLE, f"task {task_id} is {task.state} already")
        work = self._running[turn]
        work.cancel()
        await asyncio.wait({work}, timeout=CANCEL_LIMIT_S)
        task = self.get(task_id)
        if task.state is not State.CANCELED:
            raise RpcError(Code.TASK_NOT_CANCELABLE, f"task {task_id} did not stop: it is {task.state}")
        return task

    async def close(self, *, drain_s: float) -> None:
        """Refuse new turns, let the running ones end within `drain_s` seconds, then cancel them."""
        self._closing = True
        for limit_s in (drain_s, CANCEL_LIMIT_S):
            if self._running:
                await asyncio.wait(set(self._running.values()), timeout=limit_s)
            for work in self._running.values():
                work.cancel()

    async def _take(self, turn: Turn) -> str:
        text = await self._agent.answer(turn)
        if not isinstance(text, str):
            raise TypeError(f"an agent answers with text, not with {type(text).__name__}")
        text.encode()  # text that cannot be written as UTF-8 fails here, as the handler's error
        return text

    def _begin(self, turn: Turn) -> None:
        task = turn.task
        assert task is not None
        self._store.put(task)
        self._begun[task.id] = turn
        self._on_change()
        if not turn.incoming.blocking:
            turn.reply.set_result(task.to_json())

    def _end(self, turn: Turn, work: "asyncio.Task[str]") -> None:
        del self._running[turn]
        state, text = _read_ending(work)
        reply: JsonObject | RpcError
        if turn.task is not None:
            ended = turn.ended = turn.shown().ended(state, text=text, at=datetime.now(UTC))
            self._store.put(ended)
            del self._begun[ended.id]
            self._on_change()
            reply = ended.to_json()
        elif state is State.COMPLETED:
            reply = agent_message(text, context_id=turn.context_id)
        else:
            reply = Cut(text) if state is State.CANCELED else RpcError(Code.INTERNAL_ERROR, text)
        if not turn.reply.done():
            turn.reply.set_result(reply)
        turn.said.end()


def _read_ending(work: "asyncio.Task[str]") -> tuple[State, str]:
    """How a turn ended, and its words: the handler's own error stays in the log."""
    if work.cancelled():
        return State.CANCELED, "the work was cancelled"
    if work.exception() is not None:
        return State.FAILED, "the agent failed to answer"
    return State.COMPLETED, work.result()
