"""The gateway as an agent sees it: a few requests, and a closed set of answers."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus

import aiohttp
import orjson

from runtime.jsonrpc import JsonObject

TIMEOUT_S = 10.0
ANSWER_LIMIT_BYTES = 64 * 1024
INBOX_LIMIT_BYTES = 16 * 1024 * 1024
SENTENCE_LIMIT = 300
RETRY_AFTER_LIMIT_S = 60.0
TRY_LATER = {408, 425, 429}


@dataclass(frozen=True, kw_only=True)
class Registered:
    """The gateway knows us; the secrets are those it sent along, None where it sent none."""

    token: str | None = field(repr=False)
    inbound_secret: str | None = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Beaten:
    """The heartbeat was taken."""


@dataclass(frozen=True, kw_only=True)
class Message:
    """A call out of the inbox: `request` is the JSON-RPC request as its caller sent it."""

    id: str
    request: JsonObject = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class Taken:
    """The oldest messages, which nobody else gets for so many seconds; none if none came."""

    messages: tuple[Message, ...]
    lease_s: float


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What we said about a message was taken."""


@dataclass(frozen=True, kw_only=True)
class Refused:
    """The gateway said no (any 3xx or 4xx that is not one of the others), in its own words."""

    status: int
    sentence: str


@dataclass(frozen=True, kw_only=True)
class Removed:
    """410: the workspace is gone for good."""

    sentence: str


@dataclass(frozen=True, kw_only=True)
class Later:
    """The gateway is there and cannot now (429, 5xx); `retry_after_s` is what it asked for, 0 where it did not."""

    sentence: str
    retry_after_s: float


@dataclass(frozen=True, kw_only=True)
class Away:
    """Nobody answered."""

    sentence: str


Problem = Refused | Removed | Later | Away


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: object


class GatewayClient:
    """All that an agent asks of the gateway of `gateway_url`. A problem is a value; nothing is raised for it."""

    def __init__(self, *, gateway_url: str, session: aiohttp.ClientSession) -> None:
        self._base = gateway_url.rstrip("/")
        self._session = session

    def __repr__(self) -> str:
        return f"<GatewayClient {self._base}>"

    async def register(
        self, *, workspace_id: str, url: str | None, card: JsonObject, token: str | None
    ) -> Registered | Problem:
        """Make the workspace known as reachable at `url`; with None, as one that fetches its messages."""
        registration: JsonObject = {"id": workspace_id, "agent_card": card, "delivery_mode": "poll"}
        if url is not None:
            registration |= {"url": url, "delivery_mode": "push"}
        got = await self._post("/registry/register", registration, token)
        if isinstance(got, Away):
            return got
        if got.status != HTTPStatus.OK or not isinstance(got.body, dict):
            return read_problem(got.status, got.headers, got.body)
        return Registered(
            token=_text(got.body.get("auth_token")),
            inbound_secret=_text(got.body.get("platform_inbound_secret")),
        )

    async def heartbeat(self, beat: JsonObject, *, token: str | None) -> Beaten | Problem:
        """Show a sign of life; `beat` is the body with its `workspace_id`."""
        got = await self._post("/registry/heartbeat", beat, token)
        if isinstance(got, Away):
            return got
        if got.status != HTTPStatus.OK or not isinstance(got.body, dict):
            return read_problem(got.status, got.headers, got.body)
        return Beaten()

    async def take(self, workspace_id: str, *, wait_s: float, limit: int, token: str | None) -> Taken | Problem:
        """Fetch at most so many messages, and wait at most `wait_s` seconds for one."""
        path = f"/workspaces/{workspace_id}/inbox?wait={wait_s:g}&limit={limit}"
        timeout = aiohttp.ClientTimeout(total=wait_s + TIMEOUT_S)
        got = await self._ask("GET", path, None, token, timeout=timeout, limit_bytes=INBOX_LIMIT_BYTES)
        if isinstance(got, Away):
            return got
        taken = _read_taken(got.body) if got.status == HTTPStatus.OK else None
        return read_problem(got.status, got.headers, got.body) if taken is None else taken

    async def reply(self, workspace_id: str, call_id: str, answer: bytes, *, token: str | None) -> Settled | Problem:
        """Answer a message with a JSON-RPC response."""
        body = {"body": orjson.Fragment(answer)}
        return await self._settle(f"/workspaces/{workspace_id}/inbox/{call_id}/reply", body, token)

    async def keep(self, workspace_id: str, call_id: str, *, token: str | None) -> Settled | Problem:
        """Say that we still work on a message, and no more: its lease begins anew."""
        return await self.tell(workspace_id, call_id, {}, token=token)

    async def tell(self, workspace_id: str, call_id: str, event: JsonObject, *, token: str | None) -> Settled | Problem:
        """Tell a caller that streams an event of A2A; the message's lease begins anew with it, too."""
        return await self._settle(f"/workspaces/{workspace_id}/inbox/{call_id}/events", {"event": event}, token)

    async def _settle(self, path: str, body: JsonObject, token: str | None) -> Settled | Problem:
        got = await self._post(path, body, token)
        if isinstance(got, Away):
            return got
        if got.status != HTTPStatus.OK or not isinstance(got.body, dict):
            return read_problem(got.status, got.headers, got.body)
        return Settled()

    async def _post(self, path: str, body: JsonObject, token: str | None) -> _Answer | Away:
        return await self._ask("POST", path, orjson.dumps(body), token)

    async def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None,
        token: str | None,
        *,
        timeout: aiohttp.ClientTimeout | None = None,
        limit_bytes: int = ANSWER_LIMIT_BYTES,
    ) -> _Answer | Away:
        headers = {} if body is None else {"Content-Type": "application/json"}
        if token is not None:
            headers["Authorization"] = f"Bearer {token}"
        try:
            async with self._session.request(
                method,
                self._base + path,
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=timeout or self._session.timeout,
            ) as response:
                read = await _read_json(response, limit_bytes)
                return _Answer(status=response.status, headers=response.headers, body=read)
        except TimeoutError:
            return Away(sentence="no answer in time")
        except aiohttp.ClientError as error:
            return Away(sentence=_sentence(str(error)) or type(error).__name__)


@asynccontextmanager
async def connected(gateway_url: str) -> AsyncIterator[GatewayClient]:
    """A client with its connections, which close at the end of the `with`."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout, cookie_jar=aiohttp.DummyCookieJar()) as session:
        yield GatewayClient(gateway_url=gateway_url, session=session)


def read_problem(status: int, headers: Mapping[str, str], body: object) -> Refused | Removed | Later:
    """Which problem an answer is: `body` is its JSON, or None where it had none. A 200 without an object is Later."""
    sentence = _sentence(body.get("error") if isinstance(body, dict) else None) or _reason(status)
    if status == HTTPStatus.GONE:
        return Removed(sentence=sentence)
    if status in TRY_LATER or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Later(sentence=sentence, retry_after_s=_retry_after_s(headers.get("Retry-After", "")))
    if status < HTTPStatus.MULTIPLE_CHOICES:
        return Later(sentence="the answer is not a gateway's", retry_after_s=0)
    return Refused(status=status, sentence=sentence)


def _read_taken(body: object) -> Taken | None:
    """The messages of an answer; None where it is no gateway's."""
    match body:
        case {"messages": list(messages), "lease_seconds": int() | float() as lease_s}:
            known = [
                Message(id=one["id"], request=one["request"])
                for one in messages
                if isinstance(one, dict) and isinstance(one.get("id"), str) and isinstance(one.get("request"), dict)
            ]
            return Taken(messages=tuple(known), lease_s=float(lease_s))
        case _:
            return None


async def _read_json(response: aiohttp.ClientResponse, limit_bytes: int) -> object:
    """The answer's JSON; None where it is none, or longer than a gateway's answer can be."""
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > limit_bytes:
            response.close()
            return None
    try:
        parsed: object = orjson.loads(bytes(body))
    except orjson.JSONDecodeError:
        return None
    return parsed


def _sentence(error: object) -> str:
    """The words of `error` on one printable line, bounded; empty where it has none."""
    if isinstance(error, dict):
        error = error.get("message")
    if not isinstance(error, str):
        return ""
    return "".join(letter if letter.isprintable() else " " for letter in error[:SENTENCE_LIMIT]).strip()


def _reason(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return f"status {status}"


def _retry_after_s(value: str) -> float:
    """Whole seconds as the gateway writes them, at most a minute; 0 for anything else."""
    return min(float(value), RETRY_AFTER_LIMIT_S) if value.isascii() and value.isdigit() else 0.0


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
