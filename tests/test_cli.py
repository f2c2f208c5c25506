"""The commands, as their user types them."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import aiohttp
import psutil
import psycopg2
import pytest
import structlog
from click.testing import CliRunner, Result
from redis import Redis

from gateway.cli import DEMO_ID, main
from gateway.settings import describe
from gateway.store.vault import FernetVault
from tests.harness import folders, process
from tests.harness.family import descendants, gone, seen

TOKEN = "0123456789abcdef"
NOWHERE = "postgresql://u:hunter2@127.0.0.1:1/x"
SERVE = ("serve", "--host", "127.0.0.1", "--port", "0")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Result]]:
    """`run("serve", ADMIN_TOKEN=...)` in this very process, with an environment that has only these settings."""
    for name in [one.name for one in describe()]:
        monkeypatch.delenv(name, raising=False)
    logging = structlog.get_config()

    def run(*arguments: str, **env: str) -> Result:
        return CliRunner().invoke(main, list(arguments), env=env)

    yield run
    structlog.configure(**logging)


@pytest.fixture
def open_tmp() -> Iterator[Path]:
    """A folder through which the servers' user may pass."""
    path = folders.fresh("a2a-cli-")
    path.chmod(0o755)
    try:
        yield path
    finally:
        shutil.rmtree(path)


def refusal(result: Result) -> str:
    """The one sentence with which a command has ended."""
    assert result.exit_code == 1, result.output
    assert result.stdout == ""
    [sentence] = result.stderr.splitlines()
    assert sentence.startswith("a2a-gateway: ")
    return sentence.removeprefix("a2a-gateway: ")


# -- serve refuses


def complete(**other: str) -> dict[str, str]:
    whole = {"GATEWAY_DATABASE_URL": NOWHERE, "GATEWAY_REDIS_URL": "redis://127.0.0.1:1", "ADMIN_TOKEN": TOKEN}
    return {name: value for name, value in {**whole, **other}.items() if value}


@pytest.mark.parametrize("missing", ["GATEWAY_DATABASE_URL", "GATEWAY_REDIS_URL", "ADMIN_TOKEN"])
def test_serve_names_what_is_missing(run, missing):
    assert refusal(run("serve", **complete(**{missing: ""}))).startswith(f"serve needs {missing}; ")


def test_serve_names_all_that_is_missing_at_once_and_where_help_is(run):
    sentence = refusal(run("serve"))
    assert "GATEWAY_DATABASE_URL, GATEWAY_REDIS_URL, ADMIN_TOKEN" in sentence
    assert "serve --help" in sentence


def test_serve_wants_a_long_admin_token_and_does_not_repeat_a_short_one(run):
    sentence = refusal(run("serve", **complete(ADMIN_TOKEN=TOKEN[:-1])))
    assert sentence == "ADMIN_TOKEN must have at least 16 characters"


@pytest.mark.parametrize("token", [" " * 16, "a" * 16, "abcde" * 10, f" {TOKEN}", f"{TOKEN}\n", f"\t{TOKEN}"])
def test_serve_wants_an_admin_token_that_is_not_easily_guessed_or_mistyped(run, token):
    sentence = refusal(run("serve", **complete(ADMIN_TOKEN=token)))
    blank = token != token.strip()
    wanted = "not begin or end with a blank" if blank else "have at least 6 different characters"
    assert sentence == f"ADMIN_TOKEN must {wanted}"


def test_serve_takes_an_admin_token_of_few_letters(run):
    assert "ADMIN_TOKEN" not in refusal(run("serve", **complete(ADMIN_TOKEN="abcdef" * 3)))


@pytest.mark.parametrize("name", ["GATEWAY_ENABLE_TEST_TOKENS", "GATEWAY_ALLOW_TOKENLESS_REGISTER"])
def test_serve_opens_nothing_to_the_network_that_is_meant_for_tests(run, name):
    for host in ((), ("--host", "0.0.0.0"), ("--host", "::"), ("--host", "10.0.0.1"), ("--host", "gateway.example")):
        assert refusal(run("serve", *host, **complete(**{name: "1"}))).startswith(
            f"{name} is for tests on this machine"
        )
    for host in ("127.0.0.1", "::1", "localhost"):
        assert name not in refusal(run("serve", "--host", host, **complete(**{name: "1"})))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("GATEWAY_MAX_CALLS", "0"),
        ("GATEWAY_ALLOW_PRIVATE_AGENTS", "maybe"),
        ("A2A_CEILING_SECONDS", "soon"),
        ("GATEWAY_DRAIN_SECONDS", "-1"),
    ],
)
@pytest.mark.parametrize("command", ["serve", "dev", "migrate"])
def test_a_bad_value_ends_every_command_that_reads_settings(run, command, name, value):
    assert refusal(run(command, **complete(**{name: value}))).startswith(f"{name}='{value}' cannot be used: ")


@pytest.mark.parametrize("command", ["serve", "migrate"])
def test_a_database_that_cannot_be_reached_or_is_none_is_told_without_its_password(run, command):
    for url in (NOWHERE, "mysql://u:hunter2@h/x", "postgresql://u:hunter2@nowhere.invalid/x"):
        assert "hunter2" not in refusal(run(command, **complete(GATEWAY_DATABASE_URL=url)))


async def refused(*arguments: str, env: Mapping[str, str]) -> str:
    """The last line of a process that did not become ready."""
    async with process.started(*arguments, env={"GATEWAY_LOG_FORMAT": "json", **env}, ready=False) as gateway:
        assert await gateway.wait() == 1
        *logs, sentence = gateway.log().splitlines()
        assert all(line.startswith("{") for line in logs)
    assert sentence.startswith("a2a-gateway: ")
    return sentence.removeprefix("a2a-gateway: ")


async def test_serve_refuses_what_it_finds_out_while_starting(servers, migrated_database_url, tmp_path):
    whole = {
        "GATEWAY_DATABASE_URL": migrated_database_url,
        "GATEWAY_REDIS_URL": servers.redis_url,
        "ADMIN_TOKEN": TOKEN,
    }
    key = tmp_path / "key"
    key.write_text("no key")
    key.chmod(0o600)
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        port = taken.getsockname()[1]
        sentences = await asyncio.gather(
            refused(*SERVE, env={**whole, "GATEWAY_REDIS_URL": "http://127.0.0.1"}),
            refused(*SERVE, env={**whole, "GATEWAY_SECRETS_KEY_FILE": str(tmp_path / "nowhere")}),
            refused(*SERVE, env={**whole, "GATEWAY_SECRETS_KEY_FILE": str(key)}),
            refused("serve", "--host", "127.0.0.1", "--port", str(port), env=whole),
        )
    assert "redis://" in sentences[0]
    assert sentences[1].startswith(f"{tmp_path / 'nowhere'} cannot be read")
    assert "secrets-key" in sentences[2]
    assert sentences[3].startswith(f"cannot listen on 127.0.0.1:{port}: ")


# -- what is said of it


@pytest.mark.parametrize("arguments", [["--help"], ["serve", "--help"], ["dev", "--help"]])
def test_help_names_every_setting_with_its_default(run, arguments):
    result = run(*arguments)
    assert result.exit_code == 0
    for one in describe():
        line = next(line for line in result.stdout.splitlines() if line.strip().split(" ")[0] == one.name)
        assert line.endswith(f"[default: {f'{one.default} {one.unit}'.strip() if one.default else 'unset'}]")


def test_help_names_every_command(run):
    for command in ("serve", "dev", "migrate", "embedded", "secrets-key"):
        assert command in run("--help").stdout
        assert command in main.commands


@pytest.mark.parametrize("port", ["-1", "65536", "http"])
def test_a_port_that_is_none_is_a_mistake_in_usage(run, port):
    result = run("serve", "--port", port, **complete())
    assert (result.exit_code, "--port" in result.stderr) == (2, True)


def test_a_fresh_key_is_a_key_and_another_each_time(run):
    keys = {run("secrets-key").stdout for _ in range(2)}
    assert len(keys) == 2
    for key in keys:
        assert FernetVault(key.strip().encode()).seal("x")


# -- migrate


def test_migrate_says_what_it_has_done_and_when_there_is_nothing_to_do(run, migrated_database_url):
    database = {"GATEWAY_DATABASE_URL": migrated_database_url}
    assert run("migrate", **database).stdout == "nothing to do\n"
    back = run("migrate", "--rollback", "1", **database)
    [what] = back.stdout.splitlines()
    assert what.startswith("rolled back ")
    again = run("migrate", **database)
    assert again.stdout == what.replace("rolled back", "applied") + "\n"
    assert (back.exit_code, again.exit_code) == (0, 0)


def test_migrate_needs_a_database(run):
    assert refusal(run("migrate")) == "migrate needs GATEWAY_DATABASE_URL"


# -- embedded and dev


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in 30 s"
        time.sleep(0.01)


def test_embedded_prints_two_settings_that_work_and_takes_its_servers_along(open_tmp):
    command = (sys.executable, "-m", "gateway", "embedded", "--data-dir", str(open_tmp / "a $b & 'c"))
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True) as embedded:
        try:
            assert embedded.stdout is not None
            printed = embedded.stdout.readline() + embedded.stdout.readline()
            env = dict(line.split("=", 1) for line in printed.splitlines())
            (open_tmp / "servers.env").write_text(printed)
            shell = ("sh", "-ec", "set -a; . ./servers.env; env")  # as the README says
            sourced = subprocess.run(shell, cwd=open_tmp, env={}, capture_output=True, text=True, check=True).stdout
            assert set(printed.splitlines()) <= set(sourced.splitlines())
            assert list(env) == ["GATEWAY_DATABASE_URL", "GATEWAY_REDIS_URL"]
            with closing(psycopg2.connect(env["GATEWAY_DATABASE_URL"])) as session, session.cursor() as cursor:
                cursor.execute("select 1")
                assert cursor.fetchall() == [(1,)]
            with closing(Redis.from_url(env["GATEWAY_REDIS_URL"])) as client:
                assert client.ping()
            servers = descendants(embedded.pid)
            embedded.send_signal(signal.SIGTERM)
            assert embedded.wait(30) == 0
            assert gone(servers)
        finally:
            embedded.kill()


def test_a_folder_that_is_not_ours_is_refused_in_one_sentence(run, open_tmp):
    (open_tmp / "letters").mkdir()
    (open_tmp / "letters/to a friend").write_text("dear")
    for command in ("embedded", "dev"):
        result = subprocess.run(
            (sys.executable, "-m", "gateway", command, "--data-dir", str(open_tmp / "letters")),
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert (result.returncode, result.stdout) == (1, "")
        [sentence] = result.stderr.splitlines()
        assert sentence.startswith("a2a-gateway: ")
        assert "letters" in sentence


async def get(url: str, path: str) -> tuple[int, Any]:
    async with aiohttp.ClientSession() as session, session.get(url + path) as response:
        return response.status, await response.json()


async def test_dev_is_ready_when_its_demo_has_registered_and_ends_with_everything_it_started(open_tmp):
    arguments = ("dev", "--port", "0", "--data-dir", str(open_tmp / "d"))
    async with process.started(*arguments, env={}) as gateway:
        status, demo = await get(gateway.url, f"/workspaces/{DEMO_ID}")
        assert (status, demo["status"]) == (200, "online")
        assert gateway.url.startswith("http://127.0.0.1:")
        started = descendants(gateway.pid)
        assert {"postgres", "valkey-server"} <= set(seen(started, psutil.Process.name))
        assert any("runtime.demo" in command for command in seen(started, psutil.Process.cmdline))
        assert await gateway.stop() == 0
        wait_until(lambda: gone(started))
    # a second start keeps the data and the key
    key = (open_tmp / "d/secrets.key").read_text()
    async with process.started(*arguments, "--no-demo", env={}) as gateway:
        status, demo = await get(gateway.url, f"/workspaces/{DEMO_ID}")
        assert (status, demo["id"]) == (200, DEMO_ID)
        assert not any("runtime.demo" in command for command in seen(descendants(gateway.pid), psutil.Process.cmdline))
        assert await gateway.stop() == 0
    assert (open_tmp / "d/secrets.key").read_text() == key
    assert os.stat(open_tmp / "d/secrets.key").st_mode & 0o077 == 0


async def test_a_killed_dev_leaves_nobody_behind(open_tmp):
    async with process.started("dev", "--port", "0", "--data-dir", str(open_tmp / "d"), env={}) as gateway:
        started = descendants(gateway.pid)
        names = set(seen(started, psutil.Process.name))
        demo = [command for command in seen(started, psutil.Process.cmdline) if "runtime.demo" in command]
        gateway.send(signal.SIGKILL)
        await gateway.wait()
        wait_until(lambda: gone(started))
    assert {"postgres", "valkey-server"} <= names
    assert len(demo) == 1


async def test_dev_is_not_ready_before_its_demo_has_had_its_chance_and_says_when_it_failed(open_tmp):
    """The demo agent's state folder is a file: it cannot store its token, so it ends, and the gateway goes on."""
    async with process.started("dev", "--port", "0", "--data-dir", str(open_tmp / "d"), "--no-demo", env={}) as gateway:
        assert await gateway.stop() == 0
    (open_tmp / "d/demo-agent").write_text("in the way")
    async with process.started("dev", "--port", "0", "--data-dir", str(open_tmp / "d"), env={}) as gateway:
        assert "the demo agent did not start" in gateway.log()
        assert (await get(gateway.url, "/healthz"))[0] == 200
        assert await gateway.stop() == 0
