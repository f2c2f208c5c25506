"""What tokens cost. Prices are cents a million tokens, so that tokens times price is millionths of a cent, exactly."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from gateway.core.usage import Usage

MILLION: Final = 1_000_000
"""Millionths in a cent."""
MOST: Final = 10**12
"""The most that one call is charged (millionths of a cent): the agent says what it used, and may say anything."""
ANY: Final = "*"
"""The model whose price holds for all that have none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Price:
    """Cents a million tokens, in and out."""

    input: int
    output: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Prices:
    """The price of each model."""

    by_model: Mapping[str, Price] = field(default_factory=dict)

    def has(self, model: str | None) -> bool:
        """Return whether this model has a price."""
        return (model or ANY) in self.by_model or ANY in self.by_model

    def cost(self, model: str | None, usage: Usage) -> int:
        """Return what this usage costs, in millionths of a cent; nothing where the model has no price."""
        price = self.by_model.get(model or ANY) or self.by_model.get(ANY)
        if price is None:
            return 0
        return min(MOST, usage.input_tokens * price.input + usage.output_tokens * price.output)

    def __str__(self) -> str:
        return ",".join(f"{model}={one.input}/{one.output}" for model, one in self.by_model.items())
