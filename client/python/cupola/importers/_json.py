"""Configuration files: JSON objects, and the flat YAML that some write."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Dict, Tuple, Type, TypeVar, Union

from ._failure import ImportFailed

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
    lines = re.findall(r"^(\w+):[ \t]+([^\s#].*?)\s*$", _text(path), re.M)
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
        raise ImportFailed(f"{file} says {key} is {_short(value)}")
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
    value: Union[int, float] = take(config, key, (int, float), file)
    return float(value)


def _short(value: Any) -> str:
    if isinstance(value, (dict, list)):
        return "a list" if isinstance(value, list) else "an object"
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
