"""What a client of a2a-sdk sees at an address: `python sdk_client.py URL [BEARER]`, with results as JSON on stdout.

Runs in the environment of the SDK, so it imports nothing of the project.
"""

import asyncio
import json
import sys
import uuid
from collections.abc import Awaitable
from typing import Any

import httpx
from a2a.client import ClientConfig, ClientFactory
from a2a.client.client import Client
from a2a.client.errors import A2AClientError, A2AClientHTTPError, A2AClientJSONRPCError
from a2a.types import (
    AgentCapabilities,
    AgentCard,
    Message,
    MessageSendConfiguration,
    Part,
    Role,
    Task,
    TaskIdParams,
    TaskQueryParams,
    TextPart,
)

DEADLINE_S = 30.0


def card(url: str, *, streaming: bool) -> AgentCard:
    return AgentCard(
        name="under test",
        description="",
        version="1",
        url=url,
        protocol_version="0.3.0",
        preferred_transport="JSONRPC",
        capabilities=AgentCapabilities(streaming=streaming),
        default_input_modes=["text/plain"],
        default_output_modes=["text/plain"],
        skills=[],
    )


def says(text: str) -> Message:
    return Message(role=Role.user, message_id=str(uuid.uuid4()), parts=[Part(root=TextPart(text=text))])


async def send(client: Client, text: str, *, blocking: bool = True) -> Message | Task:
    configuration = MessageSendConfiguration(blocking=blocking)
    events = [event async for event in client.send_message(says(text), configuration=configuration)]
    assert len(events) == 1
    return events[0][0] if isinstance(events[0], tuple) else events[0]


def seen(answer: Message | Task) -> dict[str, Any]:
    """An answer without what differs from run to run."""
    if isinstance(answer, Message):
        return {"kind": answer.kind, "role": answer.role.value, "parts": texts(answer.parts)}
    return {
        "kind": answer.kind,
        "state": answer.status.state.value,
        "artifacts": [texts(artifact.parts) for artifact in answer.artifacts or []],
        "history": [texts(message.parts) for message in answer.history or []],
    }


def texts(parts: list[Part]) -> list[str]:
    return [part.root.text for part in parts]


async def told(work: Awaitable[Message | Task]) -> dict[str, Any]:
    """What becomes of a request, as the SDK tells it."""
    try:
        return seen(await work)
    except A2AClientJSONRPCError as error:
        return {"error": type(error.error).__name__, "code": error.error.code}
    except A2AClientHTTPError as error:
        return {"error": type(error).__name__, "status": error.status_code}
    except A2AClientError as error:
        return {"error": type(error).__name__}


async def main(url: str, bearer: str | None) -> dict[str, Any]:
    headers = {} if bearer is None else {"Authorization": f"Bearer {bearer}"}
    async with httpx.AsyncClient(timeout=DEADLINE_S, headers=headers) as http:
        plain = ClientFactory(ClientConfig(httpx_client=http, streaming=False)).create(card(url, streaming=False))
        streaming = ClientFactory(ClientConfig(httpx_client=http, streaming=True)).create(card(url, streaming=True))
        results = {"send": await told(send(plain, "hi"))}
        if "error" in results["send"]:
            return results
        done = await send(plain, "slow 0.2")
        results["slow"] = seen(done)
        results["get"] = await told(plain.get_task(TaskQueryParams(id=done.id)))
        results["get without history"] = await told(plain.get_task(TaskQueryParams(id=done.id, history_length=0)))
        results["get unknown"] = await told(plain.get_task(TaskQueryParams(id="unknown")))
        begun = await send(plain, "slow 60", blocking=False)
        results["begin"] = seen(begun)
        results["cancel"] = await told(plain.cancel_task(TaskIdParams(id=begun.id)))
        results["cancel again"] = await told(plain.cancel_task(TaskIdParams(id=begun.id)))
        results["get cancelled"] = await told(plain.get_task(TaskQueryParams(id=begun.id)))
        results["stream"] = await told(send(streaming, "hi"))
        return results


if __name__ == "__main__":
    print(json.dumps(asyncio.run(main(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None))))
