"""The map holds: each module keeps a sentence and has its tests, and tasks are born in two places only."""

import ast
from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath
from typing import Final

import pytest

from tests.harness.source import ROOT, Module, modules

HANDLERS: Final = "tests/web/test_bad_input.py"
ELSEWHERE: Final[Mapping[str, str]] = {
    "events/readers.py": "tests/events/test_hub.py",
    "gateway/app/bus.py": "tests/test_app.py",
    "gateway/app/calling.py": "tests/test_app.py",
    "gateway/app/checks.py": "tests/test_cli.py",
    "gateway/app/gauges.py": "tests/test_metrics.py",
    "gateway/app/ground.py": "tests/test_app.py",
    "gateway/app/hearing.py": "tests/test_app.py",
    "gateway/app/known.py": "tests/test_app.py",
    "gateway/app/root.py": "tests/test_app.py",
    "gateway/app/running.py": "tests/test_app.py",
    "gateway/app/site.py": HANDLERS,
    "gateway/app/taps.py": "tests/e2e/test_poll.py",
    "gateway/app/timetable.py": "tests/e2e/test_liveness.py",
    "gateway/settings/kinds.py": "tests/test_settings.py",
    "gateway/settings/table.py": "tests/test_settings.py",
    "gateway/services/attempts.py": "tests/services/test_drain.py",
    "gateway/services/settling.py": "tests/services/test_drain.py",
    "gateway/services/backlog.py": "tests/e2e/test_backlog.py",
    "gateway/services/calls.py": "tests/e2e/test_poll.py",
    "gateway/services/cancelling.py": "tests/services/test_pushed.py",
    "gateway/services/history.py": "tests/services/test_inbox.py",
    "gateway/web/activity.py": "tests/e2e/test_history.py",
    "gateway/web/backlog.py": "tests/e2e/test_backlog.py",
    "gateway/web/calls.py": "tests/e2e/test_poll.py",
    "gateway/web/inbox.py": "tests/e2e/test_poll.py",
    "gateway/web/query.py": HANDLERS,
    "gateway/web/a2a.py": "tests/e2e/test_corpus.py",
    "gateway/web/answers.py": "tests/e2e/test_openapi.py",
    "gateway/web/guard.py": HANDLERS,
    "gateway/web/delegations.py": "tests/e2e/test_delegation.py",
    "gateway/web/health.py": "tests/e2e/test_openapi.py",
    "gateway/web/models.py": "tests/web/test_bad_fields.py",
    "gateway/web/openapi.py": "tests/e2e/test_openapi.py",
    "gateway/web/parse.py": HANDLERS,
    "gateway/web/refusals.py": "tests/arch/test_tables.py",
    "gateway/web/registry.py": HANDLERS,
    "gateway/web/render.py": HANDLERS,
    "gateway/web/routes.py": HANDLERS,
    "sql/loader.py": "tests/test_sql.py",
}
"""Modules that are tested with what they are for, and where."""
NOTHING_TO_RUN: Final = ("gateway/ports/", "gateway/web/keys.py")
"""Names and types alone."""
BIRTHPLACES: Final = frozenset({"gateway/services/tasks.py", "runtime/spawn.py"})
STARTS_TASKS: Final = frozenset({"create_task", "ensure_future", "gather", "TaskGroup", "wait_for"})


def mirror(path: str) -> str:
    """The test file of a module: tests/core/test_ids.py for gateway/core/ids.py."""
    module = PurePosixPath(path.removeprefix("gateway/"))
    return str(PurePosixPath("tests") / module.parent / f"test_{module.name}")


def names_used(module: Module) -> Iterator[str]:
    for node in ast.walk(module.tree):
        match node:
            case ast.Attribute(attr=name) | ast.Name(id=name) | ast.alias(name=name):
                yield name


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.path)
def test_a_module_opens_with_its_sentence(module: Module):
    said = ast.get_docstring(module.tree, clean=False)
    assert said is not None
    sentence = said.split("\n\n")[0]
    assert "\n" not in sentence
    assert sentence[0].isupper() or sentence[0] == "`"
    assert sentence.endswith((".", "?"))


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.path)
def test_a_module_has_its_tests(module: Module):
    if PurePosixPath(module.path).name in ("__init__.py", "__main__.py") or module.path.startswith(NOTHING_TO_RUN):
        return
    own = ROOT / mirror(module.path)
    if module.path in ELSEWHERE:
        assert not own.exists(), f"{own.name} exists: take the module out of ELSEWHERE"
        own = ROOT / ELSEWHERE[module.path]
    assert own.exists()
    assert b"def test_" in own.read_bytes()


def test_the_exceptions_are_modules():
    paths = {module.path for module in modules()}
    assert {*ELSEWHERE, *BIRTHPLACES} <= paths
    assert all(any(path.startswith(one) for path in paths) for one in NOTHING_TO_RUN)


@pytest.mark.parametrize("module", modules(), ids=lambda module: module.path)
def test_tasks_are_born_in_two_places_only(module: Module):
    born = STARTS_TASKS.intersection(names_used(module))
    assert born == ({"create_task"} if module.path in BIRTHPLACES else set())
