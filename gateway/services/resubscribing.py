"""A task's stream for who has asked its agent to go on with it: the agent cannot, and the gateway holds the stream."""

from dataclasses import replace
from time import monotonic
from typing import Final

import structlog

from gateway import ports
from gateway.core import resubscription, streams
from gateway.core.answers import Answer
from gateway.core.refusals import Refusal
from gateway.services.calls import Calls
from gateway.services.relays import Relay
from gateway.services.requests import Wanted
from gateway.services.streams import Opened, Streams

log = structlog.get_logger("gateway.streams")

SAYS_NO_S: Final = 1.0
"""How long an agent that begins a stream may take to say in it that it cannot; afterwards that stream is the answer."""


class Resubscribing:
    """Finds streams by their tasks, for those who may see their calls."""

    def __init__(self, streams: Streams, calls: Calls) -> None:
        self._streams = streams
        self._calls = calls

    async def instead(self, got: Answer | Opened, wanted: Wanted) -> Answer | Opened:
        """Return what an agent has answered, or the stream that the gateway holds of the task if the agent cannot."""
        if isinstance(got, Opened):
            cannot = got.relay is not None and await _says_no(got.relay)
        else:
            cannot = resubscription.says_no(got)
        held = await self._find(wanted) if cannot else None
        if held is None:
            return got
        log.info("resubscribed", call_id=held.head.call_id, workspace_id=held.head.workspace_id, after=held.after)
        return held

    async def _find(self, wanted: Wanted) -> Opened | None:
        """The stream of a task as it is wanted; None if there is none for this caller, or nobody knows."""
        asked, message = wanted.asked, wanted.message
        operation = asked.operation
        task_id = resubscription.find_task(message.body) if operation is None else operation.task_id
        if task_id is None:
            return None
        try:
            call_id = await self._streams.find_call(wanted.target.id, task_id)
            if call_id is None:
                return None
            call = await self._calls.get(asked.principal, wanted.target.id, call_id)
            held = await self._streams.find(call_id)
        except (Refusal, ports.LiveUnavailable):
            return None
        if held is None or not resubscription.is_one_language(call.method, message.method or ""):
            return None
        after = streams.find_number(call_id, asked.headers.get("Last-Event-ID"))
        return replace(held, id_json=message.id_json or b"null", after=after or 0)


async def _says_no(relay: Relay) -> bool:
    """Whether a stream that an agent has begun says no more than that it cannot, or not even that."""
    until = monotonic() + SAYS_NO_S
    while not relay.events and not relay.over and (left_s := until - monotonic()) > 0:
        await relay.wait(relay.position, left_s)
    if relay.events != 1:
        return False
    return resubscription.is_no(relay.last) or (relay.over and not relay.last)
