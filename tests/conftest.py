"""What every test may ask for: the bundled servers, once per session, and the option --long."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.embedded import servers as embedded


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked `long`, which take minutes")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--long"):
        return
    skip = pytest.mark.skip(reason="takes minutes; run with --long")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def servers() -> Iterator[embedded.Urls]:
    """One PostgreSQL and one Valkey for the whole session; whoever writes to them brings names of their own.

    The folder is not pytest's, whose folders are closed to the unprivileged user that the servers get under root.
    """
    data_dir = Path(tempfile.mkdtemp(prefix="a2a-tests-"))
    try:
        with embedded.running(data_dir, durable=False) as urls:
            yield urls
    finally:
        shutil.rmtree(data_dir)
