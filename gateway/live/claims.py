"""Whose call has a message, as Redis keeps it: what scripts are told of a claim, and what they tell of it."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from gateway.core.answers import Answer
from gateway.core.claims import Claim
from gateway.live.records import ENDLESS_S, ms
from gateway.ports import Earlier, Kept, Left, Stage

WAITERS_S: Final = 60.0
"""How long those that wait for a call may ask for its answer, though the next one is made."""


def read_earlier(said: Sequence[Any], claim: Claim | None) -> Earlier | None:
    """Return the earlier call that the script `admit` tells of, if it does."""
    if claim is None or said[0] != b"same":
        return None
    call_id, words, stage, again, status, headers, body = said[7:]
    answer = Answer(status=int(status), headers=_headers(headers), body=body) if status else None
    return Earlier(
        call_id=call_id.decode(),
        words=words.decode() == claim.words,
        stage=Stage(stage.decode()),
        answer=answer,
        again=again == b"1",
    )


def kept_arguments(left: Left, kept: Kept, kept_s: float) -> Sequence[str | int | bytes]:
    """Return what the script `leave` is told of a claim; `kept_s`: how long answers are kept."""
    answer = kept.answer
    how = (0, "", "") if answer is None else (int(answer.status), _lines(answer.headers), answer.body)
    return kept.claim.words, ms(_kept_for_s(left, kept, kept_s)), _word(kept), *how


def waits_for_s(waits_s: float, kept_s: float) -> float:
    """Return how long it has to be known that a call is there which waits: it may take its time when it is sent."""
    return waits_s + ENDLESS_S + kept_s


def _kept_for_s(left: Left, kept: Kept, kept_s: float) -> float:
    if kept.waits:
        return waits_for_s(left.keep_s or 0.0, kept_s)
    return WAITERS_S if kept.again else kept_s


def _word(kept: Kept) -> str:
    """What the scripts call the end of a call: whether the next one is made, or the ledger has this one."""
    return "waits" if kept.waits else str(int(kept.again))


def _lines(headers: Mapping[str, str]) -> bytes:
    """Headers as they are kept; an agent's may hold bytes that are no text."""
    return "\n".join(f"{name}:{value}" for name, value in headers.items()).encode("utf-8", "surrogateescape")


def _headers(lines: bytes) -> dict[str, str]:
    said = (line.partition(":") for line in lines.decode("utf-8", "surrogateescape").split("\n"))
    return {name: value for name, _, value in said if name}
