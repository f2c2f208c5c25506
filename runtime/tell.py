"""What a turn says on its way, brought to the stream of a caller whose agent polls."""

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import assert_never

from runtime.agent import Turn
from runtime.backoff import pauses
from runtime.client import Away, GatewayClient, Later, Refused, Removed, Settled
from runtime.follow import Follower, status_update
from runtime.jsonrpc import JsonObject, RpcError
from runtime.message import agent_message
from runtime.task import State, Task

FIRST_PAUSE_S = 0.2
MOST_PAUSE_S = 5.0


async def tell(
    turn: Turn, *, gateway: GatewayClient, workspace_id: str, call_id: str, token: Callable[[], str | None]
) -> None:
    """Bring what a turn says to its caller until it is over, but for its ending, which is the answer.

    Where the gateway may not have taken an event, what was said is told again from its beginning, in the place of what
    the caller has. A gateway that does not want it is told no more. Nothing of a turn that stays a Message.
    """
    follower = Follower(turn)
    waits = pauses(first_s=FIRST_PAUSE_S, most_s=MOST_PAUSE_S)
    while (event := await _next(follower)) is not None:
        if event["kind"] == "task":
            assert turn.task is not None
            event = status_update(turn.task)  # unlike a Task, it may come twice
        match await gateway.tell(workspace_id, call_id, event, token=token()):
            case Settled():
                waits = pauses(first_s=FIRST_PAUSE_S, most_s=MOST_PAUSE_S)
            case Later() as problem:
                follower.begin_artifact_again()
                await asyncio.sleep(max(next(waits), problem.retry_after_s))
            case Refused(status=HTTPStatus.UNAUTHORIZED) | Away():  # the heart registers again
                follower.begin_artifact_again()
                await asyncio.sleep(next(waits))
            case Refused() | Removed():
                return
            case never:
                assert_never(never)


def find_last_event(turn: Turn) -> JsonObject | None:
    """How the stream of a turn that is over ends, as its answer; None where a Message is the answer.

    Its status carries the answer's text, for a caller that has not read the stream and asks for the answer.
    """
    ended = turn.ended
    return None if ended is None else {**status_update(ended), "status": _explained(ended)}


def _explained(ended: Task) -> JsonObject:
    if ended.state is not State.COMPLETED:
        return ended.status()
    return ended.status() | {"message": agent_message(ended.text, context_id=ended.context_id, task_id=ended.id)}


async def _next(follower: Follower) -> JsonObject | None:
    try:
        event = await follower.next()
    except RpcError:
        return None
    return None if follower.over else event
