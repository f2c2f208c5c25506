"""The documents' two readers in a real browser, on two replicas of which one is killed: every event once, in order."""

import asyncio
import re
import shutil
import signal
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import pytest
from aiohttp import web

from gateway.services.tasks import Tasks
from tests.harness.process import GatewayProcess
from tests.harness.source import ROOT
from tests.harness.world import ADMIN_TOKEN, Workspace, World

CHROMIUM: Final = shutil.which("chromium")
DRIVER: Final = shutil.which("chromedriver")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or DRIVER is None, reason="Chromium and its driver are not installed (Debian: chromium-driver)"
)
FLAGS: Final = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-sync",
    "--no-first-run",
    "--no-proxy-server",
)
BEFORE, AFTER = 20, 20
"""Events before and after the death of a replica."""
COMES_BACK_S: Final = 20.0
"""Longer than a browser waits before it connects again."""
DOCS: Final = ROOT / "docs"
[EVENT_SOURCE] = re.findall(r"<!-- eventsource -->\n```js\n(.*?)```", (DOCS / "events.md").read_text(), re.DOTALL)
PAGE: Final = """<!doctype html><meta charset="utf-8"><title>events</title><script type="module">
window.told = [];
window.gaps = [];
window.opened = 0;
const show = (event) => { if (event.type === "TASK_UPDATED") window.told.push(event.data.current_task); };
const readAgain = (gap) => window.gaps.push(gap);
const warn = () => {};
%s
</script>"""
WITH_EVENT_SOURCE: Final = f"""const url = new URLSearchParams(location.search).get("at");
{EVENT_SOURCE}
source.onopen = () => window.opened++;"""
WITH_READER: Final = """import { read } from "./reader.js";
const query = new URLSearchParams(location.search);
const counted = window.fetch;
window.fetch = async (...asked) => { const answer = await counted(...asked); window.opened++; return answer; };
read({ urls: query.getAll("at"), token: query.get("token"), onEvent: show, onGap: readAgain, onState: warn });"""


class Pages:
    """A site of its own, beside the gateway's: whoever serves the page is not who serves the events."""

    def __init__(self) -> None:
        self.url = ""

    async def event_source(self, _: web.Request) -> web.Response:
        return web.Response(text=PAGE % WITH_EVENT_SOURCE, content_type="text/html")

    async def reader(self, _: web.Request) -> web.Response:
        return web.Response(text=PAGE % WITH_READER, content_type="text/html")

    async def script(self, _: web.Request) -> web.Response:
        return web.Response(body=(DOCS / "reader.js").read_bytes(), content_type="text/javascript")


@pytest.fixture
async def pages() -> AsyncIterator[Pages]:
    pages = Pages()
    app = web.Application()
    app.router.add_get("/event-source", pages.event_source)
    app.router.add_get("/reader", pages.reader)
    app.router.add_get("/reader.js", pages.script)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    pages.url = f"http://localhost:{runner.addresses[0][1]}"
    yield pages
    await runner.cleanup()


class Front:
    """What stands before the replicas of somebody who uses EventSource.

    It gives each new connection to the next replica that is there, and says for the browser who asks.
    """

    def __init__(self, *replicas: GatewayProcess) -> None:
        self._ports = [int(one.url.rpartition(":")[2]) for one in replicas]
        self.url = ""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened = [writer]
        try:
            line, rest = (await reader.readuntil(b"\r\n\r\n")).split(b"\r\n", 1)
            upstream, to_replica = await self._connect()
            opened.append(to_replica)
            to_replica.write(line + f"\r\nAuthorization: Bearer {ADMIN_TOKEN}\r\nConnection: close\r\n".encode() + rest)
            while data := await upstream.read(65536):
                writer.write(data)
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the browser has gone, or the replica was killed: either way this connection ends
        finally:
            for one in opened:
                one.close()

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for port in self._ports:
            try:
                return await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                continue
        raise ConnectionRefusedError


@asynccontextmanager
async def in_front_of(*replicas: GatewayProcess) -> AsyncIterator[Front]:
    front = Front(*replicas)
    async with Tasks() as tasks:

        def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            tasks.spawn(front.carry(reader, writer), "carry")

        server = await asyncio.start_server(carry, "127.0.0.1", 0)
        front.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield front
        finally:
            server.close()
    assert tasks.deaths == 0


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser without a window, with a profile that goes with it."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    with tempfile.TemporaryDirectory(prefix="a2a-browser-", ignore_cleanup_errors=True) as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}"):
            options.add_argument(flag)
        driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(executable_path=DRIVER))
        try:
            yield driver
        finally:
            driver.quit()


class Tab:
    """One page, and what it has been told."""

    def __init__(self, driver: Any) -> None:
        self._driver = driver

    async def go(self, url: str) -> None:
        await asyncio.to_thread(self._driver.get, url)

    async def run(self, script: str) -> Any:
        return await asyncio.to_thread(self._driver.execute_script, script)

    async def value(self, name: str) -> Any:
        return await self.run(f"return window.{name}")

    async def until(self, name: str, condition: Any) -> Any:
        """Look until what the page holds under this name is as it should be."""
        deadline = time.monotonic() + COMES_BACK_S
        while not condition(value := await self.value(name)):
            assert time.monotonic() < deadline, f"{name} is still {value}"
            await asyncio.sleep(0.05)
        return value


@pytest.fixture
async def tab() -> AsyncIterator[Tab]:
    opened = chromium()
    driver = await asyncio.to_thread(opened.__enter__)
    try:
        yield Tab(driver)
    finally:
        await asyncio.to_thread(opened.__exit__, None, None, None)


async def live_through_a_death(world: World, tab: Tab, dying: GatewayProcess, living: GatewayProcess) -> None:
    """Let things happen, kill the replica that the page reads from, let more happen; all of it must be told once."""
    target = await world.workspace()
    await tab.until("opened", lambda opened: opened == 1)
    for number in range(BEFORE):
        await work(world, target, number, living)
    await tab.until("told", lambda told: len(told) == BEFORE)
    dying.send(signal.SIGKILL)
    await dying.wait()
    for number in range(BEFORE, BEFORE + AFTER):
        await work(world, target, number, living)
    await tab.until("opened", lambda opened: opened == 2)
    await work(world, target, BEFORE + AFTER, living)
    wanted = [str(number) for number in range(BEFORE + AFTER + 1)]
    assert await tab.until("told", lambda told: told[-1:] == wanted[-1:]) == wanted
    assert await tab.value("gaps") == []


async def work(world: World, target: Workspace, number: int, gateway: GatewayProcess) -> None:
    assert await world.beat(target, gateway=gateway, current_task=str(number)) == 200


async def test_event_source_behind_something_that_knows_who_asks(world: World, pages: Pages, tab: Tab):
    dying = await world.start(GATEWAY_CORS_ORIGINS=pages.url)
    living = await world.start(GATEWAY_CORS_ORIGINS=pages.url)
    async with in_front_of(dying, living) as front:
        await tab.go(f"{pages.url}/event-source?at={front.url}/events/stream")
        await live_through_a_death(world, tab, dying, living)


async def test_the_reader_that_sends_a_bearer(world: World, pages: Pages, tab: Tab):
    dying = await world.start(GATEWAY_CORS_ORIGINS=pages.url)
    living = await world.start(GATEWAY_CORS_ORIGINS=pages.url)
    streams = "&".join(f"at={one.url}/events/stream" for one in (dying, living))
    await tab.go(f"{pages.url}/reader?{streams}&token={ADMIN_TOKEN}")
    await live_through_a_death(world, tab, dying, living)


async def test_a_page_of_a_site_that_is_not_named_hears_nothing(world: World, pages: Pages, tab: Tab):
    gateway = await world.start()
    target = await world.workspace()
    await tab.go(f"{pages.url}/reader?at={gateway.url}/events/stream&token={ADMIN_TOKEN}")
    await work(world, target, 1, gateway)
    refused = f"fetch('{gateway.url}/healthz').then(() => window.asked = 'answered', () => window.asked = 'refused')"
    await tab.run(refused)
    assert await tab.until("asked", lambda asked: asked is not None) == "refused"
    assert await tab.value("opened") == 0
    assert await tab.value("told") == []
