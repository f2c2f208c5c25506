"""core.prices: what tokens cost."""

from hypothesis import given
from hypothesis import strategies as st

from gateway.core.prices import MILLION, MOST, Price, Prices
from gateway.core.usage import Usage

PRICES = Prices(by_model={"large": Price(input=300, output=1500), "*": Price(input=10, output=20)})


def test_a_million_tokens_cost_their_price_and_one_token_its_millionth():
    assert PRICES.cost("large", Usage(input_tokens=1_000_000, output_tokens=1_000_000)) == 1800 * MILLION
    assert PRICES.cost("large", Usage(input_tokens=1)) == 300


def test_a_model_without_a_price_has_that_of_any_and_without_one_nothing_is_counted():
    usage = Usage(input_tokens=2, output_tokens=1)
    assert PRICES.cost("unheard of", usage) == PRICES.cost(None, usage) == 40
    assert Prices().cost("large", usage) == 0
    assert Prices(by_model={"large": Price(input=1, output=1)}).cost("small", usage) == 0


@given(st.integers(0, 10**12), st.integers(0, 10**12))
def test_no_call_costs_more_than_counts(tokens_in, tokens_out):
    assert 0 <= PRICES.cost("large", Usage(input_tokens=tokens_in, output_tokens=tokens_out)) <= MOST


def test_prices_are_shown_as_they_are_written():
    assert str(PRICES) == "large=300/1500,*=10/20"
