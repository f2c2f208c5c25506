import itertools
import json
from typing import Any

import pytest

from gateway.core import repairs


def mend(text: str) -> tuple[str | None, repairs.Mended]:
    minted = (f"minted-{n}" for n in itertools.count())
    mended = repairs.mend(text.encode(), json.loads(text), lambda: next(minted))
    return None if mended.body is None else mended.body.decode(), mended


def mend_message(members: str) -> str | None:
    """Return the members of the mended message, None if nothing was mended."""
    around = '{"jsonrpc":"2.0","id":1,"method":"message/send","params":{"message":{%s}}}'
    text, _ = mend(around % members)
    before, after = around.split("%s")
    return None if text is None else text.removeprefix(before).removesuffix(after)


@pytest.mark.parametrize(
    ("members", "mended"),
    [
        ('"messageId":"m","content":"a"', '"messageId":"m","parts":[{"kind":"text","text":"a"}]'),
        ('"messageId":"m","content":"\\ud800\\/"', '"messageId":"m","parts":[{"kind":"text","text":"\\ud800\\/"}]'),
        ('"messageId":"m","content":["a"]', '"messageId":"m","parts":[{"kind":"text","text":"a"}]'),
        ('"messageId":"m","content":[1e999,null]', '"messageId":"m","parts":[1e999,null]'),
        ('"messageId":"m","content":[{"text":1}]', '"messageId":"m","parts":[{"kind":"text","text":1}]'),
        ('"content":"a"', '"messageId":"minted-0","parts":[{"kind":"text","text":"a"}]'),
        ('"parts":[]', '"messageId":"minted-0","parts":[]'),
        ('"parts":"a"', '"messageId":"minted-0","parts":"a"'),
        ('"parts":null', '"messageId":"minted-0","parts":null'),
        ('"messageId":"m","content":1,"parts":[]', '"messageId":"m","parts":[]'),
        ('"content":1,"parts":[],"messageId":"m"', '"parts":[],"messageId":"m"'),
        ('"messageId":"m","parts":null,"content":"a"', '"messageId":"m","parts":[{"kind":"text","text":"a"}]'),
        ('"messageId":"m","content":1,"parts":[2],"content":3', '"messageId":"m","parts":[2]'),
        ('"messageId":"m","content":"a","content":"b"', '"messageId":"m","parts":[{"kind":"text","text":"b"}]'),
        ('"messageId":"m","parts":[{"type":"text"}]', '"messageId":"m","parts":[{"kind":"text"}]'),
        ('"messageId":"m","parts":[{"type":"video"}]', '"messageId":"m","parts":[{"kind":"video"}]'),
        ('"messageId":"m","parts":[{"a":1.0, "type" :"x"}]', '"messageId":"m","parts":[{"kind":"x","a":1.0}]'),
        ('"messageId":"m","parts":[{"type":1,"type":"x"}]', '"messageId":"m","parts":[{"kind":"x"}]'),
        ('"messageId":"m","parts":[{"\\u0074ype":"x"}]', '"messageId":"m","parts":[{"kind":"x"}]'),
        (
            '"messageId":"m","parts":[{"type":5,"data":1}]',
            '"messageId":"m","parts":[{"kind":"data","type":5,"data":1}]',
        ),
        ('"messageId":"m","parts":[ { "file":{} } ]', '"messageId":"m","parts":[{"kind":"file", "file":{} }]'),
        ('"messageId":"m","parts":[{"file":1},2]', '"messageId":"m","parts":[{"kind":"file","file":1},2]'),
        ('"messageId":"m","a":1.00 , "content":"x"', '"messageId":"m","a":1.00,"parts":[{"kind":"text","text":"x"}]'),
    ],
)
def test_a_message_is_mended_and_its_other_members_keep_their_characters(members: str, mended: str):
    assert mend_message(members) == mended
    assert mend_message(mended) is None


@pytest.mark.parametrize(
    "members",
    [
        '"messageId":null,"parts":[]',
        '"messageId":5,"parts":null',
        '"messageId":"m","parts":[{"kind":"text","type":"file","text":"a"}]',
        '"messageId":"m","parts":[{"kind":null,"text":"a"}]',
        '"messageId":"m","parts":["a",1,null,{},{"url":"x"},{"type":5}]',
        '"messageId":"m","parts":{"text":"a"}',
    ],
)
def test_what_the_agent_can_name_itself_is_left_alone(members: str):
    assert mend_message(members) is None


@pytest.mark.parametrize(
    ("call", "mended", "request_id"),
    [
        ('{"method":"x"}', '{"jsonrpc":"2.0","id":"minted-0","method":"x"}', "minted-0"),
        (' { "method":"x", "id":1e2 } ', ' {"jsonrpc":"2.0", "method":"x", "id":1e2 } ', None),
        ('{"method":"x","id":null}', '{"jsonrpc":"2.0","method":"x","id":null}', None),
        ('{"params":{"message":7}}', '{"jsonrpc":"2.0","id":"minted-0","params":{"message":7}}', "minted-0"),
    ],
)
def test_a_bare_call_gets_an_envelope_and_keeps_its_own_id(call: str, mended: str, request_id: str | None):
    text, found = mend(call)
    assert (text, found.id, found.message_id) == (mended, request_id, None)
    assert mend(mended) == (None, repairs.UNTOUCHED)


def test_both_ids_are_minted_and_told_apart():
    text, found = mend('{"method":"x","params":{"message":{"content":"a"}}}')
    assert text is not None
    sent = json.loads(text)
    assert (
        (sent["id"], sent["params"]["message"]["messageId"]) == (found.id, found.message_id) == ("minted-0", "minted-1")
    )


def test_of_params_and_messages_that_repeat_the_last_one_counts():
    text, _ = mend('{"jsonrpc":"2.0","params":1,"params":{"message":{"content":"a"},"message":{"content":"b"}}}')
    assert text == (
        '{"jsonrpc":"2.0","params":1,"params":{"message":{"content":"a"},'
        '"message":{"messageId":"minted-0","parts":[{"kind":"text","text":"b"}]}}}'
    )


@pytest.mark.parametrize(
    ("message", "fault"),
    [
        ({}, "parts"),
        ({"content": ""}, "content"),
        ({"content": []}, "content"),
        ({"content": {"text": "a"}}, "content"),
        ({"content": None}, "content"),
        ({"content": True}, "content"),
        ({"parts": None, "content": 7}, "content"),
        ({"parts": None}, None),
        ({"parts": []}, None),
        ({"parts": False, "content": 7}, None),
        ({"content": " "}, None),
        ({"content": [None]}, None),
    ],
)
def test_a_message_that_says_nothing_names_the_member_at_fault(message: dict[str, Any], fault: str | None):
    assert repairs.find_fault(message) == fault
