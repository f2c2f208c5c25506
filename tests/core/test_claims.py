"""Which calls are the same: whose message it is, to whom, and what it says."""

import json

import orjson
import pytest

from gateway.core import claims
from gateway.core.answers import Answer
from gateway.core.callers import Admin, Credential, Holder, Local, Member, Principal, Proof, System
from gateway.core.claims import LONG_BYTES, Claim, address_event, address_events, find_claim, readdress
from gateway.core.envelope import Envelope, normalise
from gateway.core.refusals import Refusal

A, B, C = (f"00000000-0000-4000-8000-00000000000{name}" for name in "abc")
WHOLE = b'{"jsonrpc":"2.0","id":7,"method":"message/send","params":{"message":{"messageId":"m-1","parts":[]}}}'


def read(raw: bytes) -> Envelope:
    found = normalise(raw, a2a_version=None, mint=lambda: "minted")
    assert isinstance(found, Envelope)
    return found


def claim(raw: bytes = WHOLE, *, of: Principal = Admin(), caller: str | None = None, to: str = A) -> Claim | None:  # noqa: B008
    return find_claim(of, caller, to, read(raw))


def shown(byte: bytes, proof: Proof = Proof.TOKEN) -> Credential:
    return Credential(proof=proof, hash=byte * 32)


@pytest.mark.parametrize(
    "again",
    [
        WHOLE.replace(b'"id":7', b'"id":8'),
        WHOLE.replace(b'"id":7', b'"id":"another"'),
        WHOLE.replace(b'"id":7', b'"id":null'),
        WHOLE.replace(b'"id":7', b'"id":1.50'),
        WHOLE.replace(b'"id":7', b'"id":18446744073709551617'),
        WHOLE.replace(b'"id":7', b'"id":"\\u0061"'),
    ],
)
def test_the_json_rpc_id_does_not_make_another_call(again: bytes):
    assert claim(again) == claim()


@pytest.mark.parametrize(
    "other",
    [
        WHOLE.replace(b"message/send", b"message/stream"),
        WHOLE.replace(b"[]", b'[{"kind":"text","text":"7"}]'),
        WHOLE.replace(b"[]", b"[ ]"),
        WHOLE.replace(b"[]", b'[],"n":18446744073709551617'),
        WHOLE.replace(b'"params":{', b'"params":{"expires_in_seconds":7,'),
    ],
)
def test_other_words_have_the_same_key(other: bytes):
    one, another = claim(), claim(other)
    assert one.key == another.key
    assert one.words != another.words


@pytest.mark.parametrize("n", [b"18446744073709551617", b"0.1000000000000000001", b'"\\ud800"'])
def test_words_are_compared_as_they_were_written_and_not_as_they_are_read(n: bytes):
    bodies = [WHOLE.replace(b"[]", b'[],"n":' + n), WHOLE.replace(b"[]", b'[],"n":' + n.replace(b"1", b"2", 1) + b" ")]
    assert claim(bodies[0]).words != claim(bodies[1]).words
    assert claim(bodies[0]) == claim(bodies[0].replace(b'"id":7', b'"id":"x"'))


def test_a_key_is_of_one_caller_one_target_and_one_message():
    keys = {
        claim(of=one, caller=caller, to=to).key
        for one, caller in [
            (Admin(), None),
            (Admin(credential=shown(b"a")), None),
            (Member(credential=shown(b"b")), None),
            (Member(credential=shown(b"b", Proof.SESSION)), None),
            (Local(), None),
            (System(kind="webhook:", name="x"), None),
            (Holder(workspace_id=B), B),
            (Holder(workspace_id=C), C),
        ]
        for to in (A, B)
    } | {claim(WHOLE.replace(b"m-1", b"m-2")).key}
    assert len(keys) == 17


def test_a_workspace_is_the_same_with_another_token():
    first = claim(of=Holder(workspace_id=B, credential=shown(b"a")), caller=B)
    assert claim(of=Holder(workspace_id=B, credential=shown(b"b")), caller=B) == first


@pytest.mark.parametrize(
    "raw",
    [
        WHOLE.replace(b'"messageId":"m-1",', b""),
        WHOLE.replace(b'"m-1"', b'""'),
        WHOLE.replace(b'"m-1"', b"5"),
        b'{"jsonrpc":"2.0","id":1,"method":"tasks/get","params":{"id":"t"}}',
    ],
)
def test_who_chooses_no_message_id_claims_nothing(raw: bytes):
    assert claim(raw) is None


@pytest.mark.parametrize("id_json", [b'"mine"', b"18446744073709551617", b"1.50", None])
def test_an_answer_is_given_under_ones_own_id_and_else_as_it_was(id_json: bytes | None):
    body = b'{"result": {"id":"t", "n":1.50},"jsonrpc":"2.0", "id":"theirs"}'
    answer = readdress(Answer(status=200, body=body, headers={"Content-Type": "application/json; x"}), "c", id_json)
    assert answer.body == b'{"jsonrpc":"2.0","id":%b,"result": {"id":"t", "n":1.50}}' % (id_json or b"null")
    assert (answer.status, answer.call_id, answer.headers) == (200, "c", {"Content-Type": "application/json; x"})


def test_each_event_of_a_stream_is_given_under_ones_own_id():
    event = b'id: c-%b\ndata: {"jsonrpc":"2.0","id":%b,"result":{"final":%b}}\r\n\n'
    body = b": hello\n\n" + event % (b"1", b"7", b"false") + event % (b"2", b"7", b"true")
    answer = readdress(Answer(status=200, body=body, headers={"Content-Type": "text/event-stream"}), "c", b'"x"')
    assert answer.body == b": hello\n\n" + event % (b"1", b'"x"', b"false") + event % (b"2", b'"x"', b"true")


def test_so_is_one_whose_json_goes_over_several_lines():
    body = b'event: a\r\ndata: {"jsonrpc":"2.0",\r\ndata:   "id":1, "result": [\r\ndata: 2]}\r\nretry: 1\r\n\r\n'
    answer = readdress(Answer(status=200, body=body, headers={"Content-Type": "text/event-stream"}), "c", b'"x"')
    under = b'data: {"jsonrpc":"2.0","id":"x","result": [\r\ndata: 2]}\r\n'
    assert answer.body == b"event: a\r\n" + under + b"retry: 1\r\n\r\n"


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b'{"error":"no","code":"agent_busy"}'),
        ("application/json", b'["jsonrpc"]'),
        ("application/json", b'{"a":"jsonrpc","jsonrpc'),
        ("application/json", b'{"a":{"jsonrpc":"2.0","id":1}}'),
        ("application/json", b"[" * 2000 + b'"jsonrpc"'),
        ("application/json", b'{"jsonrpc":"\xff"}'),
        ("text/event-stream", b'event: a\r\ndata: {"jsonrpc":"2.0",\r\ndata: "id":1\r\ndata:\n\n: {"jsonrpc":1}'),
        ("text/plain", b'{"jsonrpc":"2.0","id":1}'),
        ("", b""),
    ],
)
def test_what_has_no_such_id_keeps_its_bytes(kind: str, body: bytes):
    headers = {"Content-Type": kind} if kind else {}
    assert readdress(Answer(status=502, body=body, headers=headers), "c", b"1").body == body


@pytest.mark.parametrize("make", [claims.reused, claims.not_kept, claims.interrupted])
def test_a_refusal_names_the_earlier_call(make):
    refused = make("c-1")
    assert isinstance(refused, Refusal)
    assert orjson.loads(orjson.dumps(refused.to_json()))["call_id"] == "c-1"


LONG = '"result":{"kind":"task","id":"inner","text":"' + "x" * LONG_BYTES + '\\",\\"id\\":\\"y"}'


@pytest.mark.parametrize("id_json", ["1", "-7", "null", '"a"', '"a\\"b\\u00fc"', "18446744073709551617"])
@pytest.mark.parametrize("space", ["", " "])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(
    "members",
    [
        ('"jsonrpc":"2.0"', "ID", LONG),
        ("ID", '"jsonrpc":"2.0"', LONG),
        ('"jsonrpc":"2.0"', LONG, "ID"),
        (LONG, '"jsonrpc":"2.0"', "ID"),
        (LONG, "ID", '"jsonrpc":"2.0"'),
        ("ID", '"jsonrpc":"2.0"', LONG, "ID"),
    ],
)
def test_a_long_event_is_readdressed_wherever_its_id_is(members, end, space, id_json):
    def text(one: str) -> bytes:
        said = ("," + space).join(
            one.join(("'id':".replace("'", '"') + space, "")) if m == "ID" else m for m in members
        )
        return f"id: c-1{end}event: x{end}data: {{{said}}}{end}{end}".encode()

    def said(raw: bytes) -> object:
        [line] = [line for line in raw.splitlines() if line.startswith(b"data:")]
        return json.loads(line[5:])

    got = address_event(text(id_json), b'"other"')
    assert said(got) == json.loads(address_events(text(id_json), b'"other"').split(b"data: ")[1])
    assert got.startswith(f"id: c-1{end}event: x{end}data: ".encode())
    assert got.endswith((end + end).encode())
    assert b'"other"' in address_event(text(id_json), b'"other"')


def test_what_looks_like_an_id_within_a_long_event_stays():
    raw = b'data: {"jsonrpc":"2.0","result":{"text":"' + b"x" * LONG_BYTES + b'","id":"inner"}}\n\n'
    assert orjson.loads(address_event(raw, b"7")[6:]) == {**orjson.loads(raw[6:]), "id": 7}
    odd = b'data: {"id":"1","jsonrpc":"2.0","result":{"text":"' + b"x" * LONG_BYTES + b'\\",\\"id\\":1"}}\n\n'
    assert orjson.loads(address_event(odd, b"7")[6:]) == {**orjson.loads(odd[6:]), "id": 7}


def test_a_long_event_is_not_gone_through_for_each_of_its_readers(monkeypatch):
    """Its time is not measured here: that what takes it is not done at all is."""
    raw = b'data: {"jsonrpc":"2.0","id":1,' + LONG.encode() + b"}\n\n"
    monkeypatch.setattr(claims, "address_events", None)
    assert orjson.loads(address_event(raw, b"7")[6:])["id"] == 7
