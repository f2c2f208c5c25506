"""The last word to an agent whose stream was ended though its task goes on: that nobody wants that any more."""

from dataclasses import replace
from typing import Final

import structlog

from gateway import ports
from gateway.core import envelope
from gateway.core.endings import Ending
from gateway.services.relays import Relay

log = structlog.get_logger("gateway.proxy")

PARTING: Final = frozenset({Ending.CANCELLED, Ending.BUDGET})
"""Endings after which an agent is told that it need not go on."""
PART_S: Final = 10.0
"""How long it may take to hear it."""


def is_due(ending: Ending, relay: Relay) -> bool:
    """Return whether an agent is to be told: it has named its task, and is not done with it."""
    return ending in PARTING and relay.task_id is not None and not relay.complete


async def tell(dispatcher: ports.Dispatcher, outbound: ports.Outbound, task_id: str, *, v1: bool) -> None:
    """Send `tasks/cancel` where the call of this task went; what becomes of it is logged, and nothing else.

    v1: in the words of A2A 1.0.
    """
    operation = outbound.operation
    cancel = replace(
        outbound,
        body=envelope.cancel_body(task_id, v1=v1, call_id=outbound.call_id) if operation is None else b"{}",
        operation=None if operation is None else operation.cancel(task_id),
        idle_s=PART_S,
        limit_s=PART_S,
        by_deadline=False,
        meter=ports.Meter(),
    )
    outcome = await dispatcher.send(cancel)
    log.info("task_called_off", call_id=outbound.call_id, outcome=type(outcome).__name__)
