"""core.refusals: what the gateway refuses."""

from gateway.core.refusals import Code, Refusal, bad_field, platform_unavailable


def test_a_refusal_shows_its_sentence_code_and_fields() -> None:
    refused = Refusal(Code.REMOVED, "gone", id="w")
    assert refused.to_json() == {"error": "gone", "code": "removed", "id": "w"}


def test_a_bad_field_is_named() -> None:
    assert bad_field("url", "must be safe").to_json() == {
        "error": "url: must be safe", "code": "invalid_request", "field": "url",
    }  # fmt: skip


def test_an_absent_datastore_says_when_to_come_back() -> None:
    assert platform_unavailable().retry_after_s
