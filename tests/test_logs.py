"""logs: what is hidden, and what must not be."""

import asyncio
import logging
from collections.abc import Iterator

import orjson
import pytest
import structlog

from gateway import logs
from gateway.ports import StoreError

WORD = "a-word-that-nobody-may-read"
PASSWORD = "p@ss/word-of-the-database"
QUOTED = "p%40ss%2Fword-of-the-database"


TOKEN = "t" * 43


class ForeignError(Exception):
    """As a library's: it quotes what it could not take."""


ForeignError.__module__ = "library.errors"


@pytest.fixture(autouse=True)
def as_it_was() -> Iterator[None]:
    before, root = structlog.get_config(), logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    structlog.configure(**before)
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture(params=["text", "json"])
def configured(request: pytest.FixtureRequest):
    """Configure, and return a logger; to be called in the test, whose stderr is another than the fixture's."""

    def configure():
        logs.configure(request.param, secrets=[WORD, f"postgresql://user:{QUOTED}@host/name", None])
        return structlog.get_logger()

    return configure


@pytest.mark.parametrize("field", [WORD, f"x{WORD}x", f"Bearer {TOKEN}", f"redis://:{TOKEN}@host", [WORD], {WORD: 1}])
def test_a_secret_is_hidden_wherever_it_stands(configured, field, capsys):
    log = configured()
    log.info("happened", field=field, other="stays")
    said = capsys.readouterr().err
    assert logs.HIDDEN in said
    assert "stays" in said
    assert WORD not in said
    assert TOKEN not in said


def test_the_password_of_a_url_is_hidden_in_both_its_forms(configured, capsys):
    log = configured()
    log.info("happened", quoted=QUOTED, plain=PASSWORD)
    assert "word-of-the-database" not in capsys.readouterr().err


def test_a_librarys_exception_is_told_by_kind_and_place_and_ours_by_its_words(configured, capsys):
    log = configured()
    try:
        try:
            raise ForeignError("DETAIL: row (quoted body)")
        except ForeignError as error:
            raise StoreError("22P02 it was refused") from error
    except StoreError:
        log.exception("broke")
    said = capsys.readouterr().err
    assert "library.errors.ForeignError" in said
    assert "22P02 it was refused" in said
    assert "test_a_librarys_exception" in said, "the place"
    assert "(quoted body)" not in said.replace('raise ForeignError("DETAIL: row (quoted body)")', "").replace(
        'raise ForeignError(\\"DETAIL: row (quoted body)\\")', ""
    )


def test_an_exception_that_speaks_of_code_is_told_in_full_in_a_group_too(configured, capsys):
    log = configured()
    log.error(
        "broke", exc_info=ExceptionGroup("several", [AttributeError("no attribute 'x'"), ValueError("quoted body")])
    )
    said = capsys.readouterr().err
    assert "AttributeError: no attribute 'x'" in said
    assert "ValueError" in said
    assert "quoted body" not in said


async def test_what_libraries_log_is_told_without_what_it_is_about(capsys):
    logs.configure("json")
    logging.getLogger("aiohttp.server").error("could not handle %s", "the quoted body")
    logging.getLogger("other").info("too quiet")

    about = {"exception": ForeignError("the quoted body"), "future": "the quoted body"}
    asyncio.get_running_loop().call_exception_handler({"message": "Task exception was never retrieved", **about})
    first, second = (orjson.loads(line) for line in capsys.readouterr().err.splitlines())
    assert (first["level"], first["logger"], first["said"]) == ("error", "aiohttp.server", "could not handle %s")
    assert (second["logger"], second["said"]) == ("asyncio", "Task exception was never retrieved")
    assert second["exception"].endswith("library.errors.ForeignError")
    assert "quoted" not in str((first, second))
