"""The commands of an operator: serve, dev, migrate, login, embedded, secrets-key."""

import asyncio
import dataclasses
import ipaddress
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Final, NoReturn

import click
import uvloop

from gateway import app, logs, process
from gateway.embedded import servers
from gateway.ports import StoreError
from gateway.settings import ADMIN_TOKEN_CHARS, ADMIN_TOKEN_VARIETY, BadSetting, Settings, describe
from gateway.store import migrate as migrations
from gateway.store import vault

DEMO_ID: Final = "00000000-0000-4000-8000-000000000001"
"""The demo agent's workspace; the README's first call goes to it."""


def _settings_help() -> str:
    """Return the table of settings for --help."""
    rows = ["\b", "Settings (environment variables):"]
    for one in describe():
        default = f"{one.default} {one.unit}".strip() if one.default else "unset"
        rows += [f"  {one.name} [default: {default}]", f"      {one.about}"]
    return "\n".join(rows)


@click.group(epilog=_settings_help(), context_settings={"max_content_width": 120})
@click.version_option(version("a2a-gateway"))
def main() -> None:
    """A gateway for A2A agents: it checks, forwards, keeps alive and shows every call."""


def _fail(sentence: str) -> NoReturn:
    click.echo(f"a2a-gateway: {sentence}", err=True)
    raise SystemExit(1)


def _load(**overrides: object) -> Settings:
    """Read the environment and set logging up; a bad value ends the command."""
    logs.configure("text")
    try:
        settings = dataclasses.replace(Settings.from_env(os.environ), **overrides)  # type: ignore[arg-type]
    except BadSetting as error:
        _fail(str(error))
    logs.configure(settings.log_format, secrets=[settings.admin_token, settings.database_url, settings.redis_url])
    return settings


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _announce(url: str) -> None:
    print(f"ready {url}", flush=True)


def _check_admin_token(token: str) -> None:
    """End where an admin token could be guessed, or could not be shown: a header's value has no blanks at its ends."""
    if token != token.strip():
        _fail("ADMIN_TOKEN must not begin or end with a blank")
    if len(token) < ADMIN_TOKEN_CHARS:
        _fail(f"ADMIN_TOKEN must have at least {ADMIN_TOKEN_CHARS} characters")
    if len(set(token)) < ADMIN_TOKEN_VARIETY:
        _fail(f"ADMIN_TOKEN must have at least {ADMIN_TOKEN_VARIETY} different characters")


@main.command(epilog=_settings_help())
@click.option("--host", default="0.0.0.0", show_default=True, help="The address to listen on.")  # noqa: S104
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="The port; 0: a free one.")
@click.option(
    "--migrate/--no-migrate", "migrating", default=True, show_default=True, help="Apply pending migrations first."
)
def serve(host: str, port: int, migrating: bool) -> None:
    """Serve in production, with the datastores that the settings name."""
    settings = _load()
    missing = [
        name
        for name, value in (
            ("GATEWAY_DATABASE_URL", settings.database_url),
            ("GATEWAY_REDIS_URL", settings.redis_url),
            ("ADMIN_TOKEN", settings.admin_token),
        )
        if not value
    ]
    if missing:
        _fail(
            f"serve needs {', '.join(missing)}; `a2a-gateway serve --help` says what each is (or try `a2a-gateway dev`)"
        )
    assert settings.admin_token is not None
    _check_admin_token(settings.admin_token)
    if not _is_loopback(host):
        for name, on in (
            ("GATEWAY_ENABLE_TEST_TOKENS", settings.enable_test_tokens),
            ("GATEWAY_ALLOW_TOKENLESS_REGISTER", settings.allow_tokenless_register),
        ):
            if on:
                _fail(f"{name} is for tests on this machine: listen on 127.0.0.1 (--host), or leave it unset")
    _run(settings, host=host, port=port, dev=False, migrating=migrating)


@main.command(epilog=_settings_help())
@click.option("--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="The port; 0: a free one.")
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Where the data live. Default: .data here, if that works."
)
@click.option("--demo/--no-demo", default=True, show_default=True, help="Start the demo agent, too.")
def dev(port: int, data_dir: Path | None, demo: bool) -> None:
    """Start everything on this machine: PostgreSQL, Valkey, the gateway and a demo agent, on loopback only."""
    settings = _load()
    with _embedded(data_dir) as urls:
        key_file = settings.secrets_key_file or _dev_key(urls.data_dir)
        settings = dataclasses.replace(
            settings, database_url=urls.database_url, redis_url=urls.redis_url, secrets_key_file=key_file
        )
        agents: list[subprocess.Popen[bytes]] = []

        def announce(url: str) -> None:
            if not demo:
                _announce(url)
                return
            agent = _start_demo(url, urls.data_dir / "demo-agent", settings.heartbeat_s)
            agents.append(agent)
            # the agent registers with this very process, which must go on turning meanwhile
            threading.Thread(target=_announce_after, args=(agent, url), daemon=True).start()

        try:
            _run(settings, host="127.0.0.1", port=port, dev=True, migrating=True, announce=announce)
        finally:
            for agent in agents:
                _stop(agent)


@main.command()
@click.option("--rollback", type=click.IntRange(1), help="Undo this many of the latest migrations instead.")
def migrate(rollback: int | None) -> None:
    """Bring the schema of GATEWAY_DATABASE_URL up to date."""
    settings = _load()
    if not settings.database_url:
        _fail("migrate needs GATEWAY_DATABASE_URL")
    try:
        if rollback:
            done, what = migrations.rollback(settings.database_url, count=rollback), "rolled back"
        else:
            done, what = migrations.migrate(settings.database_url), "applied"
    except (StoreError, ValueError) as error:
        _fail(f"the schema was not changed further: {error}")
    click.echo("\n".join(f"{what} {one}" for one in done) if done else "nothing to do")


@main.command()
@click.option(
    "--data-dir", type=click.Path(path_type=Path), help="Where the data live. Default: .data here, if that works."
)
def embedded(data_dir: Path | None) -> None:
    """Run only the bundled PostgreSQL and Valkey, until SIGTERM, SIGINT or the end of standard input's owner."""
    logs.configure("text")
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with _embedded(data_dir) as urls:
        print(f"GATEWAY_DATABASE_URL={urls.database_url}\nGATEWAY_REDIS_URL={urls.redis_url}", flush=True)
        stop.wait()


@main.command()
@click.option("--url", help="The gateway, as the browser reaches it. Default: GATEWAY_PUBLIC_URL, or port 8080 here.")
def login(url: str | None) -> None:
    """Print a link that opens one session of the operator in a browser, within ten minutes.

    Needs GATEWAY_DATABASE_URL and ADMIN_TOKEN, as the gateway has them.
    """
    settings = _load()
    try:
        code = asyncio.run(app.login_code(settings))
    except (StoreError, ValueError) as error:
        _fail(str(error))
    base = (url or settings.public_url or "http://127.0.0.1:8080").rstrip("/")
    click.echo(f"{base}/login?code={code}")


@main.command("secrets-key")
def secrets_key() -> None:
    """Print a fresh key for GATEWAY_SECRETS_KEY_FILE."""
    click.echo(vault.new_key())


@contextmanager
def _embedded(data_dir: Path | None) -> Iterator[servers.Urls]:
    try:
        with servers.running(data_dir) as urls:
            yield urls
    except servers.EmbeddedError as error:
        _fail(str(error))


def _dev_key(data_dir: Path) -> Path:
    """Return the key file of a development folder, made on first use."""
    path = data_dir / "secrets.key"
    if not path.exists():
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(vault.new_key())
    return path


def _start_demo(url: str, state_dir: Path, heartbeat_s: float) -> "subprocess.Popen[bytes]":
    """Start the demo agent; it stores its own token and ends when its standard input does, so it cannot outlive us."""
    mine = {
        "GATEWAY_URL": url,
        "WORKSPACE_ID": DEMO_ID,
        "AGENT_HOST": "127.0.0.1",
        "AGENT_PORT": "0",
        "A2A_STATE_DIR": str(state_dir),
        "A2A_HEARTBEAT_SECONDS": str(heartbeat_s),
        "A2A_STOP_WITH_STDIN": "1",
    }
    kept = {name: value for name, value in os.environ.items() if name not in ("ADMIN_TOKEN", "WORKSPACE_TOKEN")}
    return subprocess.Popen(
        [sys.executable, "-m", "runtime.demo"],
        env={**kept, **mine},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        start_new_session=True,
    )


def _announce_after(agent: "subprocess.Popen[bytes]", url: str) -> None:
    """Say that we are ready once the demo agent has registered, or has failed to; then pass on what else it says."""
    assert agent.stdout is not None
    first = agent.stdout.readline()
    if not first.startswith(b"ready "):
        click.echo("a2a-gateway: the demo agent did not start; what it said stands above", err=True)
    _announce(url)
    for line in agent.stdout:
        click.echo(line, nl=False, err=True)


def _stop(agent: "subprocess.Popen[bytes]") -> None:
    agent.terminate()
    try:
        agent.wait(5)
    except subprocess.TimeoutExpired:
        agent.kill()
        agent.wait()


def _run(settings: Settings, *, host: str, port: int, dev: bool, migrating: bool, announce: object = None) -> None:
    assert settings.database_url is not None
    try:
        app.check(settings)
        if migrating:
            migrations.migrate(settings.database_url)
        elif waiting := migrations.pending(settings.database_url):
            _fail(f"the schema lacks {', '.join(waiting)}: run `a2a-gateway migrate`, or leave --no-migrate out")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(process.serve(settings, host=host, port=port, dev=dev, announce=announce or _announce))  # type: ignore[arg-type]
    except (StoreError, vault.BadKey, ValueError) as error:
        _fail(str(error))
    except OSError as error:
        _fail(f"cannot listen on {host}:{port}: {error.strerror or error}")


if __name__ == "__main__":
    main()
