"""What the tests of the network share: the loops they run on."""

import asyncio
from collections.abc import Callable, Mapping

import pytest
import uvloop

from tests.harness.virtual import VirtualLoop

LOOPS: Mapping[str, Mapping[str, Callable[[], asyncio.AbstractEventLoop]]] = {
    "test_clocks": {"virtual": VirtualLoop},
    "test_dispatch": {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop},
}


def pytest_asyncio_loop_factories(item: pytest.Item) -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Clocks are tested on time that is not real, what touches sockets on both loops."""
    return LOOPS.get(item.path.stem, {"asyncio": asyncio.new_event_loop})
