"""What schemathesis is told of this gateway: a workspace that exists, and which server errors are in order."""

import os
from typing import Any

import schemathesis

TARGET = os.environ["TARGET_WORKSPACE"]
AGENT_URL = os.environ["TARGET_AGENT_URL"]
UUID_CHARS = 36
OURS = {"internal", "platform_unavailable"}
"""The codes of server errors that nothing gives a reason for: all datastores are there."""


@schemathesis.hook
def map_path_parameters(context: Any, path_parameters: Any) -> Any:
    """Let every second workspace that is asked for be one that exists, and stays; and each that is sent a message."""
    operation = context.operation
    if path_parameters and operation.method.upper() != "DELETE":
        called = operation.path.rstrip("/").endswith("/a2a")
        if _is_even(path_parameters.get("workspace_id")) or (called and "workspace_id" in path_parameters):
            path_parameters["workspace_id"] = TARGET
    return path_parameters


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    """Let it register and beat, too, and stay where it is."""
    if isinstance(body, dict):
        for name in ("id", "workspace_id"):
            if _is_even(body.get(name)):
                body[name] = TARGET
                if "url" in body:
                    body["url"] = AGENT_URL
        if str(body.get("url")).startswith("http"):  # nothing is ever sent elsewhere
            body["url"] = AGENT_URL
    return body


def _is_even(id_: Any) -> bool:
    return isinstance(id_, str) and len(id_) == UUID_CHARS and id_[-1] in "02468ace"


@schemathesis.check
def nothing_breaks(ctx: Any, response: Any, case: Any) -> None:
    """An agent or a clock may be at fault, or too many may read, and each is told; the gateway's code may not."""
    if response.status_code >= 500:
        assert response.status_code in (502, 503, 504)
        assert response.json()["code"] not in OURS
