"""What is measured: each thing that can stand between the callers and the agent, started and ready to be called."""

import shutil
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp

from bench.message import PRICE
from bench.processes import ROOT, BenchError, Cores, free_port, running

PATH: Final = "/workspaces/bench/a2a"
ADMIN_TOKEN: Final = "admin-token-of-the-bench"
LIMITS: Final = {
    "GATEWAY_PRICES": f"*={PRICE}/{PRICE}",
    **{f"GATEWAY_RATE_{name}": "1000000/1" for name in ("CALLS", "HEARTBEATS", "REQUESTS", "STRICT", "FAILURES")},
}
"""Everything is counted and nobody is turned away."""
BUDGET: Final = 2**50
"""Cents that nobody spends."""


@dataclass(frozen=True, kw_only=True)
class Subject:
    """Where to call, and the process whose CPU time is read; `pid` is None if nothing stands between."""

    name: str
    port: int
    pid: int | None
    path: str = PATH
    headers: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def agent() -> Iterator[Subject]:
    """The agent itself, called directly."""
    with running([sys.executable, "-m", "bench.agent"]) as process:
        yield Subject(name="direct", port=int(process.said), pid=None)


@contextmanager
def bare(agent_port: int, cores: Cores, *, path: str = PATH) -> Iterator[Subject]:
    """The bare aiohttp proxy."""
    command = [sys.executable, "-m", "bench.bare", f"http://127.0.0.1:{agent_port}/"]
    with running(command, measured=cores) as process:
        yield Subject(name="bare aiohttp", port=int(process.said), pid=process.pid, path=path)


@contextmanager
def gateway(env: Mapping[str, str], cores: Cores, *, name: str = "gateway", folder: Path = ROOT) -> Iterator[Subject]:
    """The gateway of this checkout or another, not yet knowing anybody; see `introduce`."""
    command = [sys.executable, "-m", "gateway", "serve", "--host", "127.0.0.1", "--port", "0"]
    env = {**env, **LIMITS, "ADMIN_TOKEN": ADMIN_TOKEN}
    with running(command, env=env, measured=cores, folder=folder) as process:
        yield Subject(name=name, port=int(process.said.rpartition(":")[2]), pid=process.pid)


async def introduce(subject: Subject, agent_port: int) -> Subject:
    """Create the agent's workspace and a caller's, siblings; return the gateway as the caller calls it."""
    root = f"http://127.0.0.1:{subject.port}"
    async with aiohttp.ClientSession(root, headers={"Authorization": f"Bearer {ADMIN_TOKEN}"}) as operator:

        async def create(**fields: object) -> dict[str, str]:
            async with operator.post("/workspaces", json={"external": True, **fields}) as response:
                if response.status != 201:
                    raise BenchError(f"creating a workspace was answered {response.status}: {await response.text()}")
                created = await response.json()
                return {"id": created["id"], "token": created["connection"]["auth_token"]}

        parent = await create(name="parent")
        url = f"http://127.0.0.1:{agent_port}/"
        target = await create(name="agent", parent_id=parent["id"], url=url, budget_limit=BUDGET)
        caller = await create(name="caller", parent_id=parent["id"])
    headers = {"Authorization": f"Bearer {caller['token']}", "X-Workspace-ID": caller["id"]}
    path = f"/workspaces/{target['id']}/a2a"
    return Subject(name=subject.name, port=subject.port, pid=subject.pid, path=path, headers=headers)


_NGINX: Final = """
pid {folder}/nginx.pid; error_log stderr crit; worker_processes 1; daemon off;
events {{ worker_connections 1024; }}
http {{
    access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    upstream agent {{ server 127.0.0.1:{agent_port}; keepalive 64; keepalive_requests 1000000; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{ proxy_pass http://agent; proxy_http_version 1.1; proxy_set_header Connection ""; }}
        location /streams/ {{
            proxy_pass http://agent; proxy_http_version 1.1; proxy_set_header Connection ""; proxy_buffering off;
        }}
    }}
}}
"""
_NCHAN: Final = """
load_module {module}; worker_rlimit_nofile 20000;
pid {folder}/nchan.pid; error_log stderr crit; worker_processes 1; daemon off;
events {{ worker_connections 10000; }}
http {{
    access_log off; keepalive_requests 1000000; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port} backlog=1024;
        location /publish {{ nchan_publisher; nchan_channel_id bench; nchan_message_buffer_length 100; }}
        location /events {{ nchan_subscriber eventsource; nchan_channel_id bench; }}
    }}
}}
"""
_HAPROXY: Final = """
global
    nbthread 1
defaults
    mode http
    timeout connect 5s
    timeout client 30s
    timeout server 30s
    http-reuse always
listen bench
    bind 127.0.0.1:{port}
    server agent 127.0.0.1:{agent_port}
"""
_PEERS: Final[Mapping[str, tuple[str, Callable[[str], list[str]]]]] = {
    "nginx": (_NGINX, lambda config: ["-c", config]),
    "haproxy": (_HAPROXY, lambda config: ["-db", "-f", config]),
}


def absent() -> list[str]:
    """Return the peers that are not installed here."""
    return [name for name in _PEERS if shutil.which(name) is None] + (["nchan"] if _nchan_module() is None else [])


def _nchan_module() -> Path | None:
    program = shutil.which("nginx")
    if program is None:
        return None
    module = Path(program).parent.parent / "lib/nginx/modules/ngx_nchan_module.so"
    return module if module.exists() else None


@contextmanager
def nchan(cores: Cores, folder: Path) -> Iterator[Subject | None]:
    """Yield nginx with its nchan module, and one worker, as a server of events; None if it is not installed here."""
    module, program = _nchan_module(), shutil.which("nginx")
    if module is None or program is None:
        yield None
        return
    port, path = free_port(), folder / "nchan.conf"
    path.write_text(_NCHAN.format(folder=folder, port=port, module=module))
    with running([program, "-c", str(path)], port=port, measured=cores) as process:
        yield Subject(name="nchan", port=port, pid=process.pid)


@contextmanager
def peers(agent_port: int, cores: Cores, folder: Path) -> Iterator[list[Subject]]:
    """The other proxies that are installed here, with one worker each; they keep their files in this folder."""
    with ExitStack() as stack:
        found = []
        for name, (config, arguments) in _PEERS.items():
            program = shutil.which(name)
            if program is None:
                continue
            port, path = free_port(), folder / f"{name}.conf"
            path.write_text(config.format(folder=folder, port=port, agent_port=agent_port))
            process = stack.enter_context(running([program, *arguments(str(path))], port=port, measured=cores))
            found.append(Subject(name=name, port=port, pid=process.pid))
        yield found
