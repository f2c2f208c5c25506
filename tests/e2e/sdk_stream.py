"""What a client of a2a-sdk gets of streams at an address: `python sdk_stream.py BINDING URL TEXTS [BEARER]`, as JSON on
stdout.

TEXTS: what is said to the agent, a stream each, separated by commas; `again` asks for the rest of the last one's task.
BINDING: JSONRPC or HTTP+JSON. Runs in the environment of the SDK, of whatever version, so it imports nothing of the
project.
"""

import asyncio
import json
import sys
import uuid
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import httpx
from a2a import types
from a2a.client import ClientConfig, ClientFactory
from a2a.client.errors import A2AClientError
from google.protobuf.json_format import ParseError

DEADLINE_S = 20.0
V1 = version("a2a-sdk").startswith("1.")
BINDINGS = "supported_protocol_bindings" if V1 else "supported_transports"
COMMON = {
    "name": "under test",
    "description": "",
    "version": "1",
    "capabilities": types.AgentCapabilities(streaming=True),
    "default_input_modes": ["text/plain"],
    "default_output_modes": ["text/plain"],
    "skills": [],
}


def card(url: str, binding: str) -> Any:
    if V1:
        interface = types.AgentInterface(url=url, protocol_binding=binding, protocol_version="1.0")
        return types.AgentCard(**COMMON, supported_interfaces=[interface])
    return types.AgentCard(**COMMON, url=url, protocol_version="0.3.0", preferred_transport=binding)


def stream(client: Any, text: str, task_id: str) -> AsyncIterator[Any]:
    if V1:
        if text == "again":
            return client.subscribe(types.SubscribeToTaskRequest(id=task_id))
        message = types.Message(role="ROLE_USER", message_id=str(uuid.uuid4()), parts=[types.Part(text=text)])
        return client.send_message(types.SendMessageRequest(message=message))
    if text == "again":
        return client.resubscribe(types.TaskIdParams(id=task_id))
    part = types.Part(root=types.TextPart(text=text))
    return client.send_message(types.Message(role="user", message_id=str(uuid.uuid4()), parts=[part]))


def seen(event: Any) -> dict[str, Any]:
    """An event without what differs from run to run."""
    if V1:
        kind = event.WhichOneof("payload")
        one = getattr(event, kind)
        parts = one.artifact.parts if kind == "artifact_update" else one.parts if kind == "message" else []
        texts = [part.text for part in parts]
        state = types.TaskState.Name(one.status.state) if kind in ("task", "status_update") else None
        return {"kind": kind, "state": state, "texts": texts}
    task, update = (event, None) if isinstance(event, types.Message) else event
    one = task if update is None else update
    parts = one.artifact.parts if one.kind == "artifact-update" else one.parts if one.kind == "message" else []
    texts = [part.root.text for part in parts]
    return {"kind": one.kind, "state": one.status.state.value if hasattr(one, "status") else None, "texts": texts}


def told(error: Exception) -> dict[str, Any]:
    """An error as the SDK shows it: those of 1.x keep no more of it than its words, and so do all by HTTP+JSON."""
    rpc = getattr(error, "error", None)
    return {
        "words_alone": V1,
        "words": str(error),
        "code": getattr(rpc, "code", None),
        "data": getattr(rpc, "data", None),
    }


async def main(binding: str, url: str, texts: list[str], bearer: str | None) -> list[dict[str, Any]]:
    headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
    results = []
    async with httpx.AsyncClient(timeout=DEADLINE_S, headers=headers) as http:
        config = ClientConfig(httpx_client=http, streaming=True, **{BINDINGS: [binding]})
        client = ClientFactory(config).create(card(url, binding))
        for text in texts:
            result: dict[str, Any] = {"events": [], "error": None}
            try:
                async for event in stream(client, text, "task-1"):
                    result["events"].append(seen(event))
            except (A2AClientError, ParseError) as error:
                result["error"] = told(error)
            results.append(result)
    return results


if __name__ == "__main__":
    said = asyncio.run(main(*sys.argv[1:3], sys.argv[3].split(","), sys.argv[4] if len(sys.argv) > 4 else None))
    print(json.dumps(said))
