"""The corpus of message shapes, as tests read it."""

import base64
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from uuid import UUID

from tests.harness.source import ROOT

CORPUS: Final = ROOT / "tests" / "corpus"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One shape: the bytes that a client sends, and what the file says of them."""

    name: str
    about: dict[str, Any]
    raw: bytes

    @property
    def expect(self) -> dict[str, Any]:
        """What a valid shape becomes."""
        expected: dict[str, Any] = self.about["expect"]
        return expected

    @property
    def a2a_version(self) -> str | None:
        """The header that comes with it."""
        version: str | None = self.expect.get("headers", {}).get("A2A-Version")
        return version


def read(kind: str) -> list[Entry]:
    """Every entry of `valid` or `invalid`, by name."""
    return [_entry(path) for path in sorted((CORPUS / kind).glob("*.json"))]


def _entry(path: Path) -> Entry:
    about = json.loads(path.read_bytes())
    return Entry(name=path.stem, about=about, raw=_raw(about))


def _raw(about: dict[str, Any]) -> bytes:
    match about:
        case {"raw_base64": text}:
            return base64.b64decode(text)
        case {"raw_template": shape}:
            nest = shape["open"] * shape["times"] + shape["close"] * shape["times"]
            return (shape["prefix"] + nest + shape["suffix"]).encode()
        case _:
            return json.dumps(about["body"], ensure_ascii=False).encode()


def check_sent(entry: Entry, sent: bytes) -> None:
    """Assert that these bytes are what the gateway has to make of a valid shape."""
    expect = entry.expect
    assert (sent == entry.raw) == expect.get("unchanged", False)
    call = json.loads(sent)
    if "parts" in expect:
        assert call["params"]["message"]["parts"] == expect["parts"]
        assert "content" not in call["params"]["message"]
    if expect.get("message_id") == "minted":
        assert is_uuid(call["params"]["message"]["messageId"])
    if expect.get("id") == "minted":
        assert is_uuid(call["id"])
    elif "id" in expect:
        assert call["id"] == expect["id"]


def check_refusal(entry: Entry, answer: bytes) -> None:
    """Assert that this is the JSON-RPC error that an invalid shape has to get, under its own id."""
    said = json.loads(answer)
    assert said["jsonrpc"] == "2.0"
    assert said["error"]["code"] == entry.about["_expect_error"]
    body = entry.about.get("body")
    assert json.dumps(said["id"]) == json.dumps(body.get("id") if isinstance(body, dict) else None)
    if name := entry.about.get("_expect_names"):
        assert name in said["error"]["message"]
        assert name in said["error"]["data"]["field"]


def is_uuid(text: str) -> bool:
    """Whether this is a UUID in its canonical form."""
    return str(UUID(text)) == text
