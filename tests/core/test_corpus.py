"""Every message shape of the corpus goes through the normaliser as the corpus says."""

import json
from uuid import uuid4

import pytest

from gateway.core.envelope import BadEnvelope, Envelope, error_body, normalise
from tests.harness import corpus
from tests.harness.corpus import Entry

VALID = corpus.read("valid")
INVALID = corpus.read("invalid")


def mint() -> str:
    return str(uuid4())


def test_the_corpus_is_there():
    assert len(VALID) >= 36
    assert len(INVALID) >= 18


@pytest.mark.parametrize("entry", [*VALID, *INVALID], ids=lambda entry: entry.name)
def test_an_entry_says_where_it_comes_from(entry: Entry):
    assert all(entry.about[name] for name in ("_comment", "_added", "_source"))


@pytest.mark.parametrize("entry", VALID, ids=lambda entry: entry.name)
def test_a_valid_shape_goes_on_as_expected(entry: Entry):
    call = normalise(entry.raw, a2a_version=entry.a2a_version, mint=mint)
    assert isinstance(call, Envelope)
    assert (call.body is entry.raw) == entry.expect.get("unchanged", False)
    corpus.check_sent(entry, call.body)
    sent = json.loads(call.body)
    if entry.expect.get("message_id") == "minted":
        assert call.message_id == sent["params"]["message"]["messageId"]
        assert not call.client_message_id
    assert (call.id_json is None) == ("id" not in sent)
    assert call.id_json is None or json.loads(call.id_json) == sent["id"]
    assert call.streaming == entry.expect.get("streaming", False)
    assert call.expires_in_s == entry.expect.get("expires_in_s")


@pytest.mark.parametrize("entry", INVALID, ids=lambda entry: entry.name)
def test_an_invalid_shape_is_refused_with_the_expected_error(entry: Entry):
    bad = normalise(entry.raw, a2a_version=None, mint=mint)
    assert isinstance(bad, BadEnvelope)
    assert bad.code == entry.about["_expect_error"]
    corpus.check_refusal(entry, error_body(bad))
