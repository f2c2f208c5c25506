"""What an agent is to the outside: a name, a card, and one function that answers."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from runtime.jsonrpc import JsonObject, RpcError
from runtime.message import Incoming
from runtime.said import Said
from runtime.task import Task

TITLE_LIMIT = 200


class Turn:
    """One message on its way through the agent. The answer is a Message, or a Task once `begin_task` was called."""

    def __init__(self, incoming: Incoming, *, on_begin: Callable[["Turn"], None]) -> None:
        self.incoming = incoming
        self.task: Task | None = None
        self.ended: Task | None = None
        self.said = Said()
        self.reply: asyncio.Future[JsonObject | RpcError] = asyncio.get_running_loop().create_future()
        self._on_begin = on_begin

    @property
    def text(self) -> str:
        """The message's text parts, joined by newlines."""
        return self.incoming.text

    @property
    def context_id(self) -> str:
        """The conversation that this message belongs to."""
        return self.incoming.context_id

    def begin_task(self, title: str) -> str:
        """Make this turn a Task that callers can get and cancel; return its id.

        `title` is shown as the agent's current task, cut to 200 characters. Raises RuntimeError the second time, and
        when the turn is over.
        """
        if self.task is not None or self.reply.done():
            raise RuntimeError("this turn has its task already, or is over")
        shown = title[:TITLE_LIMIT].encode(errors="replace").decode()  # a lone surrogate has no place in JSON
        self.task = Task.begun(self.incoming, title=shown, at=datetime.now(UTC))
        self._on_begin(self)
        self.said.wake()
        return self.task.id

    async def say(self, text: str) -> None:
        """Tell a piece of the answer before there is all of it.

        Once the turn is a Task, callers that stream get it at once, and the others with the Task, when they ask; what
        is said before comes with its beginning. A turn that remains a Message has only its answer. Pieces are joined
        as they are. The answer is the text that the turn returns: callers that stream get what it has more, if it
        begins with what was said, and else all of it in the place of that. Raises as `Said.add` does.
        """
        self.said.add(text)
        await asyncio.sleep(0)  # readers have their turn, even if the agent never waits

    async def get_reply(self) -> JsonObject:
        """Wait for the answer, as long as the sender wants to wait; raises the turn's `RpcError`."""
        reply = await asyncio.shield(self.reply)
        if isinstance(reply, RpcError):
            raise reply
        return reply

    def shown(self) -> Task:
        """The Task as it is now. Raises ValueError where there is none."""
        if self.task is None:
            raise ValueError("this turn has no task")
        return self.ended or self.task.telling(self.said.text())


Answer = Callable[[Turn], Awaitable[str]]


@dataclass(frozen=True, kw_only=True)
class Skill:
    """One line of the agent card about what the agent can do."""

    id: str
    name: str
    description: str
    tags: tuple[str, ...] = ()
    examples: tuple[str, ...] = ()

    def to_json(self) -> JsonObject:
        """The AgentSkill object of the specification."""
        return {
            "id": self.id,
            "name": self.name,
            "description": self.description,
            "tags": list(self.tags),
            "examples": list(self.examples),
        }


@dataclass(frozen=True, kw_only=True)
class Agent:
    """An agent: `answer` gets a Turn and returns text; an exception in it is the caller's error and nobody's crash.

    More than `max_active` turns at once are refused as busy.
    """

    name: str
    description: str
    answer: Answer
    version: str = "1.0.0"
    skills: tuple[Skill, ...] = field(default=())
    max_active: int = 1000

    def card(self, url: str) -> JsonObject:
        """The AgentCard of A2A v0.3 for this agent, reached by JSON-RPC at `url`."""
        skills = self.skills or (Skill(id="answer", name=self.name, description=self.description, tags=("text",)),)
        return {
            "protocolVersion": "0.3.0",
            "name": self.name,
            "description": self.description,
            "version": self.version,
            "url": url,
            "preferredTransport": "JSONRPC",
            "capabilities": {"streaming": True, "pushNotifications": False, "stateTransitionHistory": False},
            "defaultInputModes": ["text/plain"],
            "defaultOutputModes": ["text/plain"],
            "skills": [skill.to_json() for skill in skills],
        }
