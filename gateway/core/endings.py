"""The closed set of ways in which a call ends, and what some of them say of its message."""

from enum import StrEnum
from typing import Final


class Ending(StrEnum):
    """The closed set of ways in which a call ends."""

    COMPLETED = "completed"
    AGENT_ERROR = "agent_error"
    AGENT_BUSY = "agent_busy"
    AGENT_UNREACHABLE = "agent_unreachable"
    AGENT_RESTARTING = "agent_restarting"
    IDLE_TIMEOUT = "idle_timeout"
    FIRST_BYTE_TIMEOUT = "first_byte_timeout"
    AGENT_RESET = "agent_reset"
    TRUNCATED = "truncated"
    RESPONSE_TOO_LARGE = "response_too_large"
    OVERLOADED = "overloaded"
    DEADLINE = "deadline"
    CEILING = "ceiling"
    BUS_LOST = "bus_lost"
    STALLED = "stalled"
    BUDGET = "budget"
    GATEWAY_SHUTDOWN = "gateway_shutdown"
    INTERRUPTED = "interrupted"
    DELIVERED_TO_INBOX = "delivered_to_inbox"
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    REJECTED = "rejected"
    INTERNAL = "internal"


UNDELIVERED: Final = frozenset({Ending.AGENT_BUSY, Ending.AGENT_UNREACHABLE, Ending.REJECTED})
"""Those that say that no agent has taken the message: to send it once more is to send it for the first time ..."""
CALLED_OFF: Final = frozenset({Ending.EXPIRED, Ending.CANCELLED})
"""... and those that say so of a call that had not been handed to its agent."""
UNREAD: Final = frozenset({Ending.TRUNCATED, Ending.RESPONSE_TOO_LARGE, Ending.OVERLOADED})
"""Those in which the agent has answered and its answer was lost, with what it says of its usage."""
