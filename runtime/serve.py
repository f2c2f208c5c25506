"""The agent's HTTP side: JSON-RPC in, a method of the tables, JSON-RPC out, once or as a stream."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from socket import socket

import orjson
from aiohttp import web

from runtime.follow import Follower
from runtime.jsonrpc import Code, Id, JsonObject, Request, RpcError, answer, read_request, refuse
from runtime.message import Incoming
from runtime.sse import send_events
from runtime.turns import Busy, Turns

BODY_LIMIT_BYTES = 1024 * 1024
BODY_DEADLINE_S = 30.0
SHUTDOWN_S = 1.0
QUIET_S = 15.0
"""How long a stream says nothing before it says that it is there, and finds out whether its reader is."""
MOST_STREAMS = 2000
CARD_PATHS = ("/.well-known/agent-card.json", "/.well-known/agent.json")


async def send_message(turns: Turns, params: JsonObject) -> JsonObject:
    """`message/send`: a Message, or a Task."""
    return await turns.send(Incoming.from_params(params))


async def get_task(turns: Turns, params: JsonObject) -> JsonObject:
    """`tasks/get`: the Task with its last `historyLength` messages."""
    task = turns.get(_task_id(params))
    history_length = params.get("historyLength")
    if history_length is not None and (type(history_length) is not int or history_length < 0):
        raise RpcError(Code.INVALID_PARAMS, "params.historyLength must be an integer of at least 0")
    return task.to_json(history_length=history_length)


async def cancel_task(turns: Turns, params: JsonObject) -> JsonObject:
    """`tasks/cancel`: the Task as it ended."""
    return (await turns.cancel(_task_id(params))).to_json()


def stream_message(turns: Turns, params: JsonObject) -> Follower:
    """`message/stream`: one Message, or a Task from its beginning."""
    return Follower(turns.begin(Incoming.from_params(params)))


def resubscribe(turns: Turns, params: JsonObject) -> Follower:
    """`tasks/resubscribe`: the Task as it is, and what comes of it from now on."""
    turn = turns.get_running(_task_id(params))
    return Follower(turn, heard=len(turn.said))


METHODS: dict[str, Callable[[Turns, JsonObject], Awaitable[JsonObject]]] = {
    "message/send": send_message,
    "tasks/get": get_task,
    "tasks/cancel": cancel_task,
}
STREAMS: dict[str, Callable[[Turns, JsonObject], Follower]] = {
    "message/stream": stream_message,
    "tasks/resubscribe": resubscribe,
}
NOT_OFFERED: dict[str, tuple[Code, str]] = {
    "tasks/pushNotificationConfig/set": (Code.PUSH_NOTIFICATION_NOT_SUPPORTED, "Push Notification is not supported"),
    "tasks/pushNotificationConfig/get": (Code.PUSH_NOTIFICATION_NOT_SUPPORTED, "Push Notification is not supported"),
    "tasks/pushNotificationConfig/list": (Code.PUSH_NOTIFICATION_NOT_SUPPORTED, "Push Notification is not supported"),
    "tasks/pushNotificationConfig/delete": (Code.PUSH_NOTIFICATION_NOT_SUPPORTED, "Push Notification is not supported"),
    "agent/getAuthenticatedExtendedCard": (Code.EXTENDED_CARD_NOT_CONFIGURED, "there is no extended card"),
}


class TooLarge(RpcError):
    """The body is over the limit."""


class TooSlow(RpcError):
    """The body did not come within its deadline."""


STATUSES: dict[type[RpcError], int] = {Busy: 503, TooLarge: 413, TooSlow: 408}


class Endpoint:
    """The routes of one agent; `card` is its AgentCard object."""

    def __init__(self, *, turns: Turns, card: JsonObject) -> None:
        self._turns = turns
        self._card = orjson.dumps(card)
        self._streams = 0

    def app(self) -> web.Application:
        """The application: bodies over 1 MiB are refused, and card and calls are all it has."""
        app = web.Application(client_max_size=BODY_LIMIT_BYTES)
        app.add_routes([web.post("/", self.call), *(web.get(path, self.card) for path in CARD_PATHS)])
        return app

    async def card(self, request: web.Request) -> web.Response:
        """`GET /.well-known/agent-card.json`."""
        return web.Response(body=self._card, content_type="application/json")

    async def call(self, request: web.Request) -> web.StreamResponse:
        """`POST /`: errors of JSON-RPC and A2A are answers with status 200; too large, too slow and busy are not.

        An error of a method that streams is its one event: clients of streams lose what they get otherwise.
        """
        id_: Id = None
        try:
            call = read_request(await _read_body(request))
            id_ = call.id
            if call.method in STREAMS:
                return await self._stream(request, call)
            return _render(answer(id_, await self._answer(call.method, call.params)))
        except RpcError as error:
            status = STATUSES.get(type(error), 200)
            headers = {"Retry-After": str(error.retry_after_s)} if isinstance(error, Busy) else None
            return _render(refuse(id_ if id_ is not None else error.id, error), status=status, headers=headers)

    async def _stream(self, request: web.Request, call: Request) -> web.StreamResponse:
        if self._streams >= MOST_STREAMS:
            raise Busy("the agent has as many readers as it serves at once")
        try:
            follower = STREAMS[call.method](self._turns, call.params)
        except Busy:
            raise
        except RpcError as error:
            return await send_events(request, _fail(call.id, error))
        self._streams += 1
        try:
            return await send_events(request, _tell(call.id, follower))
        finally:
            self._streams -= 1

    async def _answer(self, method: str, params: JsonObject) -> JsonObject:
        if method in METHODS:
            return await METHODS[method](self._turns, params)
        raise RpcError(*NOT_OFFERED.get(method, (Code.METHOD_NOT_FOUND, "Method not found")))


@asynccontextmanager
async def serving(app: web.Application, sock: socket) -> AsyncIterator[None]:
    """Serve `app` on a bound socket inside the `with`; at its end, answers being written get a second to go out."""
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=SHUTDOWN_S)
    await runner.setup()
    try:
        await web.SockSite(runner, sock).start()
        yield
    finally:
        await runner.cleanup()


async def _tell(id_: Id, follower: Follower) -> AsyncGenerator[bytes | None]:
    """The events of a turn as responses, None for each while of silence."""
    try:
        while not follower.over:
            event = await follower.next(quiet_s=QUIET_S)
            yield None if event is None else answer(id_, event)
    except RpcError as error:
        yield refuse(id_, error)


async def _fail(id_: Id, error: RpcError) -> AsyncGenerator[bytes | None]:
    yield refuse(id_, error)


async def _read_body(request: web.Request) -> bytes:
    try:
        async with asyncio.timeout(BODY_DEADLINE_S):
            return await request.read()
    except web.HTTPRequestEntityTooLarge as error:
        raise TooLarge(Code.INVALID_REQUEST, f"the body is larger than {BODY_LIMIT_BYTES} bytes") from error
    except TimeoutError as error:
        raise TooSlow(Code.INVALID_REQUEST, "the body came too slowly") from error


def _task_id(params: JsonObject) -> str:
    task_id = params.get("id")
    if not isinstance(task_id, str) or not task_id:
        raise RpcError(Code.INVALID_PARAMS, "params.id must be a string that is not empty")
    return task_id


def _render(body: bytes, *, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(body=body, status=status, headers=headers, content_type="application/json")
