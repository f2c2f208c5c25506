"""Calls as hypothesis draws them: JSON that is nearly A2A, written in every way that the grammar allows."""

from hypothesis import strategies as st

ATOMS = st.sampled_from(
    [
        *["null", "true", "0", "-0", "7", "1.50", "1e999", "18446744073709551617", "0.1000000000000000001", "[]", "{}"],
        *[
            '""',
            '"a"',
            '"é"',
            '"\\ud800"',
            '"\\u0061"',
            '"\\/"',
            '"\\u00e9"',
            '"2.0"',
            '"text"',
            '["a",{"text":"b"},3]',
        ],
        *['"message/stream"', '"SendMessage"', '[{"type":"text","text":"\\ud800"}]', '[{"file":1.0}]'],
    ]
)


def objects(*names: str, values: st.SearchStrategy[str] = ATOMS) -> st.SearchStrategy[str]:
    """Draw the text of an object of these names, written with or without escapes, in any order and repeated."""
    spelled = st.sampled_from(names).flatmap(
        lambda name: st.sampled_from([f'"{name}"', f'"\\u{ord(name[0]):04x}{name[1:]}"', f' "{name}"\n'])
    )
    pairs = st.lists(st.tuples(spelled, values).map(":".join), max_size=7)
    return pairs.map(lambda pairs: "{" + ",".join(pairs) + "}")


PARTS = st.lists(ATOMS | objects("kind", "type", "text", "file", "data", "x")).map(lambda parts: f"[{','.join(parts)}]")
MESSAGES = objects("messageId", "content", "parts", "role", values=ATOMS | PARTS)
PARAMS = objects("message", "expires_in_seconds", "id", values=ATOMS | MESSAGES)
CALLS = objects("jsonrpc", "id", "method", "params", "x", values=ATOMS | PARAMS)
LIKELY_CALLS = st.tuples(st.sampled_from(["", '"jsonrpc":"2.0",', '"id":1.0,"jsonrpc":"2.0",']), MESSAGES).map(
    lambda drawn: f'{{{drawn[0]}"method":"message/send","params":{{"message":{drawn[1]}}}}}'
)
VERSIONS = st.sampled_from([None, "", "0.3", "1.0", " 1.0", "0.2"])
