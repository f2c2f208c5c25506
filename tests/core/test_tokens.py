"""core.tokens: 32 random bytes, known by their hash alone."""

from base64 import urlsafe_b64decode

from gateway.core.tokens import hash_token, mint


def test_a_token_is_32_random_bytes_and_its_hash_finds_it_again() -> None:
    one, two = mint(), mint()
    assert len(urlsafe_b64decode(one.text + "=")) == 32
    assert one.text != two.text
    assert one.hash == hash_token(one.text)
    assert one.prefix == one.text[:8]


def test_a_token_does_not_print() -> None:
    one = mint()
    assert one.text not in repr(one)
    assert repr(one.hash) not in repr(one)


def test_any_text_that_a_header_can_carry_has_a_hash() -> None:
    assert len(hash_token("\udcff\x00é")) == 32
