"""The closed set of ways in which a call ends; what follows from each stands in `causes.RULES`."""

from enum import StrEnum


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
