"""The settings of a process: `table.py` has them all, `kinds.py` what each may be."""

from gateway.settings.table import (
    ADMIN_TOKEN_CHARS,
    ADMIN_TOKEN_VARIETY,
    BadSetting,
    Described,
    Settings,
    describe,
)

__all__ = ["ADMIN_TOKEN_CHARS", "ADMIN_TOKEN_VARIETY", "BadSetting", "Described", "Settings", "describe"]
