"""What an agent's answer says it used: tokens in and out."""

from dataclasses import dataclass
from typing import Any, Final

_INPUT: Final = ("input_tokens", "prompt_tokens", "inputTokens", "promptTokens")
_OUTPUT: Final = ("output_tokens", "completion_tokens", "outputTokens", "completionTokens")
_MOST: Final = 10**12


@dataclass(frozen=True, kw_only=True, slots=True)
class Usage:
    """Tokens of one call; zero where the agent said nothing."""

    input_tokens: int = 0
    output_tokens: int = 0


def read(answer: Any) -> Usage:
    """Read the usage of a parsed JSON-RPC answer.

    Looked for in `result.usage`, `result.metadata.usage` and a top-level `usage`, in this order, under the names that
    the large model providers use. Anything odd (negative, fractional, huge, of a wrong type) counts as nothing said.
    """
    match answer:
        case {"result": {"usage": dict(block)}}:
            pass
        case {"result": {"metadata": {"usage": dict(block)}}}:
            pass
        case {"usage": dict(block)}:
            pass
        case _:
            return Usage()
    return Usage(input_tokens=_first(block, _INPUT), output_tokens=_first(block, _OUTPUT))


def _first(block: dict[str, Any], names: tuple[str, ...]) -> int:
    for name in names:
        value = block.get(name)
        if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _MOST:
            return value
    return 0
