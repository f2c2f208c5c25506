"""A turn as a stream of A2A v0.3: what its reader is to be told next."""

from runtime.agent import Turn
from runtime.jsonrpc import JsonObject, RpcError
from runtime.task import State, Task


class Follower:
    """One reader of a turn, at its own pace: what was said while it read the last event comes in one piece.

    It is told one Message, or of a Task: how it stands, what is said from there on, how it has ended. `heard`: how many
    pieces the Task shows already.
    """

    def __init__(self, turn: Turn, *, heard: int = 0) -> None:
        self._turn = turn
        self._heard = heard
        self._introduced = False
        self._answered = False
        self._over = False

    def __repr__(self) -> str:
        return f"<Follower heard={self._heard} over={self._over}>"

    @property
    def over(self) -> bool:
        """Whether the reader has been told the end."""
        return self._over

    async def next(self, *, quiet_s: float | None = None) -> JsonObject | None:
        """Wait for the next event; None if there was none for `quiet_s` seconds, or there will be none.

        Raises the turn's `RpcError` when it has failed without a task.
        """
        while not self._over:
            event = self.find_next()
            if event is not None:
                return event
            if not await self._turn.said.moved(quiet_s):
                return None
        return None

    def find_next(self) -> JsonObject | None:
        """The next event, if there is one already; as of `next`."""
        turn, said = self._turn, self._turn.said
        if self._over or (turn.task is None and not said.over):
            return None
        if turn.task is None:
            return self._find_reply()
        if not self._introduced:
            self._introduced = True
            return turn.task.telling(said.text(0, self._heard)).to_json()
        if len(said) > self._heard:
            update = artifact_update(turn.task, said.text(self._heard), append=self._heard > 0)
            self._heard = len(said)
            return update
        return None if turn.ended is None else self._find_ending(turn.ended)

    def begin_artifact_again(self) -> None:
        """The reader may not have got the last event: tell what was said from its beginning, in place of it."""
        self._heard = 0
        self._answered = False

    def _find_reply(self) -> JsonObject:
        self._over = True
        reply = self._turn.reply.result()
        if isinstance(reply, RpcError):
            raise reply
        return reply

    def _find_ending(self, ended: Task) -> JsonObject:
        if ended.state is State.COMPLETED and not self._answered:
            self._answered = True
            said = self._turn.said.text()
            goes_on = self._heard > 0 and ended.text.startswith(said)
            told = ended.text.removeprefix(said) if goes_on else ended.text
            if told or not goes_on:
                return artifact_update(ended, told, append=goes_on, last=True)
        self._over = True
        return status_update(ended)


def artifact_update(task: Task, text: str, *, append: bool, last: bool = False) -> JsonObject:
    """The TaskArtifactUpdateEvent of a piece of the answer; one that does not append takes the place of all others."""
    return {
        "kind": "artifact-update",
        "taskId": task.id,
        "contextId": task.context_id,
        "artifact": task.artifact(text),
        "append": append,
        "lastChunk": last,
    }


def status_update(task: Task) -> JsonObject:
    """The TaskStatusUpdateEvent of how a task stands; the last of its stream when it has ended."""
    return {
        "kind": "status-update",
        "taskId": task.id,
        "contextId": task.context_id,
        "status": task.status(),
        "final": task.state is not State.WORKING,
    }
