"""What stands in two places says the same: refusals, endings, settings, events and routes."""

import ast
import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Final

import orjson
import pytest

from events.event import CATALOGUE
from gateway import settings
from gateway.core import answers, farewells, feeds, outcomes
from gateway.core.causes import RULES, Anew, cause_of
from gateway.core.endings import Ending
from gateway.core.outcomes import Clock, Outcome
from gateway.core.refusals import Code
from gateway.web import openapi
from gateway.web.refusals import STATUS
from gateway.web.routes import ROUTES, Route
from tests.harness.cast import GOOD
from tests.harness.source import ROOT, below

README: Final = (ROOT / "README.md").read_text()
OUTCOMES: Final[Mapping[Ending, Outcome]] = {
    Ending.COMPLETED: outcomes.Answered(status=200, headers={}, body=b"{}"),
    Ending.AGENT_ERROR: outcomes.Answered(status=500, headers={}, body=b"no"),
    Ending.AGENT_BUSY: outcomes.Answered(status=429, headers={}, body=b""),
    Ending.AGENT_UNREACHABLE: outcomes.NotConnected(),
    Ending.AGENT_RESTARTING: outcomes.Dead(),
    Ending.IDLE_TIMEOUT: outcomes.Expired(clock=Clock.IDLE),
    Ending.FIRST_BYTE_TIMEOUT: outcomes.Expired(clock=Clock.FIRST_BYTE),
    Ending.AGENT_RESET: outcomes.Reset(),
    Ending.TRUNCATED: outcomes.Cut(status=200),
    Ending.RESPONSE_TOO_LARGE: outcomes.TooLarge(),
    Ending.OVERLOADED: outcomes.Unheld(status=200),
    Ending.DEADLINE: outcomes.Expired(clock=Clock.DEADLINE),
    Ending.CEILING: outcomes.Expired(clock=Clock.CEILING),
    Ending.BUS_LOST: outcomes.Expired(clock=Clock.BUS_LOST),
    Ending.STALLED: outcomes.Expired(clock=Clock.STALLED),
    Ending.BUDGET: outcomes.Spent(),
    Ending.GATEWAY_SHUTDOWN: outcomes.Stopped(),
    Ending.INTERRUPTED: outcomes.Orphaned(),
    Ending.DELIVERED_TO_INBOX: outcomes.Parked(call_id="c-1", method="message/send"),
    Ending.EXPIRED: outcomes.Lapsed(),
    Ending.CANCELLED: outcomes.Cancelled(),
    Ending.REJECTED: outcomes.Rejected(reason="removed"),
    Ending.INTERNAL: outcomes.Broke(),
}
"""What brings each ending about."""


DOCUMENT: Final = orjson.loads(openapi.document(ROUTES, version="0"))


def statuses(route: Route) -> set[int]:
    """Those that /openapi.json has for a route."""
    return {int(one) for one in DOCUMENT["paths"][route.path][route.method.lower()]["responses"] if one != "default"}


def row_of(ending: Ending) -> str:
    """The README's line about an ending."""
    [row] = [line for line in README.splitlines() if line.startswith("|") and f"`{ending.value}`" in line.split("|")[2]]
    return row


def settings_table() -> str:
    """The table of settings as the README has to have it."""
    rows = ["| setting | default | |", "|---|---|---|"]
    for one in settings.describe():
        default = f"{one.default} {one.unit}".strip() if one.default else ""
        rows.append(f"| `{one.name}` | {default} | {one.about} |")
    return "\n".join(rows)


def types_table() -> str:
    """The table of events as the document has to have it."""
    rows = ["| `type` | when | `data` |", "|---|---|---|"]
    for type_, kind in CATALOGUE.items():
        data = ", ".join(f"`{name}`" for name in kind.data) or "nothing sends it yet"
        rows.append(f"| `{type_}` | {kind.about}{'' if kind.journal else ' (not kept)'} | {data} |")
    return "\n".join(rows)


def rules_table() -> str:
    """The table of what follows from each cause, as the document has to have it."""
    rows = [
        "| ending | what has happened | its message | caller may send again | gateway sends again | from the queue |"
        " delegated | feed |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for cause, rule in RULES.items():
        cells = (cause, rule.taken, rule.retriable, rule.sent, rule.queued, rule.delegated, rule.feed)
        rows.append(f"| `{rule.ending}` | {' | '.join(cells)} |")
    return "\n".join(rows)


def published() -> Iterator[str]:
    """The names in services and in the table of moves that look like an event's."""
    for module in (*below("gateway/services"), *below("gateway/core")):
        if module.path == "gateway/core/http_json.py":  # in whose errors such names mean something else
            continue
        yield from (text for text in module.texts if re.fullmatch(r"[A-Z][A-Z0-9]*(_[A-Z]+)+", text))


def codes_used() -> Iterator[str]:
    """The members of Code in calls: refusals that are made, not tables about them."""
    for module in below("gateway"):
        for node in ast.walk(module.tree):
            match node:
                case ast.Call(args=arguments):
                    for argument in arguments:
                        match argument:
                            case ast.Attribute(value=ast.Name(id="Code"), attr=name):
                                yield name


def test_every_refusal_has_its_status_and_is_used():
    assert set(STATUS) == set(Code)
    assert all(status >= HTTPStatus.BAD_REQUEST for status in STATUS.values())
    assert set(codes_used()) == {code.name for code in Code}


def test_every_route_has_a_good_body_to_start_from():
    assert list(GOOD) == [f"{route.method} {route.path}" for route in ROUTES]
    for route in ROUTES:
        assert (GOOD[f"{route.method} {route.path}"] is not None) == route.takes_body


@pytest.mark.parametrize("ending", Ending)
def test_every_ending_is_in_the_readme_with_what_its_caller_gets(ending: Ending):
    ended = answers.classify(OUTCOMES[ending])
    assert ended.ending is ending
    if ending is Ending.COMPLETED:
        return  # the agent's own answer
    shown, answer = row_of(ending).split("|")[1], ended.answer
    assert shown.strip().startswith(str(answer.status)) or ending is Ending.AGENT_ERROR
    assert "`Retry-After`" not in shown or "Retry-After" in answer.headers
    assert "`outcome: unknown`" not in shown or b'"outcome":"unknown"' in answer.body
    assert "`delivery_confirmed`" not in shown or b'"delivery_confirmed":' in answer.body


@pytest.mark.parametrize("route", [route for route in ROUTES if route.a2a], ids=lambda one: f"{one.method} {one.path}")
def test_the_openapi_document_has_every_status_with_which_a_call_ends_or_is_refused(route: Route):
    ends = {answers.classify(outcome).answer.status for outcome in OUTCOMES.values()}
    [refused] = re.findall(r"^Refused before anything goes out:.*?\n\n", README, re.DOTALL | re.MULTILINE)
    refusals = {int(one) for one in re.findall(r"\b\d{3}\b", refused)}
    assert refusals > {402, 429, 508}
    waits = {202} if route.rpc else set()  # by HTTP+JSON nothing does
    bodiless = set() if route.takes_body else {413, 415}
    assert statuses(route) >= (ends | refusals | waits) - bodiless
    assert (202 in statuses(route)) == route.rpc


def test_the_openapi_document_has_429_for_all_that_counts():
    said = {f"{route.method} {route.path}" for route in ROUTES if 429 not in statuses(route)}
    assert said == {"GET /healthz", "GET /health", "GET /readyz"}


def test_the_readme_shows_every_setting_as_it_is():
    shown = re.search(r"<!-- settings -->\n(.*?)\n?<!-- /settings -->", README, re.DOTALL)
    assert shown is not None
    assert shown[1] == settings_table(), f"the README's table of settings should be:\n{settings_table()}"


def test_the_document_of_events_shows_the_catalogue_as_it_is():
    shown = re.search(r"<!-- types -->\n(.*?)\n<!-- /types -->", (ROOT / "docs" / "events.md").read_text(), re.DOTALL)
    assert shown is not None
    assert shown[1] == types_table(), f"the table of events should be:\n{types_table()}"


def test_the_document_of_calls_shows_what_follows_from_each_ending_as_it_is():
    document = (ROOT / "docs" / "calls.md").read_text()
    shown = re.search(r"<!-- endings -->\n(.*?)\n<!-- /endings -->", document, re.DOTALL)
    assert shown is not None
    assert shown[1] == rules_table(), f"the table of endings should be:\n{rules_table()}"


def test_the_document_of_feeds_names_each_reason_to_give_one_up():
    [row] = [line for line in (ROOT / "docs" / "feeds.md").read_text().splitlines() if line.startswith("| `gave_up`")]
    answered = [outcomes.Answered(status=status, headers={}, body=b"") for status in range(200, 600)]
    hows: list[feeds.How] = [*answered, outcomes.NotConnected(unsafe=True), outcomes.NotConnected(), outcomes.Reset()]
    final = [feeds.reason_of(how) for how in hows if RULES[cause_of(how)].feed is Anew.GIVEN_UP]
    assert re.findall(r"`(http_\d+|un\w+)`", row) == final


def test_a_streaming_caller_gets_those_refusals_as_an_event_whose_words_its_client_would_lose():
    lost = {code: int(status) for code, status in STATUS.items() if status in farewells.STATUS_TOLD_IN_BAND}
    assert lost == farewells.CODES_TOLD_IN_BAND


def test_every_event_that_is_published_is_in_the_catalogue_and_the_other_way_round():
    assert set(published()) == set(CATALOGUE)


def test_the_document_of_access_shows_every_route_as_it_is():
    shown = re.search(r"<!-- routes -->\n(.*?)\n<!-- /routes -->", (ROOT / "docs" / "access.md").read_text(), re.DOTALL)
    assert shown is not None
    head, rule, *rows = shown[1].split("\n")
    assert (head, rule) == ("| route | for, beside the operator | counts as |", "|---|---|---|")
    assert rows == [
        f"| `{route.method} {route.path}` | {route.scope.value} | {route.tariff.value} |" for route in ROUTES
    ]
