"""The agent's side of its inbox: messages are fetched, worked on, and answered until the answer is taken."""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from http import HTTPStatus
from typing import Any, Final, assert_never

import orjson

from runtime.backoff import pauses
from runtime.client import Away, GatewayClient, Later, Message, Problem, Refused, Removed, Settled, Taken
from runtime.jsonrpc import Code, RpcError, answer, read_request, refuse
from runtime.message import Incoming
from runtime.spawn import Spawn
from runtime.task import State
from runtime.tell import find_last_event, tell
from runtime.turns import Busy, Cut, Turns

WAIT_S: Final = 25.0
MOST_AT_ONCE: Final = 10
FIRST_PAUSE_S: Final = 0.2
MOST_PAUSE_S: Final = 5.0
CLOSE_LIMIT_S: Final = 3.0
SHORT_BYTES: Final = 4096
"""An answer that fits everywhere."""
SEND: Final = "message/send"
STREAM: Final = "message/stream"
"""It is answered at the end like the other: who waits for a stream gets the answer as its last event."""

log = logging.getLogger(__name__)


class Poll:
    """Fetches the messages of one workspace, works on at most `most` at once, and brings the answers back.

    A message comes again when its lease is over: the lease is renewed while its turn goes on. What is cut off because
    the agent stops is not answered, and comes to whoever fetches next. `token` is asked before each request.
    """

    def __init__(
        self,
        *,
        gateway: GatewayClient,
        workspace_id: str,
        token: Callable[[], str | None],
        turns: Turns,
        most: int,
        spawn: Spawn,
        wait_s: float = WAIT_S,
    ) -> None:
        self._gateway = gateway
        self._workspace_id = workspace_id
        self._token = token
        self._turns = turns
        self._most = most
        self._spawn = spawn
        self._wait_s = wait_s
        self._working: dict[str, asyncio.Task[Any]] = {}
        self._room = asyncio.Event()
        self._trouble = ""

    def __repr__(self) -> str:
        return f"<Poll {self._workspace_id} working={len(self._working)} trouble={self._trouble!r}>"

    async def run(self, *, after: asyncio.Event) -> None:
        """Fetch from this event on until cancelled; whether the gateway still wants us, the heart finds out."""
        await after.wait()
        waits = _new_pauses()
        while True:
            self._room.clear()
            if len(self._working) >= self._most:
                await self._room.wait()
                continue
            limit = min(MOST_AT_ONCE, self._most - len(self._working))
            got = await self._gateway.take(self._workspace_id, wait_s=self._wait_s, limit=limit, token=self._token())
            match got:
                case Taken():
                    waits = _new_pauses()
                    self._trouble = ""
                    for message in got.messages:
                        self._begin(message, got.lease_s)
                case Later():
                    self._complain(got)
                    await asyncio.sleep(max(next(waits), got.retry_after_s))
                case Refused() | Removed() | Away():
                    self._complain(got)
                    await asyncio.sleep(next(waits))
                case never:
                    assert_never(never)

    async def close(self) -> None:
        """Give the answers that there are a moment to be taken; `run` is over by then."""
        if self._working:
            await asyncio.wait(set(self._working.values()), timeout=CLOSE_LIMIT_S)

    def _begin(self, message: Message, lease_s: float) -> None:
        if message.id in self._working:  # its lease was over before our answer was taken
            return
        work = self._spawn(self._work(message, lease_s), name=f"message {message.id[:64]}")
        self._working[message.id] = work
        work.add_done_callback(lambda _: self._end(message.id))

    def _end(self, message_id: str) -> None:
        del self._working[message_id]
        self._room.set()

    async def _work(self, message: Message, lease_s: float) -> None:
        keeping = self._spawn(self._keep(message.id, lease_s), name=f"lease {message.id[:64]}")
        try:
            body = await self._answer(message)
            if body is not None:
                await self._deliver(message.id, body)
        finally:
            keeping.cancel()

    async def _answer(self, message: Message) -> bytes | None:
        """The answer to a message; None where it is to come again."""
        try:
            call = read_request(orjson.dumps(message.request))
            if call.method not in (SEND, STREAM):
                raise RpcError(Code.METHOD_NOT_FOUND, "Method not found")
            incoming = replace(Incoming.from_params(call.params), blocking=True)
            if call.method == STREAM:
                return await self._stream(message.id, incoming)
            result = await self._turns.send(incoming)
        except (Busy, Cut):
            return None
        except RpcError as error:
            return refuse(None, error)
        stopped = result.get("kind") == "task" and result["status"]["state"] == State.CANCELED.value
        return None if stopped else answer(None, result)

    async def _stream(self, message_id: str, incoming: Incoming) -> bytes | None:
        """As of `_answer`, once all has been told that comes before it."""
        turn = self._turns.begin(incoming)
        await tell(turn, gateway=self._gateway, workspace_id=self._workspace_id, call_id=message_id, token=self._token)
        result = await turn.get_reply()
        if turn.ended is not None and turn.ended.state is State.CANCELED:
            return None
        return answer(None, find_last_event(turn) or result)

    async def _keep(self, message_id: str, lease_s: float) -> None:
        """Renew a lease again and again; a renewal that fails costs nothing but a second delivery."""
        while True:
            await asyncio.sleep(lease_s / 3)
            await self._gateway.keep(self._workspace_id, message_id, token=self._token())

    async def _deliver(self, message_id: str, body: bytes) -> None:
        """Bring an answer back, however long the gateway is away; what it does not want is dropped, and logged."""
        waits = _new_pauses()
        while True:
            got = await self._gateway.reply(self._workspace_id, message_id, body, token=self._token())
            match got:
                case Settled():
                    return
                case Refused(status=HTTPStatus.REQUEST_ENTITY_TOO_LARGE) if len(body) > SHORT_BYTES:
                    body = refuse(None, RpcError(Code.INTERNAL_ERROR, "the answer is too large"))
                case Refused(status=HTTPStatus.UNAUTHORIZED) | Away():  # the heart registers again
                    await asyncio.sleep(next(waits))
                case Later():
                    await asyncio.sleep(max(next(waits), got.retry_after_s))
                case Refused() | Removed():
                    log.warning("answer_dropped message=%s sentence=%r", message_id, got.sentence)
                    return
                case never:
                    assert_never(never)

    def _complain(self, problem: Problem) -> None:
        """Say what is wrong once, however long it lasts."""
        if problem.sentence != self._trouble:
            log.warning("inbox_trouble kind=%s sentence=%r", type(problem).__name__.lower(), problem.sentence)
        self._trouble = problem.sentence


def _new_pauses() -> Iterator[float]:
    return pauses(first_s=FIRST_PAUSE_S, most_s=MOST_PAUSE_S)
