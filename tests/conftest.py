"""What every test may ask for: the bundled servers, once per session, and the option --long."""

import shutil
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from urllib.parse import urlsplit, urlunsplit
from uuid import uuid4

import aiohttp
import hypothesis
import psycopg2
import pytest
import pytest_asyncio

from gateway.embedded import servers as embedded
from gateway.store.migrate import migrate
from tests.harness import folders
from tests.harness.world import ADMIN_TOKEN, World

PLENTY = "1000000/1"
"""Requests in a second that no test makes: only those about limits shall meet one."""
RATES = tuple(f"GATEWAY_RATE_{name}" for name in ("CALLS", "HEARTBEATS", "REQUESTS", "STRICT", "FAILURES"))


hypothesis.settings.register_profile("same each time", derandomize=True)
hypothesis.settings.register_profile("others each time", print_blob=True)


def pytest_configure(config: pytest.Config) -> None:
    """What lands must not hang on luck; who asks for the long tests looks for what nobody has tried."""
    hypothesis.settings.load_profile("others each time" if config.getoption("--long") else "same each time")


LONGEST = tuple(f"tests/e2e/test_{name}.py" for name in ("openapi", "fuzz", "invariant", "gaps"))
"""The files that take longest: they begin first, side by side, or everybody would wait for them in the end."""
ONCE = (
    "tests/services/test_proxy_properties.py",
    "tests/services/test_feeds.py::test_started_and_stopped_a_thousand",
    "tests/services/test_registry.py",
    "tests/services/test_peers.py",
    "tests/services/test_visibility.py",
    "tests/services/test_drain.py",
    "tests/web/test_events.py",
    "tests/web/test_sessions.py",
    "tests/store/test_calls.py",
    "tests/core/test_envelope_properties.py",
    "tests/browser",
    "tests/embedded",
    "tests/test_cli.py",
    "tests/web/test_bad_input.py",
)
"""What takes long by its number, by a browser or by servers, and would find the same on another Python ..."""
WHOLE = ("call", "endings", "poll", "queue", "streams", "vigils", "delegation", "shutdown")
"""... and of all that starts whole gateways, what is done again there."""


def is_done_once(node_id: str) -> bool:
    """Whether a test has been done on another Python."""
    if node_id.startswith("tests/e2e/"):
        return not node_id.startswith(tuple(f"tests/e2e/test_{name}.py" for name in WHOLE))
    return node_id.startswith(ONCE)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="also run the tests marked `long`, which take minutes")
    parser.addoption(
        "--again", action="store_true", help="leave out what has been done on another Python and takes long"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(LONGEST))
    if config.getoption("--again"):
        config.hook.pytest_deselected(items=[item for item in items if is_done_once(item.nodeid)])
        items[:] = [item for item in items if not is_done_once(item.nodeid)]
    if config.getoption("--long"):
        return
    skip = pytest.mark.skip(reason="takes minutes; run with --long")
    for item in items:
        if item.get_closest_marker("long"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def servers() -> Iterator[embedded.Urls]:
    """One PostgreSQL and one Valkey for the whole session; whoever writes to them brings names of their own."""
    data_dir = folders.fresh("a2a-tests-")
    try:
        with embedded.running(data_dir, durable=False) as urls:
            yield urls
    finally:
        shutil.rmtree(data_dir)


@pytest.fixture(scope="session")
def template_database(servers: embedded.Urls) -> Iterator[str]:
    """The name of a migrated database; nobody stays connected to it, so it can be cloned."""
    name = "template_migrated"
    with _administrator(servers) as ask:
        ask(f"CREATE DATABASE {name}")
        migrate(_of_database(servers, name))
        yield name


@pytest.fixture
def migrated_database_url(servers: embedded.Urls, template_database: str) -> Iterator[str]:
    """A migrated database that goes with the test."""
    with _database(servers, template_database) as url:
        yield url


@pytest.fixture
async def world(servers: embedded.Urls, migrated_database_url: str) -> AsyncIterator[World]:
    """Datastores of the test's own, on which it starts its gateways."""
    async with _world(servers, migrated_database_url) as one:
        yield one


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared_world(servers: embedded.Urls, template_database: str) -> AsyncIterator[World]:
    """The same, for all tests of a module that runs them in one loop: `pytest.mark.asyncio(loop_scope="module")`."""
    with _database(servers, template_database) as url:
        async with _world(servers, url) as one:
            yield one


LEFT: list[str] = []
"""Databases that are to be dropped before the next one is made: by then whoever was connected has gone."""


@contextmanager
def _database(servers: embedded.Urls, template: str) -> Iterator[str]:
    name = f"test_{uuid4().hex}"
    with _administrator(servers) as ask:
        while LEFT:
            ask(f"DROP DATABASE {LEFT.pop()} WITH (FORCE)")
        ask(f"CREATE DATABASE {name} TEMPLATE {template}")
    try:
        yield _of_database(servers, name)
    finally:
        LEFT.append(name)


@asynccontextmanager
async def _world(servers: embedded.Urls, database_url: str) -> AsyncIterator[World]:
    env = {
        "GATEWAY_DATABASE_URL": database_url,
        "GATEWAY_REDIS_URL": servers.redis_url,
        "GATEWAY_REDIS_PREFIX": f"test:{{{uuid4().hex}}}",
        "ADMIN_TOKEN": ADMIN_TOKEN,
        "GATEWAY_ALLOW_PRIVATE_AGENTS": "1",
        "GATEWAY_WRITE_EVERY_SECONDS": "0.1",
        "GATEWAY_LOG_FORMAT": "json",
        **dict.fromkeys(RATES, PLENTY),
    }
    async with AsyncExitStack() as stack:
        connector = aiohttp.TCPConnector(limit=0)
        session = await stack.enter_async_context(aiohttp.ClientSession(connector=connector))
        yield World(stack, session, env)


@contextmanager
def _administrator(servers: embedded.Urls) -> Iterator[Callable[[str], None]]:
    with closing(psycopg2.connect(servers.database_url)) as session:
        session.autocommit = True

        def ask(query: str) -> None:
            with session.cursor() as cursor:
                cursor.execute(query)

        yield ask


def _of_database(servers: embedded.Urls, name: str) -> str:
    return urlunsplit(urlsplit(servers.database_url)._replace(path=f"/{name}"))
