"""core.usage: what an agent's answer says it used."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core.usage import Usage, find, read

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


def test_a_block_that_says_nothing_does_not_hide_one_that_does() -> None:
    said = {"input_tokens": 3}
    assert read({"result": {"usage": {}, "metadata": {"usage": said}}}) == Usage(input_tokens=3)
    assert read({"result": {"usage": {"input_tokens": 0}}, "usage": said}) == Usage(input_tokens=3)


@pytest.mark.parametrize(
    ("body", "used"),
    [
        (b'{"result": {"usage" : {"input_tokens": 3, "output_tokens": 5}}}', Usage(input_tokens=3, output_tokens=5)),
        (b'{"result": {"usage": {"input_tokens": 3}, "metadata": {"usage": {}}}}', Usage(input_tokens=3)),
        (b'{"text": "{\\"usage\\": {\\"input_tokens\\": 3}}"}', Usage()),
        (b'{"usage": {"input_tokens": 3', Usage()),
        (b'"usage": {]}', Usage()),
        (b"", Usage()),
    ],
)
def test_in_an_answer_that_is_too_long_to_parse_it_is_found_too(body: bytes, used: Usage) -> None:
    assert find(body) == used


@given(st.binary(max_size=200))
def test_no_bytes_break_it(body: bytes) -> None:
    find(b'"usage":' + body)
