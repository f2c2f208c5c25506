"""core.usage: what an agent's answer says it used."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.usage import Usage, read

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner)
        | st.dictionaries(st.sampled_from(["result", "usage", "metadata", "input_tokens"]) | st.text(), inner)
    ),
)


@pytest.mark.parametrize(
    "answer",
    [
        {"result": {"usage": {"input_tokens": 3, "output_tokens": 5}}},
        {"result": {"metadata": {"usage": {"prompt_tokens": 3, "completion_tokens": 5}}}},
        {"usage": {"inputTokens": 3, "outputTokens": 5}},
    ],
)
def test_usage_is_found_where_agents_put_it(answer: Any) -> None:
    assert read(answer) == Usage(input_tokens=3, output_tokens=5)


@pytest.mark.parametrize("odd", [-1, 1.5, True, "3", None, 10**13, [3]])
def test_an_odd_number_counts_as_nothing_said(odd: Any) -> None:
    assert read({"usage": {"input_tokens": odd, "output_tokens": 5}}) == Usage(output_tokens=5)


@given(JSON)
def test_no_answer_breaks_it(answer: Any) -> None:
    usage = read(answer)
    assert usage.input_tokens >= 0
    assert usage.output_tokens >= 0
