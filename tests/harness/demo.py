"""The demo agent as a process of its own, for a workspace of a test."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from tests.harness import process
from tests.harness.world import Workspace


@asynccontextmanager
async def running(target: Workspace, gateway_url: str, folder: Path, *, mode: str = "push") -> AsyncIterator[str]:
    """Run it; the address is its own, or where the gateway takes its messages if it polls."""
    env = {
        "GATEWAY_URL": gateway_url,
        "WORKSPACE_ID": target.id,
        "WORKSPACE_TOKEN": target.token,
        "AGENT_HOST": "127.0.0.1",
        "A2A_DELIVERY_MODE": mode,
        "A2A_STATE_DIR": str(folder),
        "A2A_HEARTBEAT_SECONDS": "0.5",
    }
    async with process.started(env=env, module="runtime.demo") as agent:
        yield agent.url
