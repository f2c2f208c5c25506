"""core.coding: bodies that come compressed."""

import gzip
import os
import zlib

import pytest

from gateway.core.coding import FREE_BYTES, RATIO, unfold
from gateway.core.refusals import Code, Refusal

MB = 1024 * 1024
SAID = b'{"method":"tasks/get"}' * 100
RAW = zlib.compressobj(wbits=-zlib.MAX_WBITS)
FOLDED = {
    "gzip": gzip.compress(SAID),
    "GZip ": gzip.compress(SAID),
    "x-gzip": gzip.compress(SAID),
    "deflate": zlib.compress(SAID),
    "deflate without its header": RAW.compress(SAID) + RAW.flush(),
    "identity": SAID,
    "": SAID,
}


@pytest.mark.parametrize("coding", FOLDED)
def test_a_body_is_what_it_was_before_it_was_compressed(coding: str) -> None:
    assert unfold(FOLDED[coding], coding.partition(" without")[0], limit_bytes=MB) == SAID


def test_nothing_is_nothing_however_it_is_encoded() -> None:
    assert unfold(b"", "gzip", limit_bytes=MB) == b""


@pytest.mark.parametrize("coding", ["br", "zstd", "compress", "gzip, gzip", "aws-chunked"])
def test_another_coding_is_refused(coding: str) -> None:
    with pytest.raises(Refusal) as refused:
        unfold(b"x", coding, limit_bytes=MB)
    assert refused.value.code is Code.UNKNOWN_CODING


@pytest.mark.parametrize(
    "received",
    [
        b"no such thing",
        FOLDED["gzip"][:-4],
        FOLDED["gzip"] + b"more",
        FOLDED["gzip"] * 2,
        FOLDED["gzip"][:-1] + b"\xff",
    ],
    ids=["not compressed", "cut off", "more behind it", "two of them", "a length that is wrong"],
)
def test_what_is_broken_is_refused(received: bytes) -> None:
    with pytest.raises(Refusal) as refused:
        unfold(received, "gzip", limit_bytes=MB)
    assert refused.value.code is Code.INVALID_REQUEST


def test_what_becomes_too_long_is_refused_and_what_just_fits_is_not() -> None:
    noise = os.urandom(MB)
    assert unfold(gzip.compress(noise), "gzip", limit_bytes=MB) == noise
    with pytest.raises(Refusal) as refused:
        unfold(gzip.compress(noise + b"x"), "gzip", limit_bytes=MB)
    assert refused.value.code is Code.TOO_LARGE


def test_a_short_body_may_become_so_long_and_a_longer_one_so_many_times_as_long() -> None:
    zeros = gzip.compress(bytes(FREE_BYTES), 9)
    assert len(zeros) * RATIO < FREE_BYTES
    assert unfold(zeros, "gzip", limit_bytes=MB) == bytes(FREE_BYTES)
    with pytest.raises(Refusal) as refused:
        unfold(gzip.compress(bytes(MB), 9), "gzip", limit_bytes=10 * MB)
    assert refused.value.code is Code.TOO_LARGE
