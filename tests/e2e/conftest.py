"""What is left behind by a test from without is not charged to the next one: what is tested here runs elsewhere."""

import gc
from collections.abc import Iterator

import pytest

LEFT = (
    "ignore:Exception ignored in. <(function (_SelectorTransport|StreamWriter)|socket.socket)"
    ":pytest.PytestUnraisableExceptionWarning"
)
"""A connection of an agent or a client of the test's own, which the collector found when its loop was closed."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "tests/e2e/" in item.nodeid:
            item.add_marker(pytest.mark.filterwarnings(LEFT))


@pytest.fixture(scope="module", autouse=True)
def _collected() -> Iterator[None]:
    """Let the collector find it here."""
    yield
    gc.collect()
