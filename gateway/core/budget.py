"""Whether a workspace may still spend. Money is integer cents."""


def exhausted(*, limit: int | None, spent: int) -> bool:
    """Return whether the month's spend has reached the limit; no limit is never reached."""
    return limit is not None and spent >= limit
