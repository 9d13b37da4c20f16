"""Configuration files: JSON objects, and the flat YAML that some write."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import (
    Any,
    Container,
    Dict,
    Mapping,
    Tuple,
    Type,
    TypeVar,
    Union,
)

from ._failure import ImportFailed, short

_MAX_BYTES = 16 << 20

T = TypeVar("T")


def existing(path: Path) -> Path:
    if not path.is_file():
        raise ImportFailed(f"no such file: {path}")
    return path


def _text(path: Path) -> str:
    if existing(path).stat().st_size > _MAX_BYTES:
        raise ImportFailed(f"{path.name} is too large for a configuration")
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ImportFailed(f"{path.name} is no text: {error}") from None


def read_json(path: Path) -> Dict[str, Any]:
    try:
        value = json.loads(_text(path))
    except (ValueError, RecursionError) as error:
        raise ImportFailed(f"{path.name} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise ImportFailed(f"{path.name} holds no object")
    return value


def read_flat_yaml(path: Path) -> Dict[str, str]:
    """The scalars at the top level, as text without quotes. Anything below is
    left out: no more is needed of these files."""
    value = r"""("[^"\n]*"|'[^'\n]*'|[^\s#"'].*?)"""
    line = rf"^(\w+):[ \t]+{value}[ \t]*(?:[ \t]#.*)?$"
    lines = re.findall(line, _text(path), re.M)
    return {key: value.strip("'\"") for key, value in lines}


def take(
    config: Dict[str, Any],
    key: str,
    kind: Union[Type[T], Tuple[Type[T], ...]],
    file: str,
) -> T:
    """The value, which must be there and of the kind."""
    value = config.get(key)
    if not isinstance(value, kind) or (
        isinstance(value, bool) and kind is not bool
    ):
        raise ImportFailed(f"{file} says {key} is {short(value)}")
    return value


def take_or(
    config: Dict[str, Any],
    key: str,
    kind: Union[Type[T], Tuple[Type[T], ...]],
    file: str,
    default: T,
) -> T:
    """As take(), but `default` where there is none or it is null."""
    if config.get(key) is None:
        return default
    return take(config, key, kind, file)


def number(config: Dict[str, Any], key: str, file: str) -> float:
    """A finite one."""
    value: Union[int, float] = take(config, key, (int, float), file)
    if not abs(value) <= sys.float_info.max:
        raise ImportFailed(f"{file} says {key} is {short(value)}")
    return float(value)


def unread(config: Mapping[str, Any], file: str, known: Container[str]) -> str:
    """A sentence on the settings that say something and that nothing is known
    of, or an empty one. Projects write many that only training needs, so that
    they cannot all be refused."""
    names = [
        key
        for key, value in config.items()
        if key not in known
        and not (value is None or value is False or value in ("", [], {}))
    ]
    if not names:
        return ""
    shown = ", ".join(short(name) for name in sorted(names)[:20])
    return f"not used of {file}: {shown}" + (", ..." if names[20:] else "")
