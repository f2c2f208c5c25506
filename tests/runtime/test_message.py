"""runtime.message: the user's message through one door, the agent's in one shape."""

import pytest

from runtime.jsonrpc import Code, RpcError
from runtime.message import Incoming, agent_message

TEXT = {"kind": "text", "text": "hi"}


def user(**fields):
    return {"message": {"role": "user", "messageId": "m1", "parts": [TEXT], **fields}}


def test_text_parts_are_joined_and_other_parts_are_passed_over():
    parts = [TEXT, {"kind": "data", "data": {"a": 1}}, {"kind": "text", "text": "there"}]
    assert Incoming.from_params(user(parts=parts)).text == "hi\nthere"


def test_a_missing_context_is_minted_and_kept_in_the_original():
    message = Incoming.from_params(user())
    assert message.original["contextId"] == message.context_id != ""
    assert Incoming.from_params(user(contextId="c")).context_id == "c"


@pytest.mark.parametrize(
    ("configuration", "blocking"), [(None, True), ({}, True), ({"blocking": True}, True), ({"blocking": False}, False)]
)
def test_only_a_sender_who_says_so_does_not_block(configuration, blocking):
    assert Incoming.from_params({**user(), "configuration": configuration}).blocking is blocking


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({}, "params.message"),
        ({"message": []}, "params.message"),
        (user(role="robot"), "role"),
        (user(role=[]), "role"),
        (user(messageId=None), "messageId"),
        (user(messageId=""), "messageId"),
        (user(contextId=5), "contextId"),
        (user(taskId={}), "taskId"),
        (user(parts=None), "parts"),
        (user(parts=[]), "parts"),
        (user(parts=["hi"]), "parts[0].kind"),
        (user(parts=[TEXT, {"text": "x"}]), "parts[1].kind"),
        (user(parts=[{"kind": []}]), "parts[0].kind"),
        (user(parts=[{"kind": "text", "text": 5}]), "parts[0].text"),
        (user(parts=[{"kind": "file", "file": "x"}]), "parts[0].file"),
        ({**user(), "configuration": []}, "configuration"),
        ({**user(), "configuration": {"blocking": 1}}, "blocking"),
    ],
)
def test_a_wrong_field_is_named(params, field):
    with pytest.raises(RpcError) as caught:
        Incoming.from_params(params)
    assert caught.value.code is Code.INVALID_PARAMS
    assert field in caught.value.sentence


def test_a_message_without_text_is_a_content_type_we_do_not_read():
    with pytest.raises(RpcError) as caught:
        Incoming.from_params(user(parts=[{"kind": "data", "data": {}}]))
    assert caught.value.code is Code.CONTENT_TYPE_NOT_SUPPORTED


def test_the_agents_message_has_the_shape_of_the_specification():
    message = agent_message("hi", context_id="c")
    assert message.pop("messageId")
    assert message == {"kind": "message", "role": "agent", "contextId": "c", "parts": [TEXT]}
    assert agent_message("hi", context_id="c", task_id="t")["taskId"] == "t"
