"""Named queries out of `.sql` files: one file per noun, `-- name: verb` above each query."""

import re
from collections.abc import Mapping
from functools import cache
from importlib import resources
from types import MappingProxyType

_HEADER = re.compile(r"^--[ \t]*name:(.*)$", re.MULTILINE)


@cache
def load(noun: str) -> Mapping[str, str]:
    """The queries of `sql/queries/<noun>.sql` by name, in the order of the file, comments included.

    Read once per process. Raises FileNotFoundError, or ValueError as `parse` does.
    """
    return parse((resources.files(__package__) / "queries" / f"{noun}.sql").read_text(encoding="utf-8"), source=noun)


def parse(text: str, *, source: str) -> Mapping[str, str]:
    """Split the text of one file; what stands above the first header is a comment about the file.

    Raises ValueError, naming `source`, for a header without a name, a name that is no lower-case identifier or comes
    twice, a header with nothing below, and SQL above the first header.
    """
    preamble, *parts = _HEADER.split(text)
    if _without_comments(preamble):
        raise ValueError(f"{source}: SQL above the first `-- name:` header")
    queries: dict[str, str] = {}
    for name, query in zip((part.strip() for part in parts[::2]), (part.strip() for part in parts[1::2]), strict=True):
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name):
            raise ValueError(f"{source}: {name!r} is not a name for a query")
        if name in queries:
            raise ValueError(f"{source}: there are two queries named {name}")
        if not _without_comments(query):
            raise ValueError(f"{source}: {name} has no SQL")
        queries[name] = query
    return MappingProxyType(queries)


def _without_comments(text: str) -> str:
    return re.sub(r"--.*", "", text).strip(" \t\r\n;")
