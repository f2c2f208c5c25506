"""What an agent's answer says it used: tokens in and out."""

import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

_INPUT: Final = ("input_tokens", "prompt_tokens", "inputTokens", "promptTokens")
_OUTPUT: Final = ("output_tokens", "completion_tokens", "outputTokens", "completionTokens")
_RESULTS: Final = ("task", "message", "msg")
_MOST: Final = 10**12
LOOKS: Final = 100
_NAME: Final = b'"usage"'
_BLOCK: Final = re.compile(
    rb'"usage"[ \t\r\n]{0,8}:[ \t\r\n]{0,8}(\{[^{}]{0,2048}+(?:\{[^{}]{0,512}+\}[^{}]{0,512}+){0,8}+\})'
)
"""A block, with others in it: some providers tell what of the tokens was cached. Nothing is tried twice."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens of one call; zero where the agent said nothing."""

    input_tokens: int = 0
    output_tokens: int = 0


def read(answer: Any) -> Usage:
    """Read the usage of a parsed JSON-RPC answer.

    Looked for in `result.usage`, `result.metadata.usage` and a top-level `usage`, under the names that the large model
    providers use: the first that says anything counts. Where the result has its task or message in a member of that
    name (A2A 1.0), it is looked for there, too; HTTP+JSON has no `result` around it. Anything odd (negative,
    fractional, huge, of a wrong type) is nothing said.
    """
    if not isinstance(answer, dict):
        return Usage()
    result = answer.get("result", answer)
    inner = [result.get(name) for name in _RESULTS] if isinstance(result, dict) else []
    for holder in (*_with_metadata(result, *inner), answer):
        block = holder.get("usage") if isinstance(holder, dict) else None
        if isinstance(block, dict):
            used = Usage(input_tokens=_first(block, _INPUT), output_tokens=_first(block, _OUTPUT))
            if used.input_tokens or used.output_tokens:
                return used
    return Usage()


def _with_metadata(*holders: Any) -> Iterator[Any]:
    for holder in holders:
        yield holder
        if isinstance(holder, dict):
            yield holder.get("metadata")


def find(body: bytes) -> Usage:
    """Read the usage of an answer that is too long to be parsed: the last block of that name which says anything.

    In strings such a block has its quotes escaped, so that only one that is meant is found. No more than the last
    LOOKS are looked at: an agent may write a million.
    """
    at = len(body)
    for _ in range(LOOKS):
        at = body.rfind(_NAME, 0, at)
        if at < 0:
            break
        match = _BLOCK.match(body, at)
        with suppress(orjson.JSONDecodeError):
            said = Usage() if match is None else read({"usage": orjson.loads(match[1])})
            if said.input_tokens or said.output_tokens:
                return said
    return Usage()


def _first(block: dict[str, Any], names: tuple[str, ...]) -> int:
    for name in names:
        value = block.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST:
            return value
    return 0
