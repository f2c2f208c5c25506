"""Which requests of HTTP+JSON go on, what is known of them, and how errors look in that binding."""

from urllib.parse import unquote

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.core import http_json
from gateway.core.envelope import BadEnvelope, Envelope
from gateway.core.http_json import Operation, OtherVerbs


def found(verb: str, path: str, query: str = "", version: str | None = None) -> Operation:
    got = http_json.find(verb, path, query, a2a_version=version)
    assert isinstance(got, Operation)
    return got


@pytest.mark.parametrize(
    ("verb", "path", "name", "task_id"),
    [
        ("POST", "message:send", "message:send", None),
        ("POST", "v1/message:send", "v1/message:send", None),
        ("POST", "v1/message:stream", "v1/message:stream", None),
        ("POST", "acme/message:stream", "message:stream", None),
        ("GET", "tasks", "tasks:list", None),
        ("GET", "tasks/tasks", "tasks:get", "tasks"),
        ("GET", "v1/tasks/a%20b", "v1/tasks:get", "a b"),
        ("GET", "tasks/urn:uuid:7", "tasks:get", "urn:uuid:7"),
        ("POST", "tasks/urn:uuid:7:cancel", "tasks:cancel", "urn:uuid:7"),
        ("GET", "v1/tasks/7:subscribe", "v1/tasks:subscribe", "7"),
        ("POST", "tasks/7:subscribe", "tasks:subscribe", "7"),
        ("POST", "tasks/7/pushNotificationConfigs", "pushNotificationConfigs:set", "7"),
        ("GET", "tasks/7/pushNotificationConfigs", "pushNotificationConfigs:list", "7"),
        ("GET", "v1/tasks/7/pushNotificationConfigs/c", "v1/pushNotificationConfigs:get", "7"),
        ("DELETE", "tasks/7/pushNotificationConfigs/c", "pushNotificationConfigs:delete", "7"),
    ],
)
def test_a_path_of_the_binding_goes_on_as_it_was_written(verb: str, path: str, name: str, task_id: str | None):
    operation = found(verb, path, "historyLength=2&x=%2F")
    assert (operation.verb, operation.path) == (verb, f"{path}?historyLength=2&x=%2F")
    assert (operation.name, operation.task_id) == (name, task_id)
    assert operation.v1 == (not path.startswith("v1/"))
    assert operation.streaming == (name.rpartition(":")[2] in ("stream", "subscribe"))


@pytest.mark.parametrize(
    "path",
    [
        "", "message", "messages:send", "message:sends", "message:send/", "/message:send", "v1//message:send", "card",
        "v1/card", "extendedAgentCard", "admin", "tasks/", "tasks/.", "tasks/..", "tasks/%2e%2E", "tasks/a%2Fb",
        "tasks/a%5Cb", "tasks/a%00b", "tasks/a\\b", "tasks/a b", "tasks/ä", "tasks/%zz", "tasks/a/b", "../tasks",
        "%2e%2e/tasks", "./message:send", "a/b/message:send", "a%2Fb/message:send", "tasks/1?x", "tasks/1#x",
        ".well-known/agent-card.json", "tasks/1/pushNotificationConfigs/..", "tasks/../pushNotificationConfigs",
        "tasks/..;", "tasks/.;a=b", "tasks/;", "..;/tasks", "%2e%2e%3Ba/tasks", "tasks/%c0%ae%c0%ae", "tasks/%ff",
    ],
)  # fmt: skip
def test_another_path_does_not(path: str):
    assert all(http_json.find(verb, path, "", a2a_version=None) is None for verb in ("GET", "POST", "DELETE"))


@pytest.mark.parametrize("query", ["a b", "a#b", "a\nb", "ä", "%zz", "<"])
def test_nor_does_a_query_that_is_none(query: str):
    assert http_json.find("GET", "tasks", query, a2a_version=None) is None


@pytest.mark.parametrize(
    ("verb", "path", "verbs"),
    [
        ("GET", "message:send", {"POST"}),
        ("DELETE", "v1/tasks/1", {"GET"}),
        ("GET", "tasks/1:cancel", {"POST"}),
        ("DELETE", "tasks/1:subscribe", {"GET", "POST"}),
        ("POST", "tasks/1/pushNotificationConfigs/2", {"GET", "DELETE"}),
    ],
)
def test_another_verb_is_told_those_that_there_are(verb: str, path: str, verbs: set[str]):
    assert http_json.find(verb, path, "", a2a_version=None) == OtherVerbs(verbs=frozenset(verbs))


def test_the_version_that_is_said_goes_before_what_the_path_looks_like():
    assert found("POST", "v1/message:send", version=" 1.0").name == "message:send"
    assert found("POST", "v1/message:send", version="0.3").name == "v1/message:send"


TEXT = st.text(alphabet=[*"v1/tasksmegnd:.%2eEfF5cC\\?#& \x00ä~"], max_size=40) | st.text(max_size=20)


@given(verb=st.sampled_from(["GET", "POST", "DELETE", "PUT"]), path=TEXT, query=TEXT)
def test_whatever_is_asked_for_stays_below_the_agents_url(verb: str, path: str, query: str):
    got = http_json.find(verb, path, query, a2a_version=None)
    if not isinstance(got, Operation):
        return
    url = http_json.below("http://agent:8000/base/", got.path)
    assert url == f"http://agent:8000/base/{path}" + (f"?{query}" if query else "")
    segments = unquote(path).split("/")
    assert len(segments) == len(path.split("/"))
    assert not {"", ".", ".."} & set(segments)


@given(prefix=st.sampled_from(["", "v1/", "acme/"]), task_id=st.text(min_size=1, max_size=30))
def test_a_task_is_called_off_where_it_was_begun(prefix: str, task_id: str):
    cancel = found("POST", f"{prefix}message:stream").cancel(task_id)
    assert cancel.path.startswith(f"{prefix}tasks/")
    assert cancel.path.endswith(":cancel")
    assert unquote(cancel.path.removeprefix(f"{prefix}tasks/").removesuffix(":cancel")) == task_id
    assert cancel.verb == "POST"
    assert cancel.v1 == (prefix != "v1/")


SEND = found("POST", "v1/message:send")


def test_a_message_says_its_id_and_its_bytes_stay():
    body = b'{ "message": {"messageId": "m-1", "content": []}}'
    said = http_json.read(SEND, body)
    assert isinstance(said, Envelope)
    assert said.body is body
    assert (said.method, said.message_id, said.client_message_id) == ("v1/message:send", "m-1", True)
    assert (said.id_json, said.v1, said.streaming) == (None, False, False)
    again, other = http_json.read(SEND, body), http_json.read(found("POST", "v1/message:stream"), body)
    assert isinstance(again, Envelope)
    assert isinstance(other, Envelope)
    assert said.digest == again.digest != other.digest


@pytest.mark.parametrize(
    "body", [b"{}", b'{"message": 1}', b'{"message": {}}', b'{"message": {"messageId": ""}}', b'{"message": "m"}',
             b'{"message": {"messageId": 1}}', b'{"message": {"messageId": "\\ud800"}}'],
)  # fmt: skip
def test_what_has_no_message_id_is_always_a_new_call(body: bytes):
    said = http_json.read(SEND, body)
    assert isinstance(said, Envelope)
    assert (said.message_id, said.client_message_id, said.digest) == (None, False, b"")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"1", b'"x"', b"\xff", b"{}x"])
def test_a_body_that_is_no_object_does_not_go_on(body: bytes):
    assert isinstance(http_json.read(SEND, body), BadEnvelope)


@pytest.mark.parametrize(
    ("verb", "path"), [("GET", "tasks"), ("GET", "tasks/1"), ("DELETE", "tasks/1/pushNotificationConfigs/2")]
)
def test_only_a_post_has_a_body(verb: str, path: str):
    assert isinstance(http_json.read(found(verb, path), b"{}"), BadEnvelope)


@pytest.mark.parametrize(("verb", "path"), [("GET", "tasks"), ("POST", "tasks/1:cancel"), ("GET", "tasks/1:subscribe")])
def test_where_no_message_is_said_no_body_is_needed(verb: str, path: str):
    assert isinstance(http_json.read(found(verb, path), b""), Envelope)


OWN = "http://agent:8000/rpc"
CARD_1 = {
    "supportedInterfaces": [
        {"url": "http://agent:8000/old", "protocolBinding": "HTTP+JSON", "protocolVersion": "0.3"},
        {"url": "http://agent:8001/new", "protocolBinding": "HTTP+JSON", "protocolVersion": "1.0"},
        {"url": "http://agent:8000/rpc", "protocolBinding": "JSONRPC", "protocolVersion": "1.0"},
    ]
}


@pytest.mark.parametrize(
    ("card", "v1", "url"),
    [
        (None, True, OWN),
        ({}, True, OWN),
        (CARD_1, True, "http://agent:8001/new"),
        (CARD_1, False, "http://agent:8000/old"),
        ({"supportedInterfaces": CARD_1["supportedInterfaces"][:1]}, True, "http://agent:8000/old"),
        (
            {"additionalInterfaces": [{"url": "http://AGENT:8000/r", "transport": "HTTP+JSON"}]},
            False,
            "http://AGENT:8000/r",
        ),
        ({"preferredTransport": "HTTP+JSON", "url": "http://agent:8000/p"}, False, "http://agent:8000/p"),
        ({"preferredTransport": "JSONRPC", "url": "http://agent:8000/p"}, False, OWN),
        ({"additionalInterfaces": [{"url": "http://elsewhere/r", "transport": "HTTP+JSON"}]}, False, OWN),
        ({"additionalInterfaces": "x", "supportedInterfaces": [1, {"protocolBinding": "HTTP+JSON"}]}, True, OWN),
        ({"supportedInterfaces": [{"url": "http://[", "protocolBinding": "HTTP+JSON"}]}, True, OWN),
    ],
)
def test_an_agents_card_says_where_on_its_host_it_takes_them(card: dict[str, object] | None, v1: bool, url: str):
    assert http_json.find_url(card, OWN, v1=v1) == url


def test_an_agent_that_is_called_by_tls_is_not_called_without_it():
    card = {"supportedInterfaces": [{"url": "http://agent/rest", "protocolBinding": "HTTP+JSON"}]}
    assert http_json.find_url(card, "HTTPS://agent/rpc", v1=True) == "HTTPS://agent/rpc"
    assert http_json.find_url(card, "http://agent/rpc", v1=True) == "http://agent/rest"
    card["supportedInterfaces"].append({"url": "https://agent/safe", "protocolBinding": "HTTP+JSON"})
    assert http_json.find_url(card, "https://agent/rpc", v1=True) == "https://agent/safe"


def test_of_a_card_with_no_end_of_interfaces_only_the_first_are_looked_at():
    others = [{"url": f"http://other{n}/", "protocolBinding": "HTTP+JSON"} for n in range(http_json.MOST_INTERFACES)]
    one = {"url": "http://agent:8001/new", "protocolBinding": "HTTP+JSON"}
    assert http_json.find_url({"supportedInterfaces": [*others[1:], one]}, OWN, v1=True) == one["url"]
    assert http_json.find_url({"supportedInterfaces": [*others, one]}, OWN, v1=True) == OWN


def test_the_agents_own_query_stays():
    assert http_json.below("http://a/b?tenant=1", "tasks?x=2") == "http://a/b/tasks?tenant=1&x=2"


def test_an_error_says_its_code_for_programs_of_both_kinds():
    event = http_json.error_event(http_json.error(503, "gone", {"code": "idle_timeout", "retriable": False, "x": None}))
    name, data = event.split(b"\n", 1)
    assert name == b"event: error"
    error = orjson.loads(data.removeprefix(b"data: "))["error"]
    assert (error["code"], error["status"], error["message"]) == (503, "UNAVAILABLE", "gone")
    [info] = error["details"]
    assert (info["reason"], info["domain"]) == ("IDLE_TIMEOUT", "a2a-gateway")
    assert info["metadata"] == {"code": "idle_timeout", "retriable": "false"}
    assert error["data"] == {"code": "idle_timeout", "retriable": False, "x": None}


@pytest.mark.parametrize(
    ("said", "no"),
    [
        ({"error": {"details": [{"reason": "TASK_NOT_FOUND"}]}}, True),
        ({"error": {"details": [1, {"reason": []}, {"reason": "UNSUPPORTED_OPERATION"}]}}, True),
        ({"error": {"details": [{"reason": "INTERNAL"}]}}, False),
        ({"error": {"details": "TASK_NOT_FOUND"}}, False),
        ({"error": "TASK_NOT_FOUND"}, False),
        ({}, False),
    ],
)
def test_an_agent_says_that_it_cannot_go_on(said: dict[str, object], no: bool):
    assert http_json.is_no(said) == no
