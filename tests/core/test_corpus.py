"""Every message shape of the corpus goes through the normaliser as the corpus says."""

import base64
import json
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest

from gateway.core.envelope import BadEnvelope, Envelope, error_body, normalise

CORPUS = Path(__file__).parent.parent / "corpus"
VALID = sorted((CORPUS / "valid").glob("*.json"))
INVALID = sorted((CORPUS / "invalid").glob("*.json"))


def read(path: Path) -> tuple[dict[str, Any], bytes]:
    entry = json.loads(path.read_bytes())
    if "raw_base64" in entry:
        return entry, base64.b64decode(entry["raw_base64"])
    if "raw_template" in entry:
        shape = entry["raw_template"]
        nest = shape["open"] * shape["times"] + shape["close"] * shape["times"]
        return entry, (shape["prefix"] + nest + shape["suffix"]).encode()
    return entry, json.dumps(entry["body"], ensure_ascii=False).encode()


def mint() -> str:
    return str(uuid4())


def is_uuid(text: str) -> bool:
    return str(UUID(text)) == text


def test_the_corpus_is_there():
    assert len(VALID) >= 36
    assert len(INVALID) >= 18


@pytest.mark.parametrize("path", [*VALID, *INVALID], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_an_entry_says_where_it_comes_from(path: Path):
    entry, _ = read(path)
    assert all(entry[name] for name in ("_comment", "_added", "_source"))


@pytest.mark.parametrize("path", VALID, ids=lambda path: path.stem)
def test_a_valid_shape_goes_on_as_expected(path: Path):
    entry, raw = read(path)
    expect = entry["expect"]
    call = normalise(raw, a2a_version=expect.get("headers", {}).get("A2A-Version"), mint=mint)
    assert isinstance(call, Envelope)
    assert (call.body is raw) == expect.get("unchanged", False)
    sent = json.loads(call.body)
    if "parts" in expect:
        assert sent["params"]["message"]["parts"] == expect["parts"]
        assert "content" not in sent["params"]["message"]
    if expect.get("message_id") == "minted":
        assert is_uuid(sent["params"]["message"]["messageId"])
        assert call.message_id == sent["params"]["message"]["messageId"]
        assert not call.client_message_id
    if expect.get("id") == "minted":
        assert is_uuid(sent["id"])
    elif "id" in expect:
        assert sent["id"] == expect["id"]
    assert (call.id_json is None) == ("id" not in sent)
    assert call.id_json is None or json.loads(call.id_json) == sent["id"]
    assert call.streaming == expect.get("streaming", False)
    assert call.expires_in_s == expect.get("expires_in_s")


@pytest.mark.parametrize("path", INVALID, ids=lambda path: path.stem)
def test_an_invalid_shape_is_refused_with_the_expected_error(path: Path):
    entry, raw = read(path)
    bad = normalise(raw, a2a_version=None, mint=mint)
    assert isinstance(bad, BadEnvelope)
    answer = json.loads(error_body(bad))
    assert answer["jsonrpc"] == "2.0"
    assert answer["error"]["code"] == bad.code == entry["_expect_error"]
    if entry.get("_expect_names"):
        assert entry["_expect_names"] in answer["error"]["message"]
        assert entry["_expect_names"] in answer["error"]["data"]["field"]
    if bad.code == -32602:
        assert answer["id"] == entry["body"]["id"]
