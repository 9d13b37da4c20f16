"""What an importer raises, and how what a file says is shown in it."""

from __future__ import annotations

import contextlib
from typing import Any, Iterator

_MAX_MESSAGE, _MAX_VALUE = 1000, 80


class ImportFailed(Exception):
    """The source cannot be turned into a folder for a server; says why.

    Messages quote files, which are not trusted: what a terminal would obey is
    escaped, and a long one is cut.
    """

    def __init__(self, message: str) -> None:
        super().__init__(_printable(message[: _MAX_MESSAGE + 1]))


def _printable(text: str) -> str:
    shown = "".join(
        c if c.isprintable() else ascii(c)[1:-1] for c in text[:_MAX_MESSAGE]
    )
    return shown + ("..." if len(text) > _MAX_MESSAGE else "")


def short(value: Any) -> str:
    """A file's value in a message. Only what is small is written out: a nested
    value may be a few bytes in a file and have no end as text."""
    if value is None or isinstance(value, (bool, float)):
        return repr(value)
    if isinstance(value, int):
        return repr(value) if value.bit_length() <= 64 else "a huge number"
    if isinstance(value, str):
        cut = len(value) > _MAX_VALUE
        return repr(value[:_MAX_VALUE]) + ("..." if cut else "")
    kinds = {list: "a list", dict: "an object", tuple: "a tuple"}
    return kinds.get(type(value), f"a {type(value).__name__}")


@contextlib.contextmanager
def guarded() -> Iterator[None]:
    """Around the reading of files: whatever a damaged one leads to is an
    ImportFailed, but for the file system's own errors."""
    try:
        yield
    except (ImportFailed, OSError):
        raise
    except Exception as error:
        raise ImportFailed(
            f"the source is damaged: {type(error).__name__}: {error}"
        ) from error
