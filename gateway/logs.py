"""How the log looks: an event's name and its fields, and nobody's secrets, whoever lets one slip."""

import json
import logging
import re
import sys
import traceback
from collections.abc import Collection, Iterator
from typing import Any, Final
from urllib.parse import unquote, urlsplit

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

HIDDEN: Final = "(hidden)"
SECRET_CHARS: Final = 12
"""A shorter password is not looked for by itself: it may be any word. In a URL it is hidden all the same."""
OURS: Final = ("gateway", "events", "runtime", "sql")
"""The packages whose exceptions say nothing that they were given to keep."""
OF_CODE: Final = (AttributeError, ImportError, NameError, NotImplementedError, OSError, RecursionError, TypeError)
"""Exceptions that speak of code or of the machine. The words of all others may quote a row, a body or a token."""
_SHAPES: Final = (
    (re.compile(r"(?i)\b(bearer )[\w.~+/=-]{8,}"), rf"\1{HIDDEN}"),
    (re.compile(r"(://[^/@\s:]*:)[^/@\s]+@"), rf"\1{HIDDEN}@"),
)

log = structlog.get_logger("gateway.logs")


def configure(log_format: str, *, secrets: Collection[str | None] = ()) -> None:
    """Write to stderr as `text` or `json`, what libraries log too; `secrets` are hidden, of URLs their passwords."""
    renderer: Processor = structlog.processors.JSONRenderer()
    if log_format != "json":
        renderer = structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _tell_exception,
            _hiding(renderer, [form for secret in secrets if secret for form in _forms(secret)]),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING, handlers=[_Libraries()], force=True)


def trace(error: BaseException) -> str:
    """Return where an exception came from, with those behind it, and what it says where that is fit for the log."""
    parts = []
    behind = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if behind is not None:
        parts += [trace(behind), "which led to:"]
    if isinstance(error, BaseExceptionGroup):
        parts += [trace(one) for one in error.exceptions]
    parts += ["Traceback (most recent call last):\n" + "".join(traceback.format_tb(error.__traceback__)).rstrip()]
    kind = type(error)
    told = kind.__module__.partition(".")[0] in OURS or isinstance(error, OF_CODE)
    said = f": {error}" if told and str(error) else ""
    parts.append(f"{kind.__module__}.{kind.__qualname__}{said}".removeprefix("builtins."))
    return "\n".join(parts)


def _tell_exception(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    error = event.pop("exc_info", None)
    if isinstance(error, tuple):
        error = error[1]
    elif error is True:
        error = sys.exc_info()[1]
    if isinstance(error, BaseException):
        event["exception"] = trace(error)
    return event


def _forms(secret: str) -> Iterator[str]:
    """A secret as it may stand in a line; of a URL with a password, the password."""
    word = secret
    if "://" in secret:
        try:
            word = urlsplit(secret).password or ""
        except ValueError:
            word = ""
    for form in {word, unquote(word), json.dumps(word)[1:-1]}:
        if len(form) >= SECRET_CHARS:
            yield form


def _hiding(renderer: Processor, secrets: Collection[str]) -> Processor:
    known = re.compile("|".join(map(re.escape, sorted(secrets, key=len, reverse=True)))) if secrets else None

    def render(logger: WrappedLogger, name: str, event: EventDict) -> str:
        line = str(renderer(logger, name, event))
        if known is not None:
            line = known.sub(HIDDEN, line)
        for shape, instead in _SHAPES:
            line = shape.sub(instead, line)
        return line

    return render


class _Libraries(logging.Handler):
    """Puts what libraries log into our form: the first line of what they say, without what they say it of."""

    def emit(self, record: logging.LogRecord) -> None:
        said: Any = record.msg
        first = said.partition("\n")[0] if isinstance(said, str) else type(said).__name__
        error = record.exc_info[1] if record.exc_info else None
        log.log(record.levelno, "library", logger=record.name, said=first, exc_info=error)
