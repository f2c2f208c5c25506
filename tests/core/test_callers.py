"""core.callers: who is calling."""

import pytest

from gateway.core.callers import SYSTEM_PREFIXES, is_forged


@pytest.mark.parametrize("prefix", SYSTEM_PREFIXES)
def test_a_system_prefix_is_forged_and_nothing_else_is(prefix: str) -> None:
    assert is_forged(f"{prefix}anything")
    assert is_forged(prefix)
    assert not is_forged(f"x{prefix}")
    assert not is_forged("00000000-0000-4000-8000-000000000001")
